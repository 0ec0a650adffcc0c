//! Connections and migrations.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Row, SqlSafeStr};

use tokio::sync::{Notify, OnceCell};

use crate::error::StoreError;
use crate::pool::{Pool, TRUSTED, Transaction};
use crate::replica::Replica;

/// How long connections that are in use may take to be given back when all are closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(2);

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

/// The database of tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Store {
    /// Leads to the primary.
    pub(crate) pool: Pool,
    /// What `read_…` may ask instead: see [`crate::replica`].
    pub(crate) replica: Option<Arc<Replica>>,
    pub(crate) lanes: crate::lanes::Lanes,
    /// What is known of what is set of queues.
    pub(crate) queues: Arc<crate::queues::book::Known>,
    pub(crate) backlogs: Arc<crate::backlog::Backlogs>,
    /// Where the inbox of events begins.
    pub(crate) inbox: Arc<crate::events::Inbox>,
    /// What this process has yet to tell the others.
    pub(crate) news: Arc<crate::news::News>,
    /// Rung when this process has left events in the inbox.
    pub(crate) events_waiting: Arc<Notify>,
    /// It is known that tasks may have callbacks.
    pub(crate) expects_callbacks: Arc<AtomicBool>,
    /// What the tokens of attempts are made with, once somebody has asked.
    pub(crate) attempt_secret: Arc<OnceCell<String>>,
}

impl Store {
    /// A store that connects when it is used first, and again whenever a connection was lost.
    pub fn new(options: PgConnectOptions, args: &DatabaseArgs) -> Self {
        Self {
            pool: pool(options, args, Role::Primary),
            replica: None,
            lanes: crate::lanes::Lanes::default(),
            queues: Arc::default(),
            backlogs: Arc::default(),
            inbox: Arc::default(),
            news: Arc::default(),
            events_waiting: Arc::default(),
            expects_callbacks: Arc::default(),
            attempt_secret: Arc::default(),
        }
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
        let applied: sqlx::Result<Option<i64>> =
            sqlx::query_scalar("select max(version) from _sqlx_migrations where success")
                .fetch_one(&mut *connection)
                .await;
        let applied = connection.answered(applied)?;
        match applied >= MIGRATIONS.iter().map(|(version, ..)| *version).max() {
            true => Ok(()),
            false => Err(StoreError::NotMigrated),
        }
    }

    /// See [`Pool::begin`].
    pub(crate) async fn begin(&self) -> Result<Transaction, StoreError> {
        Ok(self.pool.begin(self.news.clone()).await?)
    }

