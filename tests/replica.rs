//! Reads from a standby server: a real primary, one that follows it, and the real program before them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use reqwest::Method;
use serde_json::json;
use taskmaster_openapi::gateway::{Stats, TaskList};
use taskmaster_openapi::task::{Task, TaskStatus};
use taskmaster_store::{DatabaseArgs, Store};
use uuid::Uuid;

#[path = "system/support/mod.rs"]
mod support;

use support::{Api, Cluster, Database, Process, Scratch, System, signal, until};

/// A server that follows another. It ends when this is dropped.
struct Standby {
    directory: PathBuf,
    programs: PathBuf,
    port: u16,
    database: Database,
    process: Option<Process>,
    _scratch: Scratch,
}

impl Standby {
    async fn of(primary: &Cluster) -> Self {
        let scratch = Scratch::new();
        let directory = scratch.path().join("standby");
        let programs = primary.server().bin().to_owned();
        let url = primary.server().url();
        let mut copy = Command::new(programs.join("pg_basebackup"));
        copy.args(["--checkpoint=fast", "--write-recovery-conf", "--dbname", &url, "--pgdata"]).arg(&directory);
        assert!(copy.status().expect("pg_basebackup runs").success());
        let owner = std::fs::metadata(primary.server().directory().join("postgres/data")).expect("the primary's data");
        give(&directory, owner.uid(), owner.gid());
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let url = url.replace(&format!(":{}/", primary.server().port()), &format!(":{port}/"));
        let mut standby =
            Self { directory, programs, port, database: Database { url }, process: None, _scratch: scratch };
        standby.start().await;
        standby
    }

    /// Starts it, and waits until it can be asked. What a killed one has left may stand in the way for a moment.
    async fn start(&mut self) {
        let url = self.database.url.clone();
        until("the standby answers", async || {
            if self.process.as_mut().is_none_or(Process::has_ended) {
                self.process = Some(Process::spawn_command("standby", self.command()));
            }
            <sqlx::PgConnection as sqlx::Connection>::connect(&url).await.ok().map(drop)
        })
        .await;
    }

    fn command(&self) -> Command {
        let owner = std::fs::metadata(&self.directory).expect("its data");
        let mut command = Command::new(self.programs.join("postgres"));
        command.arg("-D").arg(&self.directory).arg("-p").arg(self.port.to_string());
        command.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        // SAFETY: a system call that only reads a number.
        if unsafe { libc::geteuid() } == 0 {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command
    }

    async fn pause_replay(&self) {
        self.run("select pg_wal_replay_pause()").await;
        let paused = "select (pg_get_wal_replay_pause_state() = 'paused')::integer::bigint";
        until("replay is paused", async || (self.database.number(paused).await == 1).then_some(())).await;
    }

    async fn resume_replay(&self) {
        self.run("select pg_wal_replay_resume()").await;
    }

    async fn run(&self, statement: &'static str) {
        sqlx::query(statement).execute(&mut self.database.connect().await).await.expect(statement);
    }

    /// Its processes: the first one, and those that answer.
    async fn pids(&self) -> Vec<i32> {
        let mut connection = self.database.connect().await;
        let own: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut connection).await.unwrap();
        let others = sqlx::query_scalar("select pid from pg_stat_activity").fetch_all(&mut connection).await.unwrap();
        let first = self.process.as_ref().map(Process::pid);
        first.into_iter().chain(others.into_iter().filter(|pid| *pid != own)).collect()
    }

    fn kill9(&mut self) {
        self.process.as_mut().expect("it runs").kill9();
    }
}

fn give(path: &Path, uid: u32, gid: u32) {
    chown(path, Some(uid), Some(gid)).expect("given");
    if path.is_dir() {
        for entry in path.read_dir().expect("read").flatten() {
            // A link leads elsewhere.
            if !entry.file_type().expect("a type").is_symlink() {
                give(&entry.path(), uid, gid);
            }
        }
    }
}

/// A primary and a standby, and an installation that reads from both.
struct Pair {
    system: System,
    standby: Standby,
    _primary: Cluster,
}

impl Pair {
    async fn start(lag_seconds: &str, parts: usize) -> Self {
        let primary = Cluster::start().await;
        let store = Store::new(primary.server().connect_options(), &DatabaseArgs::default());
        store.migrate().await.expect("the schema");
        store.close().await;
        let standby = Standby::of(&primary).await;
        let read = ["--database-read-url", &standby.database.url, "--database-read-lag-seconds", lag_seconds];
        let system = System::builder().database(primary.database()).gateway_args(&read);
        let system = system.coordinators(parts).workers(parts).start().await;
        Self { system, standby, _primary: primary }
    }

    fn api(&self) -> &Api {
        &self.system.api
    }

    async fn list(&self) -> (Option<u64>, TaskList) {
        let reply = self.api().fetch("/v1/tasks").await;
        (reply.header("age").map(|age| age.parse().unwrap()), reply.expect(200))
    }

    /// Waits until lists come from the replica, and hold the task as it is there.
    async fn replica_has(&self, id: Uuid, status: TaskStatus) {
        let there = async || {
            let (age, list) = self.list().await;
            (age.is_some() && list.tasks.iter().any(|task| task.id == id && task.status == status)).then_some(())
        };
        until("the replica answers, and has the task", there).await;
    }
}

/// A task that is not due while the test lasts.
fn later() -> serde_json::Value {
    json!({"command": "true", "delay_seconds": 86_400})
}

