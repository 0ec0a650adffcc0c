//! Everything in one process: gateway, coordinator and workers, which still speak HTTP to one another, on a private PostgreSQL.
//!
//! In reading order: [`UpArgs`]; `database` (the private PostgreSQL, kept running), `token`, `workers` (as many as wanted), `banner`.

mod banner;
mod database;
mod token;
mod workers;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use taskmaster_gateway::Scaler;
use taskmaster_openapi::health::READYZ;
use taskmaster_openapi::limits;
use taskmaster_service::settings::seconds_or_zero;
use taskmaster_service::{Health, Secret, Shutdown, client};
use taskmaster_store::{DatabaseArgs, Store};
use tokio::task::JoinHandle;

use crate::cli::from_environment;
use crate::parts::bind;
use database::Database;
use workers::{Scale, Workers};

/// Settings of `up`. The environment variables of gateway, coordinator and worker hold here as well.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Port of the API on 127.0.0.1
    #[arg(long, env = "TASKMASTER_PORT", default_value_t = 8081, value_name = "PORT")]
    pub port: u16,
    /// Workers to start with; POST /v1/workers/scale changes the number
    #[arg(long, env = "TASKMASTER_WORKERS", default_value_t = 1, value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(0..=limits::SCALE_WORKERS_MAX))]
    pub workers: u16,
    /// Tasks that each worker runs at once
    #[arg(long, env = "TASKMASTER_SLOTS", default_value_t = 5, value_name = "COUNT",
        value_parser = clap::value_parser!(u16).range(1..=limits::SLOTS_MAX))]
    pub slots: u16,
    /// Do no work: every task takes so many seconds and succeeds. For load tests and demos
    #[arg(long, env = "TASKMASTER_SIMULATE", value_parser = seconds_or_zero, value_name = "SECONDS")]
    pub simulate: Option<Duration>,
    /// Where the database and the join token are kept
    #[arg(long, env = "TASKMASTER_DATA_DIR", default_value = ".taskmaster", value_name = "DIRECTORY")]
    pub data_dir: PathBuf,
    /// Use a new database that is gone at the end
    #[arg(long, conflicts_with = "database_url")]
    pub ephemeral: bool,
    /// Use this PostgreSQL (15 or newer) instead of a private one
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    pub database_url: Option<Secret>,
    /// Where to serve the API instead, on hosts that choose the address. If that is no loopback address, commands run only when
    /// the environment says so.
    #[arg(skip)]
    pub listen: Option<SocketAddr>,
    /// API keys, besides those of the environment.
    #[arg(skip)]
    pub api_keys: Vec<Secret>,
}

impl UpArgs {
    fn listen(&self) -> SocketAddr {
        self.listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)))
    }
}

/// How long the gateway may take to say whether it is ready.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// How long the parts may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Runs everything until the stop is requested.
///
/// # Errors
/// One line: what could not be started, and what to do.
pub async fn run(args: UpArgs, shutdown: Shutdown) -> Result<(), String> {
    let began = Instant::now();
    let Some(up) = Up::start(&args, &shutdown).await? else { return Ok(()) };
    banner::print(&args, &up.banner(), began.elapsed());
    let ended = up.until_stopped(&shutdown).await;
    if shutdown.is_requested() {
        banner::print_stopping();
    }
    up.stop().await;
    ended
}

/// Everything, running.
pub struct Up {
    /// Where the API is.
    pub api: SocketAddr,
    database: Database,
    store: Store,
    gateway: Part,
    coordinator: Part,
    workers: Arc<Workers>,
}

/// A part that runs, and how it is stopped.
struct Part {
    name: &'static str,
    stop: Shutdown,
    running: JoinHandle<Result<(), String>>,
}

impl Part {
    fn start<F>(name: &'static str, stop: Shutdown, run: F) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        Self { name, stop, running: tokio::spawn(run) }
    }

    async fn stop(self) {
        self.stop.request();
        if let Ok(Err(error)) = self.running.await {
            tracing::error!(part = self.name, error, "ended with an error");
        }
    }
}