    /// Whether each connection has a session of the server to itself, as prepared statements, notifications and settings need. A pooler
    /// that hands sessions out by the transaction gives the one that was used last to whoever asks next: two that ask in turn get
    /// the same one, unless others take it from them each time.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn keeps_sessions(&self) -> Result<bool, StoreError> {
        let mut one = self.pool.acquire().await?;
        // All others may be taken for long, where there are few.
        let Ok(mut other) = self.pool.acquire().await else { return Ok(true) };
        let (of_one, of_other) = (session(&mut one).await?, session(&mut other).await?);
        for _ in 0..SESSION_CHECKS {
            if of_one == of_other || session(&mut one).await? != of_one || session(&mut other).await? != of_other {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Brings the schema up to date. Harmless when it is, and when several do it at once.
    ///
    /// # Errors
    /// When the database cannot be reached, or a migration fails (which then changed nothing).
    pub async fn migrate(&self) -> Result<(), sqlx::migrate::MigrateError> {
        let (pool, _place) = self.pool.below().await?;
        migrator().run(pool).await
    }

    /// Closes all connections, once they are given back; what takes longer than a few seconds is left to itself.
    pub async fn close(&self) {
        let replica = async {
            if let Some(replica) = &self.replica {
                replica.pool.close().await;
            }
        };
        let closing = futures::future::join(self.pool.close(), replica);
        if tokio::time::timeout(CLOSED_WITHIN, closing).await.is_err() {
            tracing::warn!("connections to the database are still in use");
        }
    }
}

/// The migrations, built into the program: number, name and text of each.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "tasks", include_str!("../../migrations/0001_tasks.sql")),
    (2, "fleet", include_str!("../../migrations/0002_fleet.sql")),
    (3, "events", include_str!("../../migrations/0003_events.sql")),
    (4, "idempotency", include_str!("../../migrations/0004_idempotency.sql")),
    (5, "lighter", include_str!("../../migrations/0005_lighter.sql")),
    (6, "statistics", include_str!("../../migrations/0006_statistics.sql")),
    (7, "keys", include_str!("../../migrations/0007_keys.sql")),
    (8, "quotas", include_str!("../../migrations/0008_quotas.sql")),
    (9, "schedules", include_str!("../../migrations/0009_schedules.sql")),
    (10, "webhooks", include_str!("../../migrations/0010_webhooks.sql")),
    (11, "queues", include_str!("../../migrations/0011_queues.sql")),
    (12, "hooks", include_str!("../../migrations/0012_hooks.sql")),
    (13, "http_tasks", include_str!("../../migrations/0013_http_tasks.sql")),
    (14, "workers", include_str!("../../migrations/0014_workers.sql")),
    (15, "event_numbers", include_str!("../../migrations/0015_event_numbers.sql")),
    (16, "due_index", include_str!("../../migrations/0016_due_index.sql")),
    (17, "planned_once", include_str!("../../migrations/0017_planned_once.sql")),
    (18, "history_statistics", include_str!("../../migrations/0018_history_statistics.sql")),
    (19, "told_afterwards", include_str!("../../migrations/0019_told_afterwards.sql")),
    (20, "lz4", include_str!("../../migrations/0020_lz4.sql")),
    (21, "room_for_claims", include_str!("../../migrations/0021_room_for_claims.sql")),
];

fn migrator() -> Migrator {
    let migration = |(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(*version, (*name).into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(MIGRATIONS.iter().map(migration).collect())
}

/// Which server a pool leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    Replica,
}

/// Connections to a server in this role, made when they are used first.
pub(crate) fn pool(options: PgConnectOptions, args: &DatabaseArgs, role: Role) -> Pool {
    let port = options.get_port();
    let pool = PgPoolOptions::new()
        .max_connections(args.database_pool_max)
        .idle_timeout(Duration::from_secs(args.database_idle_seconds))
        .acquire_timeout(Duration::from_secs(args.database_connect_seconds))
        // To the primary only a connection that can write is used. While a failover is under way, whoever stands before the database
        // may lead a new one to a server that is the primary no more, and on a busy pool it would never be idle. An idle one
        // may lead to a server that has changed behind a pooler. Those used within the last second are taken without asking.
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            crate::silence::bound(port);
            Box::pin(async move {
                sqlx::raw_sql(SETTINGS).execute(&mut *connection).await?;
                match suits(connection, role).await? {
                    true => Ok(()),
                    false => Err(sqlx::Error::Protocol("the server is read-only".into())),
                }
            })
        })
        .before_acquire(move |connection, meta| {
            Box::pin(async move {
                if meta.idle_for < TRUSTED {
                    return Ok(true);
                }
                suits(connection, role).await
            })
        })
        // PgBouncer refuses start-up parameters that it does not know. Since PostgreSQL 12 floats are exact without this one.
        .connect_lazy_with(options.application_name("taskmaster").extra_float_digits(None));
    Pool::new(pool, role)
}

/// What every connection is set to once it is made: as start-up parameters these would not pass PgBouncer.
const SETTINGS: &str = "
-- The slowest statements in normal use take milliseconds.
set statement_timeout = '30s';
-- A transaction that is left open does not hold back the removal of dead rows for longer.
set idle_in_transaction_session_timeout = '10s';
-- A process that is cut off gives up its connections without the server's hearing of it: the server lets them go, too, before they
-- are too many. Not used on Unix sockets.
set tcp_keepalives_idle = 10;
set tcp_keepalives_interval = 5;
set tcp_keepalives_count = 2;
set tcp_user_timeout = '20s';
-- Plans are pinned to what the statements were written for: small sets of keys, joined through indexes.
set enable_seqscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
-- What is due is read in the order of its index, as far as it is asked for: where a plan takes the table for empty, a bitmap of all that
-- waits, sorted, looks no dearer. The index of claims by their lanes can be read no other way, and still is.
set enable_bitmapscan = off;
-- There is one good plan for each, whatever its parameters: PostgreSQL made some of them anew for every call.
set plan_cache_mode = force_generic_plan;
set jit = off;
set timezone = 'UTC'";

/// How often two connections look whether their sessions are still their own. What else a process asks at its start comes between a
/// few of these, never all.
const SESSION_CHECKS: u32 = 50;

/// A session's number, asked for without preparing a statement, which might be there already.
async fn session(connection: &mut sqlx::PgConnection) -> sqlx::Result<i32> {
    sqlx::raw_sql("select pg_backend_pid()").fetch_one(connection).await?.try_get(0)
}

pub(crate) async fn suits(connection: &mut sqlx::PgConnection, role: Role) -> sqlx::Result<bool> {
    // Any server that answers may be a replica: how current it is, each read asks by itself.
    Ok(writable(connection).await? || role == Role::Replica)
}

async fn writable(connection: &mut sqlx::PgConnection) -> sqlx::Result<bool> {
    let row = sqlx::raw_sql("select pg_is_in_recovery()").fetch_one(connection).await?;
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
