//! Databases: one for each test in a shared cluster, and clusters that a test may stop.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, Connection, PgConnection};
use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_store::{DatabaseArgs, Store};
use tokio::sync::OnceCell;

use super::in_background;
use super::process::{PATIENCE, is_alive};
use super::up::Scratch;

/// The cluster of this test program. It ends with the program: the kernel tells it.
pub async fn shared_cluster() -> &'static PrivatePostgres {
    static SHARED: OnceCell<PrivatePostgres> = OnceCell::const_new();
    let start = async || {
        let started = async {
            let server = PrivatePostgres::start(&Options::ephemeral()).await.expect("a private PostgreSQL");
            // The thread that holds it must not be waited for; the server stays for as long as this process.
            let store = Store::new(server.connect_options().database("template1"), &DatabaseArgs::default());
            store.migrate().await.expect("the schema");
            store.close().await;
            server
        };
        in_background(started).await
    };
    SHARED.get_or_init(start).await
}

/// A database of its own, with or without the schema.
#[derive(Debug, Clone)]
pub struct Database {
    pub url: String,
}

impl Database {
    /// One with the schema.
    pub async fn new() -> Self {
        Self::made_from("template1").await
    }

    /// One with nothing in it.
    pub async fn empty() -> Self {
        Self::made_from("template0").await
    }

    async fn made_from(template: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        // Only one may copy a template at a time.
        static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
        let cluster = shared_cluster().await;
        let name = format!("t_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let _turn = TURN.lock().await;
        let mut connection = cluster.connect_options().connect().await.expect("the shared cluster");
        let statement = format!("create database {name} template {template}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.expect("a database");
        connection.close().await.expect("closed");
        let url = cluster.url();
        let (server, _) = url.rsplit_once('/').expect("a URL with a database");
        Self { url: format!("{server}/{name}") }
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.expect("the database")
    }

    /// The first column of the first row, as a number: for what the API does not tell.
    pub async fn number(&self, query: &'static str) -> i64 {
        let mut connection = self.connect().await;
        let number = sqlx::query_scalar(query).fetch_one(&mut connection).await.expect(query);
        connection.close().await.expect("closed");
        number
    }
}

/// A cluster of its own, which the test may stop and start again at the same address.
pub struct Cluster {
    directory: PathBuf,
    server: Option<PrivatePostgres>,
    /// Its directory, unless that is somebody else's.
    _scratch: Option<Scratch>,
}

impl Cluster {
    pub async fn start() -> Self {
        let scratch = Scratch::new();
        Self::start_in(scratch.data_dir(), Some(scratch)).await
    }

    /// Keeps its data there; in a directory of its own, which goes with it, or in somebody else's.
    pub async fn start_in(directory: PathBuf, scratch: Option<Scratch>) -> Self {
        let mut cluster = Self { directory, server: None, _scratch: scratch };
        cluster.start_again().await;
        cluster
    }

    fn options(&self) -> Options {
        Options::new(&self.directory)
    }

    pub async fn start_again(&mut self) {
        let options = self.options();
        let started = in_background(async move { PrivatePostgres::start(&options).await });
        self.server = Some(started.await.expect("a private PostgreSQL"));
    }

    pub async fn stop(&mut self) {
        let server = self.server.take().expect("it runs");
        in_background(server.stop()).await;
    }

    /// Kills the server and every process of it, and waits until they are gone.
    pub fn kill9(&mut self) {
        let Some(server) = self.server.take() else { return };
        let pids = signal(&server, libc::SIGKILL);
        let began = Instant::now();
        while pids.iter().any(|pid| is_alive(*pid)) && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops every process of the server where it is.
    pub fn pause(&self) {
        signal(self.server(), libc::SIGSTOP);
    }

    pub fn resume(&self) {
        signal(self.server(), libc::SIGCONT);
    }

    pub fn server(&self) -> &PrivatePostgres {
        self.server.as_ref().expect("it runs")
    }

    /// Its database, without the schema at first.
    pub fn database(&self) -> Database {
        Database { url: self.server().url() }
    }
}

impl Drop for Cluster {
    /// Nothing writes to the directory any more when it is removed.
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Sends a signal to the server and every process of it, and gives them back.
fn signal(server: &PrivatePostgres, signal: i32) -> Vec<i32> {
    let pids: Vec<i32> = std::iter::once(server.pid()).chain(children_of(server.pid())).collect();
    for pid in &pids {
        // One that has ended meanwhile is no error.
        // SAFETY: a system call on plain numbers.
        unsafe { libc::kill(*pid, signal) };
    }
    pids
}

/// The processes that a process has started.
fn children_of(pid: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1)?.parse::<i32>().ok())
    };
    pids.filter(|child| parent(*child) == Some(pid)).collect()
}