impl Up {
    /// Starts everything, and waits until it is ready. `None` when the stop was requested meanwhile.
    ///
    /// # Errors
    /// One line: what could not be started, and what to do.
    pub async fn start(args: &UpArgs, shutdown: &Shutdown) -> Result<Option<Self>, String> {
        // The port first: a second `up` is told so before anything else is started.
        let gateway_listener = bind(args.listen(), "--port").await?;
        let coordinator_listener = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), "--port").await?;
        let api = gateway_listener.local_addr().map_err(|error| error.to_string())?;
        let coordinator_url = format!("http://{}", coordinator_listener.local_addr().map_err(|e| e.to_string())?);

        let Some(database) = shutdown.or_stop(Database::start(args)).await else { return Ok(None) };
        let database = database?;
        let store = Store::new(database.connect_options(), &from_environment::<DatabaseArgs>(&[])?);
        store.migrate().await.map_err(|error| format!("the database could not be set up: {error}"))?;

        let token = token::keep_or_make(args)?;
        let workers = Workers::new(worker_config(args, &coordinator_url, &token)?);
        let health = Health::new();
        // What the parts themselves say as soon as they run: until then nothing is ready.
        health.waiting("database", "not asked yet");
        let coordinator = start_coordinator(coordinator_listener, store.clone(), &token, health.clone())?;
        let gateway = start_gateway(args, gateway_listener, store.clone(), workers.clone(), health.clone())?;
        workers.set(args.workers.into()).await?;
        let up = Self { api, database, store, gateway, coordinator, workers };
        match shutdown.or_stop(up.ready(&health)).await {
            Some(Ok(())) => Ok(Some(up)),
            Some(Err(error)) => {
                up.stop().await;
                Err(error)
            }
            None => {
                up.stop().await;
                Ok(None)
            }
        }
    }

    async fn ready(&self, health: &Health) -> Result<(), String> {
        let deadline = Instant::now() + READY_WITHIN;
        let client = client::build(ANSWERS_WITHIN).map_err(|error| error.to_string())?;
        while !(health.readiness().ready && self.workers.joined() && self.gateway_is_ready(&client).await) {
            if self.gateway.running.is_finished() || self.coordinator.running.is_finished() {
                return Err("a part ended before it was ready; the log says why".into());
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "not ready after {} s: {:?}",
                    READY_WITHIN.as_secs(),
                    health.readiness().waiting_for
                ));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Whether the gateway says so itself: another part may have found the database before the gateway had begun.
    async fn gateway_is_ready(&self, client: &reqwest::Client) -> bool {
        let ip = match self.api.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let url = format!("http://{}{READYZ}", SocketAddr::new(ip, self.api.port()));
        client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
    }

    fn banner(&self) -> banner::Facts {
        banner::Facts { api: self.api, database: self.database.describe() }
    }

    /// Waits until the stop is requested, or a part ends by itself.
    async fn until_stopped(&self, shutdown: &Shutdown) -> Result<(), String> {
        let failed = async {
            loop {
                let parts = [&self.gateway, &self.coordinator];
                if let Some(part) = parts.into_iter().find(|part| part.running.is_finished()) {
                    return format!("the {} ended by itself; the log says why", part.name);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            () = shutdown.requested() => Ok(()),
            error = failed => Err(error),
            error = self.database.lost() => Err(error),
        }
    }

    /// Stops everything, outside in: no new tasks, then workers finish or hand back theirs, then those who record it.
    pub async fn stop(self) {
        self.gateway.stop().await;
        self.workers.stop().await;
        self.coordinator.stop().await;
        // A server that stops under a connection is something to warn of.
        self.store.close().await;
        self.database.stop().await;
    }
}

fn worker_config(args: &UpArgs, coordinator_url: &str, token: &Secret) -> Result<taskmaster_worker::Config, String> {
    let mut config: taskmaster_worker::Config = from_environment(&[])?;
    config.coordinator_url = vec![coordinator_url.to_owned()];
    config.join_token = Some(token.clone());
    config.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    config.advertise = None;
    config.worker_id = None;
    config.slots = args.slots;
    config.simulate = args.simulate;
    if !args.listen().ip().is_loopback() {
        return Ok(config);
    }
    // Only programs on this machine can reach the API, and web pages cannot: what runs here may run commands anyway.
    config.allow_commands = true;
    if config.allow_targets.is_empty() {
        config.allow_targets = vec!["loopback".parse().map_err(|error| format!("loopback: {error}"))?];
    }
    Ok(config)
}

fn start_coordinator(
    listener: tokio::net::TcpListener,
    store: Store,
    token: &Secret,
    health: Health,
) -> Result<Part, String> {
    let mut config: taskmaster_coordinator::Config = from_environment(&["--join-token", token.expose()])?;
    config.join_token = token.clone();
    config.advertise = None;
    let stop = Shutdown::new();
    Ok(Part::start("coordinator", stop.clone(), taskmaster_coordinator::run(config, listener, store, health, stop)))
}

fn start_gateway(
    args: &UpArgs,
    listener: tokio::net::TcpListener,
    store: Store,
    workers: Arc<Workers>,
    health: Health,
) -> Result<Part, String> {
    let mut config: taskmaster_gateway::Config = from_environment(&[])?;
    config.api_key.extend(args.api_keys.iter().cloned());
    // A certificate is for names, and this is for this machine; the banner and the workers speak plain HTTP.
    config.tls = taskmaster_gateway::config::TlsArgs::default();
    let scaler: Arc<dyn Scaler> = Arc::new(Scale(workers));
    let stop = Shutdown::new();
    let stopping = stop.clone();
    Ok(Part::start("gateway", stop, async move {
        taskmaster_gateway::run(config, listener, store, health, Some(scaler), stopping)
            .await
            .map_err(|e| e.to_string())
    }))
}