#[tokio::test]
async fn lists_and_figures_come_from_the_replica_and_what_users_have_done_is_never_missing_from_a_task() {
    let pair = Pair::start("300", 1).await;
    let api = pair.api();
    let done = api.run(json!({"command": "true"})).await;
    pair.replica_has(done.id, TaskStatus::Complete).await;
    pair.standby.pause_replay().await;

    // What decides, and one task, is asked of the primary.
    let headers = [("idempotency-key", "one")];
    let create = async || api.send(Method::POST, "/v1/tasks", Some(&later()), &headers).await.expect::<Task>(201);
    let new = create().await;
    assert_eq!(create().await.id, new.id);
    assert_eq!(api.get(new.id).await.status, TaskStatus::Queued);
    assert!(api.attempts(new.id).await.is_empty());
    let path = format!("/v1/tasks/{}", new.id);
    let before = api.fetch(&path).await;
    assert_eq!(api.cancel(new.id).await.1.status, TaskStatus::Cancelled);
    let changed = api.send(Method::GET, &path, None, &[("if-none-match", before.header("etag").unwrap())]).await;
    assert_eq!(changed.expect::<Task>(200).status, TaskStatus::Cancelled);
    let retried: Task = api.send(Method::POST, &format!("{path}/retry"), None, &[]).await.expect(200);
    assert_eq!(retried.status, TaskStatus::Queued);
    assert_ne!(api.get(new.id).await.status, TaskStatus::Cancelled);
    assert_eq!(api.ended(new.id).await.status, TaskStatus::Complete);
    assert_eq!(api.run(json!({"command": "true"})).await.status, TaskStatus::Complete);

    // Lists and figures are those of the moment when the replica stopped, and say so.
    let (age, list) = pair.list().await;
    assert!(age.is_some() && list.tasks.iter().map(|task| task.id).eq([done.id]), "{age:?} {list:?}");
    let stats = api.fetch("/v1/stats").await;
    assert!(stats.header("age").is_some() && stats.expect::<Stats>(200).tasks.complete <= 1, "{stats:?}");
    let workers = api.fetch("/v1/workers").await;
    assert!(workers.header("age").is_some() && workers.json()["workers"].as_array().unwrap().len() == 1, "{workers:?}");

    // A task that is COMPLETE needs no primary.
    pair.system.database.number("with gone as (delete from task_history returning 1) select count(*) from gone").await;
    assert_eq!(api.get(done.id).await, done);
    assert_eq!(api.attempts(done.id).await.len(), 1);
}

#[tokio::test]
async fn a_replica_that_lags_is_left_for_the_primary_and_used_again_once_it_has_caught_up() {
    let pair = Pair::start("2", 0).await;
    let first = pair.api().create(later()).await;
    pair.replica_has(first.id, TaskStatus::Queued).await;
    // Nothing happens, and the replica is no older for that.
    let idle = "select floor(extract(epoch from now() - pg_last_xact_replay_timestamp()))::bigint";
    let idle = async || (pair.standby.database.number(idle).await > 3).then_some(());
    until("the last transaction is longer ago than the replica may lag", idle).await;
    pair.replica_has(first.id, TaskStatus::Queued).await;

    pair.standby.pause_replay().await;
    let second = pair.api().create(later()).await;
    let behind = async || Some(pair.list().await).filter(|(age, _)| age.is_none());
    let (_, list) = until("the primary is asked instead", behind).await;
    assert!(list.tasks.iter().any(|task| task.id == second.id));

    pair.standby.resume_replay().await;
    pair.replica_has(second.id, TaskStatus::Queued).await;
}

#[tokio::test]
async fn a_replica_that_hangs_or_dies_fails_no_request() {
    let mut pair = Pair::start("5", 1).await;
    let done = pair.api().run(json!({"command": "true"})).await;
    pair.replica_has(done.id, TaskStatus::Complete).await;
    let (rounds, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let readers: Vec<_> =
        (0..4).map(|_| tokio::spawn(read(pair.api().clone(), done.id, rounds.clone(), stop.clone()))).collect();
    let read_on = async |what: &str| {
        let enough = rounds.load(Ordering::Relaxed) + 20;
        until(what, async || (rounds.load(Ordering::Relaxed) >= enough).then_some(())).await;
    };

    let pids = pair.standby.pids().await;
    pids.iter().for_each(|pid| signal(*pid, libc::SIGSTOP));
    read_on("reads go on while the replica hangs").await;
    pids.iter().for_each(|pid| signal(*pid, libc::SIGCONT));
    pair.replica_has(done.id, TaskStatus::Complete).await;

    pair.standby.kill9();
    read_on("reads go on while the replica is dead").await;
    assert_eq!(pair.list().await.0, None);
    pair.standby.start().await;
    pair.replica_has(done.id, TaskStatus::Complete).await;

    stop.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.expect("every read was answered");
    }
}

/// Reads everything that a replica may answer, round after round; all of it must be answered with 200.
async fn read(api: Api, id: Uuid, rounds: Arc<AtomicUsize>, stop: Arc<AtomicBool>) {
    let paths = ["/v1/tasks".into(), "/v1/stats".into(), "/v1/workers".into()];
    let paths: Vec<String> =
        paths.into_iter().chain([format!("/v1/tasks/{id}"), format!("/v1/tasks/{id}/attempts")]).collect();
    while !stop.load(Ordering::Relaxed) {
        for path in &paths {
            let reply = api.fetch(path).await;
            assert_eq!(reply.status, 200, "{path}: {}", reply.text);
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}
