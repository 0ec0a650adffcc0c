//! Connections and migrations.

use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Postgres, Row, SqlSafeStr, Transaction};

use tokio::sync::Notify;

use crate::error::StoreError;

/// Settings of the database connections; the defaults are the reference's.
#[derive(Debug, Clone, clap::Args)]
pub struct DatabaseArgs {
    /// Connections of this process to PostgreSQL at most
    #[arg(long, env = "TASKMASTER_DATABASE_POOL_MAX", default_value_t = 20, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub database_pool_max: u32,
    /// An unused connection is closed after so many seconds
    #[arg(long, env = "TASKMASTER_DATABASE_IDLE_SECONDS", default_value_t = 30, value_name = "SECONDS")]
    pub database_idle_seconds: u64,
    /// Give up getting a connection after so many seconds
    #[arg(long, env = "TASKMASTER_DATABASE_CONNECT_SECONDS", default_value_t = 2, value_name = "SECONDS")]
    pub database_connect_seconds: u64,
}

impl Default for DatabaseArgs {
    fn default() -> Self {
        Self { database_pool_max: 20, database_idle_seconds: 30, database_connect_seconds: 2 }
    }
}

/// No statement runs longer than this; the slowest in normal use take milliseconds.
const STATEMENT_TIMEOUT: &str = "30s";
/// A transaction that is left open does not hold back the removal of dead rows for longer than this.
const IDLE_TRANSACTION_TIMEOUT: &str = "10s";

/// The database of tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) pool: PgPool,
    pub(crate) lanes: crate::lanes::Lanes,
    /// Rung when this process has left events in the inbox.
    pub(crate) events_waiting: Arc<Notify>,
}

impl Store {
    /// A store that connects when it is used first, and again whenever a connection was lost.
    pub fn new(options: PgConnectOptions, args: &DatabaseArgs) -> Self {
        let port = options.get_port();
        let pool = PgPoolOptions::new()
            .max_connections(args.database_pool_max)
            .idle_timeout(Duration::from_secs(args.database_idle_seconds))
            .acquire_timeout(Duration::from_secs(args.database_connect_seconds))
            // Only a connection that can write is used. While a failover is under way, whoever stands before the database may
            // lead a new one to a server that is the primary no more, and on a busy pool it would never be idle. An idle one
            // may lead to a server that has changed behind a pooler. Those used within the last second are taken without asking.
            .test_before_acquire(false)
            .after_connect(move |connection, _| {
                crate::silence::bound(port);
                Box::pin(async move {
                    match writable(connection).await? {
                        true => Ok(()),
                        false => Err(sqlx::Error::Protocol("the server is read-only".into())),
                    }
                })
            })
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for < Duration::from_secs(1) {
                        return Ok(true);
                    }
                    writable(connection).await
                })
            })
            .connect_lazy_with(tuned(options));
        Self { pool, lanes: crate::lanes::Lanes::default(), events_waiting: Arc::default() }
    }

    /// Whether the database answers, accepts writes, and has this program's schema.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::NotMigrated`].
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut connection = self.pool.acquire().await?;
        if !writable(&mut connection).await? {
            return Err(StoreError::Unavailable(sqlx::Error::PoolTimedOut));
        }
        let applied: Option<i64> = sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
            .fetch_one(&mut *connection)
            .await?;
        match applied >= MIGRATIONS.iter().map(|(version, ..)| *version).max() {
            true => Ok(()),
            false => Err(StoreError::NotMigrated),
        }
    }

    /// Begins a transaction, in a task of its own: a `begin` that is given up before its answer would leave its connection within a
    /// transaction that nobody knows of, and what others then do over that connection would not be committed.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin().await }).await;
        Ok(begun.map_err(|_| sqlx::Error::WorkerCrashed)??)
    }

    /// Brings the schema up to date. Harmless when it is, and when several do it at once.
    ///
    /// # Errors
    /// When the database cannot be reached, or a migration fails (which then changed nothing).
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        migrator().run(&self.pool).await
    }

    /// Closes all connections.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// The migrations, built into the program: number, name and text of each.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "tasks", include_str!("../../migrations/0001_tasks.sql")),
    (2, "fleet", include_str!("../../migrations/0002_fleet.sql")),
    (3, "events", include_str!("../../migrations/0003_events.sql")),
    (4, "idempotency", include_str!("../../migrations/0004_idempotency.sql")),
    (5, "lighter tasks", include_str!("../../migrations/0005_lighter_tasks.sql")),
];

fn migrator() -> Migrator {
    let migration = |(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

/// Plans are pinned to what the statements were written for: small sets of keys, joined through indexes.
fn tuned(options: PgConnectOptions) -> PgConnectOptions {
    options.application_name("taskmaster").options([
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("idle_in_transaction_session_timeout", IDLE_TRANSACTION_TIMEOUT),
        // A process that is cut off gives up its connections without the server's hearing of it: the server lets them go, too,
        // before they are too many. Not used on Unix sockets.
        ("tcp_keepalives_idle", "10"),
        ("tcp_keepalives_interval", "5"),
        ("tcp_keepalives_count", "2"),
        ("tcp_user_timeout", "20s"),
        ("enable_seqscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("jit", "off"),
        ("TimeZone", "UTC"),
    ])
}

async fn writable(connection: &mut sqlx::PgConnection) -> sqlx::Result<bool> {
    let row = sqlx::query("select pg_is_in_recovery()").fetch_one(connection).await?;
    Ok(!row.try_get::<bool, _>(0)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_migration_is_built_in_under_its_number_and_name() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        let names =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = names.filter(|name| name.starts_with(|c: char| c.is_ascii_digit())).collect();
        files.sort();
        let built_in: Vec<String> =
            MIGRATIONS.iter().map(|(number, name, _)| format!("{number:04}_{name}.sql")).collect();
        assert_eq!(files, built_in);
    }
}
