//! No room under the database, and room again.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sqlx::{Connection, PgConnection};
use taskmaster_openapi::{Code, Problem};

use super::checker::assert_whole;
use super::hits::{ENOUGH, Hits, Whose, volley};
use super::load::{Book, Clients, Failure, Pace, hold_back};
use super::support::{Cluster, Scratch, until};
use super::world::{END, Plan, World};

/// What takes the room.
const BALLAST: &str = "ballast";

/// A small filesystem. Unmounted when dropped.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn mount() -> Self {
        let disk = Self(Scratch::new());
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=300m,mode=755", "tmpfs"]).arg(disk.0.path()));
        disk
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that there is. What is freed meanwhile is taken when this is called again.
    fn fill(&self) {
        let ballast = OpenOptions::new().create(true).append(true).open(self.path().join(BALLAST)).expect("a file");
        let full = io::copy(&mut io::repeat(0), &mut &ballast).expect_err("no room any more");
        assert_eq!(full.kind(), io::ErrorKind::StorageFull, "{full}");
    }

    fn free(&self) {
        std::fs::remove_file(self.path().join(BALLAST)).expect("removed");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

const PACE: Pace = Pace { clients: 16, pause_ms: 50, batch_max: 30, commands: 5 };
const LIVE_MAX: i64 = 150;
const TIMES_MAX: u64 = 8;
/// More than there is room for: a segment takes 16 MB.
const SEGMENTS_MAX: usize = 20;
/// Long enough for every part to notice, and for heartbeats to fail.
const FULL_FOR: Duration = Duration::from_secs(3);

#[tokio::test]
#[ignore = "needs root: a filesystem of its own"]
async fn a_disk_that_is_full_under_the_database_costs_no_accepted_task_and_is_answered_with_503() {
    let disk = SmallDisk::mount();
    let cluster = Cluster::start_in(disk.path().join("data"), None).await;
    let worker_arguments = &["--slots", "100"];
    let plan = Plan { gateways: 2, coordinators: 2, workers: 2, worker_arguments, ..Plan::default() };
    let mut world = World::start_with(plan, Some(cluster), None).await;
    let book = world.book();
    let clients = Clients::start(&book, &world.targets, PACE, 1);
    let mut held_back = hold_back(&book, &world.database.url, LIVE_MAX);
    let mut hits = Hits::default();
    let (mut ended, mut refused) = (0, 0);
    for _ in 0..TIMES_MAX {
        volley(&book, &world.targets, &world.database.url).await;
        hits.count(&world.database.url, Whose::Everybodys).await;
        held_back.abort_all();
        refused += fill_up(&world, &disk, &book, &mut hits).await;
        disk.free();
        held_back = hold_back(&book, &world.database.url, LIVE_MAX);
        let before = book.accepted();
        until("tasks are accepted again", async || {
            if !world.database_runs() {
                ended += 1;
                world.kill_database();
                world.start_database().await;
            }
            (book.accepted() >= before + 100).then_some(())
        })
        .await;
        // Lets go of the log so far, which would fill the disk by itself.
        tell(&world, "checkpoint").await;
        if is_enough(&hits) {
            break;
        }
    }
    eprintln!("    full disk: {hits}; {refused} creates were answered with 503; PostgreSQL ended {ended} times");
    let mut history = clients.stop().await;
    assert!(world.parts().all(|part| !part.ended_by_itself()), "a process of ours has ended");
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert!(is_enough(&hits), "{hits}");
}

fn is_enough(hits: &Hits) -> bool {
    [hits.creating, hits.waiting, hits.picked, hits.started].into_iter().all(|count| count >= ENOUGH)
}

/// Has the database do this, if it can. Whether it could.
async fn tell(world: &World, statements: &'static str) -> bool {
    let Ok(mut connection) = PgConnection::connect(&world.database.url).await else { return false };
    sqlx::raw_sql(statements).execute(&mut connection).await.is_ok()
}

/// Fills the disk until creates fail and the log cannot be written, and for a while longer. Gives back how many failed.
async fn fill_up(world: &World, disk: &SmallDisk, book: &Book, hits: &mut Hits) -> usize {
    let before = book.failures().len();
    book.full.store(false, Ordering::Relaxed);
    let mut full = async || {
        disk.fill();
        (book.failures().len() > before).then_some(())
    };
    full().await;
    // The segments of the write-ahead log that are there already are used up; for one more there is no room.
    let mut segments = 0;
    while tell(world, "select pg_logical_emit_message(true, '', ''); select pg_switch_wal()").await {
        segments += 1;
        assert!(segments <= SEGMENTS_MAX, "the write-ahead log is never out of room");
    }
    until("a create fails", &mut full).await;
    for gateway in 0..world.gateways.len() {
        hits.count_creating(book, gateway);
    }
    let _ = tokio::time::timeout(FULL_FOR, async {
        loop {
            full().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    let failures = book.failures().split_off(before);
    failures.iter().for_each(assert_proper);
    failures.len()
}

/// A problem document that says to try again, and nothing of the database's insides.
fn assert_proper(failure: &Failure) {
    assert_eq!(failure.status, 503, "{failure:?}");
    assert_eq!(failure.content_type, "application/problem+json", "{failure:?}");
    let problem: Problem = serde_json::from_str(&failure.text).unwrap_or_else(|error| panic!("{error}: {failure:?}"));
    assert_eq!(problem.code, Code::DatabaseUnavailable, "{failure:?}");
    for inside in ["pg_wal", "No space", "space left", "could not", "SQL", "53100", "PANIC", "base/"] {
        // A request's id is made by chance, and may have such digits in it.
        let said = failure.text.replace(problem.request_id.as_deref().unwrap_or("no id"), "");
        assert!(!said.contains(inside), "{failure:?}");
    }
}
