//! Wall clocks that jump, of coordinators and workers, while they run.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::PathBuf;

use chrono::{DateTime, TimeDelta, Utc};
use taskmaster_openapi::task::TaskStatus;

use super::checker::assert_whole;
use super::history::{Row, Spec, Stamp};
use super::hits::{ENOUGH, Hits, Whose, volley};
use super::load::{Book, Clients, Pace, hold_back};
use super::support::{Scratch, until};
use super::target::Deed;
use super::world::{END, Part, Plan, World};

/// The wall clocks of processes, each told by a file (Debian's `libfaketime`).
pub struct Clocks {
    library: PathBuf,
    scratch: Scratch,
}

impl Clocks {
    pub fn new() -> Self {
        let systems = std::fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
        let mut libraries = systems.map(|system| system.path().join("faketime/libfaketime.so.1"));
        let library = libraries.find(|library| library.exists()).expect("Debian's libfaketime");
        Self { library, scratch: Scratch::new() }
    }

    /// What makes a process at this place go by a clock of its own, which is true at first.
    pub fn environment(&self, place: IpAddr) -> Vec<(&'static str, String)> {
        self.set(place, 0);
        let file = self.scratch.path().join(place.to_string()).display().to_string();
        let on = |name| (name, "1".to_owned());
        let told = [("LD_PRELOAD", self.library.display().to_string()), ("FAKETIME_TIMESTAMP_FILE", file)];
        // The monotonic clock goes on as it does: only the wall clock of a machine is ever set.
        let how = [on("FAKETIME_NO_CACHE"), on("FAKETIME_DONT_FAKE_MONOTONIC"), on("NO_FAKE_STAT")];
        told.into_iter().chain(how).collect()
    }

    /// Sets the clock, by so many seconds from the true time.
    pub fn set(&self, place: IpAddr, seconds: i64) {
        let file = self.scratch.path().join(place.to_string());
        let partial = file.with_extension("new");
        std::fs::write(&partial, format!("{seconds:+}\n")).expect("written");
        std::fs::rename(&partial, &file).expect("in place");
    }
}

const HOUR: i64 = 3_600;
/// Ahead, two hours back, and right again.
const JUMPS: [i64; 3] = [HOUR, -HOUR, 0];
const ROUNDS_MAX: u64 = 8;
const PACE: Pace = Pace { clients: 4, pause_ms: 100, batch_max: 30, commands: 5 };
const LIVE_MAX: i64 = 100;
/// A task that nothing stands before begins so soon after its time, on a busy machine.
const ON_TIME: TimeDelta = TimeDelta::seconds(3);

fn plan() -> Plan {
    // A lease of 15 s, so that no worker is lost but by the clock.
    let worker_arguments = &["--slots", "100"];
    Plan { coordinators: 2, workers: 2, heartbeat_seconds: 5.0, worker_arguments, ..Plan::default() }
}

#[tokio::test]
#[ignore = "needs Debian's libfaketime"]
async fn wall_clocks_that_jump_by_an_hour_lose_no_task_and_no_worker_and_nothing_is_early_or_late() {
    let mut world = World::start_with(plan(), None, Some(Clocks::new())).await;
    let book = world.book();
    let clients = Clients::start(&book, &world.targets, PACE, 1);
    let held_back = hold_back(&book, &world.database.url, LIVE_MAX);

    let (mut workers, mut coordinators) = (Hits::default(), Hits::default());
    let enough = |workers: &Hits, coordinators: &Hits| {
        let states = [workers.picked, workers.started, coordinators.waiting, coordinators.picked, coordinators.started];
        states.into_iter().all(|count| count >= ENOUGH)
    };
    for _ in 0..ROUNDS_MAX {
        for seconds in JUMPS {
            for part in &world.workers {
                volley(&book, &world.targets, &world.database.url).await;
                workers.count(&world.database.url, Whose::Worker(&part.id)).await;
                jump(&world, part, seconds).await;
            }
            for part in &world.coordinators {
                volley(&book, &world.targets, &world.database.url).await;
                coordinators.count(&world.database.url, Whose::Coordinator(&part.id)).await;
                jump(&world, part, seconds).await;
            }
        }
        if enough(&workers, &coordinators) {
            break;
        }
    }
    eprintln!("    clock of a worker:      {workers}\n    clock of a coordinator: {coordinators}");
    assert!(enough(&workers, &coordinators), "the jumps hit too little");

    drop(held_back);
    let mut history = clients.stop().await;
    world.quiet(END).await;
    future_tasks_begin_on_time(&world, &book).await;
    history.requests.extend(book.take().requests);
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert!(history.rows.iter().all(|row| row.lost_workers == 0), "a jump cost a worker");
    // A task that is cancelled while it waits in a worker is handed back by it, to end, and one that has waited for too long. And a
    // coordinator on a machine that is too busy for its own heartbeat hands back what it has just claimed: now and then, and not at
    // every jump.
    let waited = history.waited_in_vain();
    let in_vain = |row: &Row| waited.get(&row.id).is_some_and(|times| row.hand_backs <= *times);
    let back = |row: &&Row| row.hand_backs > 0 && row.status != TaskStatus::Cancelled && !in_vain(row);
    let back = history.rows.iter().filter(back);
    let times: HashSet<i64> = back.map(|row| row.claim).collect();
    let jumps = workers.times + coordinators.times;
    eprintln!("    handed back: {} times at {jumps} jumps", times.len());
    assert!(times.len() as u64 * 10 <= jumps, "jumps make tasks go back: {times:?}");
    assert!(world.parts().all(|part| !part.ended_by_itself()));
}

/// Sets a clock, and waits until tasks have begun since.
async fn jump(world: &World, part: &Part, seconds: i64) {
    world.set_clock(part, seconds);
    let since = world.targets.executions().len();
    until("tasks begin after a jump", async || (world.targets.executions().len() >= since + 20).then_some(())).await;
}

/// Of tasks that lie ahead while every clock jumps, none is early, and none is late.
async fn future_tasks_begin_on_time(world: &World, book: &Book) {
    let now = Utc::now().timestamp_micros();
    let mut times: Vec<DateTime<Utc>> = Vec::new();
    let mut tasks = Vec::new();
    for place in 0..40 {
        let at = DateTime::from_timestamp_micros(now).expect("a time") + TimeDelta::milliseconds(2_000 + place * 50);
        let spec = Spec { scheduled_at: Some(at), ..Spec::default() };
        tasks.push((spec.clone(), world.targets.task(Deed::Http { ms: 0 }, &spec)));
        times.push(at);
    }
    let ids = book.create(0, tasks).await;
    assert_eq!(ids.len(), times.len(), "accepted");
    for (number, part) in world.coordinators.iter().chain(&world.workers).enumerate() {
        world.set_clock(part, if number % 2 == 0 { HOUR } else { -HOUR });
    }
    let began =
        async |id| until("a future task begins", async || world.targets.of(id).first().map(|run| run.began)).await;
    let mut late = Vec::new();
    for (id, at) in ids.into_iter().zip(times) {
        let Stamp { wall, .. } = began(id).await;
        late.push(wall - at);
    }
    let (least, most) = (late.iter().min().expect("some"), late.iter().max().expect("some"));
    eprintln!("    tasks of a time began {} to {} ms after it", least.num_milliseconds(), most.num_milliseconds());
    assert!(*least >= TimeDelta::zero() && *most <= ON_TIME, "{late:?}");
}
