//! The private PostgreSQL of `taskmaster up`: found on this machine or fetched, set up, started, and stopped again.
//!
//! Everything is in TaskMaster's data directory:
//!
//! ```text
//! <data_dir>/postgres.lock          locked while a process uses the directory; holds its process id
//! <data_dir>/postgres.log           the server's messages, at most 10 MB, and as much in postgres.log.old
//! <data_dir>/postgres/              what the server touches
//!     data/                         the database (PGDATA)
//!     data.new-…/                   a database being made, moved to `data` when whole
//!     socket/                       the Unix socket; in /tmp where this path would be too long for one
//!     port                          the port on 127.0.0.1, the same on every start as long as it is free
//!     password, pgpass              the superuser's password, as it is and as `PGPASSFILE` wants it
//! ```
//!
//! PostgreSQL refuses to run as root. Started by root, the server runs as the owner of the existing database, otherwise
//! as `postgres`, otherwise as `nobody`. Where that user cannot enter the data directory (it is in `/root`, say),
//! `<data_dir>/postgres` is a link to a directory in `/var/lib/taskmaster`.
//!
//! However this process ends, the server follows: on Linux the kernel tells it to shut down, and the next start stops
//! one that is left.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use sqlx::postgres::PgConnectOptions;

mod cluster;
mod error;
mod fetch;
mod home;
mod leftover;
mod locate;
mod log;
mod program;
mod server;
mod settings;
mod user;

pub use error::PostgresError;
pub use fetch::Fetch;

use cluster::Access;
use home::Home;
use locate::Programs;
use server::Server;
use user::ServerUser;

/// Where a private PostgreSQL lives and where its programs may come from.
#[derive(Debug, Clone)]
pub struct Options {
    /// TaskMaster's data directory; not used by an ephemeral one.
    pub data_dir: PathBuf,
    /// Whether the database is a new one in a temporary directory, gone when stopped.
    pub ephemeral: bool,
    /// Directories to look for `postgres` and `initdb` in; none for the PATH and the usual places.
    pub search: Option<Vec<PathBuf>>,
    /// How to fetch PostgreSQL when there is none; none to do without.
    pub fetch: Option<Fetch>,
}

impl Options {
    /// A database that is kept in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into(), ephemeral: false, search: None, fetch: Some(Fetch::default()) }
    }

    /// A database that is gone when stopped.
    pub fn ephemeral() -> Self {
        Self { ephemeral: true, ..Self::new("") }
    }
}

/// A running PostgreSQL that belongs to this process. [`stop`](Self::stop) it for an orderly end; when dropped it is told
/// to stop, and not waited for.
#[derive(Debug)]
pub struct PrivatePostgres {
    // Dropped in this order: the server is told to stop before its home is let go.
    server: Server,
    access: Access,
    programs: Programs,
    _log: log::Bounded,
    home: Arc<Home>,
}

impl PrivatePostgres {
    /// Starts the server, making the database and fetching PostgreSQL if need be. When this returns, connections are
    /// accepted.
    pub async fn start(options: &Options) -> Result<Self, PostgresError> {
        let began = Instant::now();
        let home = match options.ephemeral {
            true => Home::claim_ephemeral().await?,
            false => Home::claim(&options.data_dir).await?,
        };
        let home = Arc::new(home);
        let programs = programs(options, cluster::major(&home)?, home.user).await?;
        let stale_pid = leftover::stop(&home.data()).await?;
        let password = cluster::open_or_make(&home, &programs).await?;
        let (server, port) = Server::launch(&home, &programs, stale_pid).await?;
        let access = Access { socket_dir: home.socket_dir.clone(), port, password };
        access.ensure_database().await?;
        let passfile_line = format!("*:*:*:{}:{}\n", cluster::NAME, access.password);
        home::write_private(&home.passfile(), &passfile_line)?;
        tracing::info!(
            version = format!("{}.{}", programs.version.0, programs.version.1),
            data = %home.data().display(), port, pid = server.pid(), elapsed_ms = began.elapsed().as_millis() as u64,
            "PostgreSQL is ready"
        );
        let log = log::Bounded::new(home.log());
        Ok(Self { server, access, programs, _log: log, home })
    }

    /// How to connect, through the Unix socket.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.access.connect_options(cluster::NAME)
    }

    /// For other programs on this machine, through TCP on 127.0.0.1. It contains the password.
    pub fn url(&self) -> String {
        let name = cluster::NAME;
        format!("postgres://{name}:{}@127.0.0.1:{}/{name}", self.access.password, self.access.port)
    }

    /// A shell command that opens the database in `psql`. It names the file that has the password.
    pub fn psql(&self) -> String {
        let passfile = self.home.passfile().to_string_lossy().replace('\'', r"'\''");
        let name = cluster::NAME;
        format!("PGPASSFILE='{passfile}' psql -h 127.0.0.1 -p {} -U {name} {name}", self.access.port)
    }

    /// The data directory, with links resolved.
    pub fn directory(&self) -> &Path {
        &self.home.directory
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.access.port
    }

    /// The server's process id.
    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    /// The server's version: 17 and 5 for 17.5.
    pub fn version(&self) -> (u32, u32) {
        self.programs.version
    }

    /// Where the server's programs are, `pg_dump` and the like included, as a rule.
    pub fn bin(&self) -> &Path {
        &self.programs.bin
    }

    /// Waits for the server's end, which nobody expects before [`stop`](Self::stop), and says how it was.
    pub fn ended(&self) -> impl Future<Output = String> + Send + 'static + use<> {
        self.server.ended()
    }

    /// Ends all connections and stops the server: at once if it can, in any case within 40 seconds. What was committed
    /// is on disk either way. An ephemeral database is gone when this returns.
    pub async fn stop(mut self) {
        self.server.stop().await;
    }
}

/// The programs for a database of the major version `wanted`, or for a new one.
async fn programs(options: &Options, wanted: Option<u32>, user: Option<ServerUser>) -> Result<Programs, PostgresError> {
    let mut directories = options.search.clone().unwrap_or_else(locate::usual_directories);
    directories.extend(options.fetch.iter().flat_map(Fetch::cached_directories));
    if let Some(programs) = locate::newest(&directories, wanted, user).await {
        return Ok(programs);
    }
    let fetched = match &options.fetch {
        Some(fetch) => fetch.programs(wanted).await,
        None => Err("fetching is switched off".to_owned()),
    };
    let usable = fetched.and_then(|programs| match user {
        Some(user) if !user.can_enter(&programs.bin) => {
            Err(format!("the server's user cannot enter {}", programs.bin.display()))
        }
        _ => Ok(programs),
    });
    usable.map_err(|reason| PostgresError::NoPrograms {
        wanted: wanted.map_or_else(
            || format!("PostgreSQL {} or newer", locate::OLDEST_MAJOR),
            |major| format!("PostgreSQL {major}, which made this database,"),
        ),
        reason,
        hint: fetch::install_hint(wanted),
    })
}
