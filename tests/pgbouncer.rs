//! An installation behind PgBouncer in session mode: nothing is lost by it, neither notifications nor the settings of connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::json;
use sqlx::postgres::PgConnectOptions;
use taskmaster_openapi::task::{Task, TaskStatus};
use taskmaster_store::{DatabaseArgs, Store};

#[path = "system/support/mod.rs"]
mod support;

use support::{Database, Process, Scratch, System, until};

/// What is not said at once is not heard before the next poll, in so many seconds: no test waits as long.
const POLL_SECONDS: &str = "600";

/// PgBouncer before a database, with nothing set but where things are. It ends when this is dropped.
struct PgBouncer {
    url: String,
    _process: Process,
    _scratch: Scratch,
}

impl PgBouncer {
    async fn before(database: &Database, mode: &str) -> Self {
        let scratch = Scratch::new();
        let server: PgConnectOptions = database.url.parse().expect("a URL");
        let (rest, at) = database.url.split_once('@').expect("a URL with a password");
        let (_, password) = rest.rsplit_once(':').expect("a URL with a password");
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let users = scratch.path().join("users.txt");
        std::fs::write(&users, format!("\"{}\" \"{password}\"\n", server.get_username())).expect("written");
        let file = scratch.path().join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = 40\n",
            server.get_port(),
            users.display(),
        );
        std::fs::write(&file, settings).expect("written");
        let mut command = Command::new("/usr/sbin/pgbouncer");
        // SAFETY: a system call that only reads a number.
        if unsafe { libc::geteuid() } == 0 {
            command.args(["-u", "postgres"]);
        }
        command.arg(&file);
        let process = Process::spawn_command("pgbouncer", command);
        let url = format!("{rest}@127.0.0.1:{port}/{}", at.split_once('/').expect("a database").1);
        until("PgBouncer listens", async || TcpStream::connect(("127.0.0.1", port)).ok().map(drop)).await;
        Self { url, _process: process, _scratch: scratch }
    }

    fn database(&self) -> Database {
        Database { url: self.url.clone() }
    }
}

/// Notes with what settings statements run that create and claim tasks.
const NOTE_SETTINGS: &str = "
create table noted (at text, settings text);
create function note() returns trigger language plpgsql as $$ begin
    insert into noted select tg_table_name, string_agg(name || ' ' || current_setting(name), ', ' order by name)
      from unnest(array['statement_timeout', 'idle_in_transaction_session_timeout', 'enable_seqscan', 'enable_bitmapscan', 'enable_hashjoin',
                        'enable_mergejoin', 'jit', 'TimeZone']) as name;
    return null;
end $$;
create trigger note after insert on tasks for each statement execute function note();
create trigger note after insert on claims for each statement execute function note();";

const SETTINGS: &str = "TimeZone UTC, enable_bitmapscan off, enable_hashjoin off, enable_mergejoin off, enable_seqscan off, \
    idle_in_transaction_session_timeout 10s, jit off, statement_timeout 30s";

#[tokio::test]
#[ignore = "needs pgbouncer"]
async fn behind_pgbouncer_in_session_mode_tasks_run_at_once_and_every_connection_has_its_settings() {
    let database = Database::empty().await;
    let pgbouncer = PgBouncer::before(&database, "session").await;
    let store = Store::new(pgbouncer.url.parse().unwrap(), &DatabaseArgs::default());
    store.migrate().await.unwrap();
    store.close().await;
    let mut direct = database.connect().await;
    sqlx::raw_sql(NOTE_SETTINGS).execute(&mut direct).await.unwrap();
    let system = System::builder().database(pgbouncer.database()).coordinator_args(&["--poll-seconds", POLL_SECONDS]);
    let system = system.gateways(2).coordinators(2).workers(2).start().await;

    // Without notifications it would take until the next poll.
    let runs = (0..20).map(|_| system.api.run(json!({"command": "true"})));
    assert!(futures::future::join_all(runs).await.iter().all(|task| task.status == TaskStatus::Complete));
    let hangs = system.api.create(json!({"command": "sleep 600"})).await;
    system.api.wait_until(hangs.id, TaskStatus::Started).await;
    system.api.cancel(hangs.id).await;
    assert_eq!(system.api.ended(hangs.id).await.status, TaskStatus::Cancelled);

    // Every connection breaks; those that follow are as good.
    let broken = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'taskmaster' and datname = current_database()";
    sqlx::query(broken).execute(&mut direct).await.unwrap();
    assert_eq!(run_patiently(&system).await, TaskStatus::Complete);

    let noted: Vec<(String, String)> =
        sqlx::query_as("select distinct at, settings from noted order by at").fetch_all(&mut direct).await.unwrap();
    assert_eq!(noted, [("claims".into(), SETTINGS.into()), ("tasks".into(), SETTINGS.into())]);
}

#[tokio::test]
#[ignore = "needs pgbouncer"]
async fn behind_pgbouncer_in_transaction_mode_nothing_is_ready_and_it_says_why() {
    let database = Database::new().await;
    let pgbouncer = PgBouncer::before(&database, "transaction").await;
    let environment = [("DATABASE_URL", pgbouncer.url.as_str())];
    let mut gateway = Process::spawn("gateway", &["gateway", "--listen", "127.0.0.1:0"], &environment);
    let told = gateway.logged("waiting for the database; trying again every 5 s").await;
    assert!(told["error"].as_str().unwrap().contains("pool_mode = session"), "{told}");
}

/// How a task ends that is created as soon as one is accepted.
async fn run_patiently(system: &System) -> TaskStatus {
    let create = async || {
        let reply = system.api.post("/v1/tasks", &json!({"command": "true"})).await;
        (reply.status == 201).then(|| reply.expect::<Task>(201).id)
    };
    let id = until("a task is accepted", create).await;
    until("it can be asked for", async || (system.api.fetch("/v1/stats").await.status == 200).then_some(())).await;
    system.api.ended(id).await.status
}
