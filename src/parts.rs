//! Each process alone. The order of their starts does not matter: each waits for what it needs, and says so.

use std::net::SocketAddr;
use std::time::Duration;

use taskmaster_service::{Health, Shutdown};
use taskmaster_store::Store;
use tokio::net::TcpListener;

use crate::cli::{CoordinatorArgs, GatewayArgs, StoreArgs};

/// Tries to reach the database at the start, and the time between them: the reference's figures. After these it goes on trying.
const TRIES: u32 = 5;
const TRY_EVERY: Duration = Duration::from_secs(5);

const POOLED_BY_TRANSACTION: &str =
    "the pooler before the database must keep sessions (PgBouncer: pool_mode = session)";

/// The name under which readiness speaks of the schema.
const SCHEMA: &str = "schema";

/// Runs a gateway.
///
/// # Errors
/// One line: a setting is wrong, or its address is taken.
pub async fn gateway(args: GatewayArgs, shutdown: Shutdown) -> Result<(), String> {
    let store = Store::new(args.store.connect_options()?, &args.store.pool);
    let store = args.replica.added_to(store, &args.store.pool)?;
    let listener = bind(args.gateway.listen, "--listen (TASKMASTER_GATEWAY_LISTEN)").await?;
    let health = Health::new();
    let prepared = tokio::spawn(prepare(store.clone(), args.migrate, health.clone(), shutdown.clone()));
    tracing::info!(address = %listener.local_addr().map_err(|e| e.to_string())?, "gateway");
    let served = taskmaster_gateway::run(args.gateway, listener, store, health, None, shutdown.clone()).await;
    shutdown.request();
    let _ = prepared.await;
    served.map_err(|error| error.to_string())
}

/// Runs a coordinator.
///
/// # Errors
/// One line: a setting is wrong, or its address is taken.
pub async fn coordinator(args: CoordinatorArgs, shutdown: Shutdown) -> Result<(), String> {
    args.coordinator.check()?;
    let store = Store::new(args.store.connect_options()?, &args.store.pool);
    let listener = bind(args.coordinator.listen, "--listen (TASKMASTER_COORDINATOR_LISTEN)").await?;
    let health = Health::new();
    let prepared = tokio::spawn(prepare(store.clone(), args.migrate, health.clone(), shutdown.clone()));
    let served = taskmaster_coordinator::run(args.coordinator, listener, store, health, shutdown.clone()).await;
    shutdown.request();
    let _ = prepared.await;
    served
}

/// Runs a worker.
///
/// # Errors
/// One line: a setting is wrong, or its address is taken.
pub async fn worker(config: Box<taskmaster_worker::Config>, shutdown: Shutdown) -> Result<(), String> {
    taskmaster_worker::run(*config, Health::new(), shutdown).await.map_err(|error| error.to_string())
}

/// Brings the schema up to date.
///
/// # Errors
/// One line: the database cannot be reached after five tries, or a migration fails.
pub async fn migrate(args: StoreArgs) -> Result<(), String> {
    let store = Store::new(args.connect_options()?, &args.pool);
    for left in (0..TRIES).rev() {
        match store.migrate().await {
            Ok(()) => {
                tracing::info!("the schema is up to date");
                return Ok(());
            }
            Err(error) if left == 0 => return Err(format!("the schema could not be brought up to date: {error}")),
            Err(error) => {
                tracing::warn!(%error, tries_left = left, "waiting for the database");
                tokio::time::sleep(TRY_EVERY).await;
            }
        }
    }
    Ok(())
}

/// Waits until the database is there and has the schema, which it brings up to date when told to.
async fn prepare(store: Store, migrate: bool, health: Health, shutdown: Shutdown) {
    let mut tries = 0;
    loop {
        let prepared = async {
            if !store.keeps_sessions().await.map_err(|error| error.to_string())? {
                return Err(POOLED_BY_TRANSACTION.to_owned());
            }
            if migrate {
                store.migrate().await.map_err(|error| error.to_string())?;
            }
            store.ping().await.map_err(|error| error.to_string())
        };
        match shutdown.or_stop(prepared).await {
            None => return,
            Some(Ok(())) => return health.available(SCHEMA),
            Some(Err(error)) => {
                tries += 1;
                health.waiting(SCHEMA, error.clone());
                tracing::warn!(error, tries, "waiting for the database; trying again every 5 s");
            }
        }
        if shutdown.or_stop(tokio::time::sleep(TRY_EVERY)).await.is_none() {
            return;
        }
    }
}

/// Listens on an address.
///
/// # Errors
/// One line that names the setting.
pub async fn bind(address: SocketAddr, setting: &str) -> Result<TcpListener, String> {
    TcpListener::bind(address)
        .await
        .map_err(|error| format!("cannot listen on {address}: {error}; choose another with {setting}"))
}
