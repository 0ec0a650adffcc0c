//! The database fails over to another node, under load: nothing that was accepted is lost, and work goes on by itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use sqlx::{Connection, PgConnection};
use taskmaster_store::{DatabaseArgs, Store};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::checker::assert_whole;
use super::history::{Answer, History, Spec, Stamp};
use super::hits::{ENOUGH, Hits, Whose};
use super::load::{Book, Clients, Failure, Pace};
use super::patroni::Patroni;
use super::support::{Database, until, until_within};
use super::target::{Deed, Targets};
use super::world::{END, Plan, World};

/// What happens to the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// `kill -9` of everything on its node, which is started again when another is the primary.
    Kill,
    /// It hands over in good order.
    SwitchOver,
    /// Its node hangs with all connections, and is killed, as a watchdog does, when another is the primary.
    Freeze,
    /// It hands over, and HAProxy leads to the old primary for some seconds more.
    Mislead,
}

const FAULTS: [Fault; 5] = [Fault::Kill, Fault::SwitchOver, Fault::Freeze, Fault::Mislead, Fault::Kill];

/// From the moment when the new primary stores something, until no request is refused any more.
const ACCEPTED_WITHIN: f64 = 3.0;
/// The same, when HAProxy takes up to 12 s to see what has happened.
const ACCEPTED_WITHIN_MISLED: f64 = 12.0;
/// From the answer to a task's creation until it runs, when nothing else waits: the poll takes 10 s.
const BEGINS_WITHIN: f64 = 1.0;

/// How long load comes before, how long a busy moment is waited for, and how long load comes after.
const BEFORE: Duration = Duration::from_secs(2);
const MOMENT: Duration = Duration::from_secs(2);
const AFTER: Duration = Duration::from_secs(3);
const AFTER_MISLED: Duration = Duration::from_secs(15);

const PACE: Pace = Pace { clients: 4, pause_ms: 300, batch_max: 8, commands: 4 };
/// What is asked for at the moment when a fault strikes.
const BURSTS: usize = 8;
const BURST: usize = 25;
/// What waits when a fault strikes.
const BACKLOG: usize = 400;
/// So many tasks are to be in each state when a fault strikes, if it can be had.
const BUSY: i64 = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs root, Patroni, etcd and HAProxy"]
async fn a_database_that_fails_over_synchronously_costs_no_accepted_task_and_work_goes_on_within_seconds() {
    let mut patroni = Patroni::start().await;
    let database = patroni.database(patroni.careful());
    migrate(&database).await;
    let plan =
        Plan { gateways: 2, coordinators: 2, workers: 3, worker_arguments: &["--slots", "40"], ..Plan::default() };
    let mut world = World::start_on(database, None, plan, None).await;
    let book = world.book();
    book.full.store(true, Ordering::Relaxed);
    let clients = Clients::start(&book, &world.targets, PACE, rand::random());
    let mut hits = Hits::default();
    for fault in FAULTS {
        let hit = fail_over(fault, &mut patroni, &mut world, &book).await;
        hits.add(hit);
    }
    let mut history = clients.stop().await;
    world.finish(&mut history, END).await;
    eprintln!("    {} tasks accepted, {} there; hit in all: {hits}", accepted(&history), history.rows.len());
    assert_whole(&history);
    assert!(hits.each().iter().all(|count| *count >= ENOUGH), "{hits}");
    let defects: Vec<Failure> = book.failures().into_iter().filter(|failure| failure.status == 500).collect();
    assert!(defects.is_empty(), "nothing that breaks outside is an excuse for a 500: {defects:?}");
}

/// One fault, from load before it to quiet after it. Gives back what it hit.
async fn fail_over(fault: Fault, patroni: &mut Patroni, world: &mut World, book: &Arc<Book>) -> Hits {
    let old = patroni.primary().await.expect("a primary");
    lead(world, if fault == Fault::Mislead { patroni.careless() } else { patroni.careful() });
    book.full.store(false, Ordering::Relaxed);
    let pulse = Pulse::start(book, &world.targets);
    tokio::time::sleep(BEFORE).await;
    let mut bursts = JoinSet::new();
    burst(world, book, &mut bursts, &[(BACKLOG, 1_000)]);
    let mut hits = busy_moment(world).await;
    burst(world, book, &mut bursts, &[(BURST, 50); BURSTS]);
    hits.creating = creating_many(book).await;

    let struck = Stamp::now().monotonic;
    strike(fault, patroni, old).await;
    let new = patroni.another_primary(old).await;
    let stores = stores(&patroni.database_of(new)).await;
    let (within, after) = match fault {
        Fault::Mislead => (ACCEPTED_WITHIN_MISLED, AFTER_MISLED),
        _ => (ACCEPTED_WITHIN, AFTER),
    };
    if fault == Fault::Mislead {
        misled(&patroni.database(patroni.careless())).await;
    }
    tokio::time::sleep(after).await;
    bring_back(fault, patroni, old).await;
    book.full.store(true, Ordering::Relaxed);
    bursts.join_all().await;
    eprintln!("    {fault:?}: node {old} to {new}, which stores {:.1} s later; hit {hits:?}", stores - struck);
    pulse.stop().await.assert_soon(stores, within);
    assert!(world.parts().all(|part| part.runs()), "a process has ended");
    world.quiet(END).await;
    assert_notified(world, book).await;
    hits
}

async fn strike(fault: Fault, patroni: &mut Patroni, primary: usize) {
    match fault {
        Fault::Kill => patroni.kill9(primary).await,
        Fault::Freeze => patroni.freeze(primary),
        Fault::SwitchOver | Fault::Mislead => patroni.switch_over(primary).await,
    }
}

/// Starts the old primary again, if it has not been all the time, and waits until it follows.
async fn bring_back(fault: Fault, patroni: &mut Patroni, old: usize) {
    if fault == Fault::Freeze {
        patroni.kill9(old).await;
    }
    if matches!(fault, Fault::Kill | Fault::Freeze) {
        patroni.start_again(old);
    }
    patroni.whole().await;
}

/// Waits until a way leads to a server that cannot write.
async fn misled(way: &Database) {
    let read_only = async || {
        let mut connection = PgConnection::connect(&way.url).await.ok()?;
        let standby = sqlx::query_scalar("select pg_is_in_recovery()").fetch_one(&mut connection).await.ok()?;
        if standby { Some(()) } else { None }
    };
    until("HAProxy leads to the old primary, which is a standby", read_only).await;
}

async fn migrate(database: &Database) {
    let options = database.url.parse().expect("a URL");
    let store = Store::new(options, &DatabaseArgs::default());
    until("the schema", async || store.migrate().await.ok()).await;
    store.close().await;
    let mut connection = database.connect().await;
    sqlx::raw_sql("create table probe (at timestamptz)").execute(&mut connection).await.expect("a table");
}

/// Leads every part's way to the database there, from its next connection on.
fn lead(world: &mut World, to: std::net::SocketAddr) {
    world.parts().filter_map(|part| part.database.as_ref()).for_each(|way| way.lead_to(to));
}

/// When a node has stored something, synchronously.
async fn stores(database: &Database) -> f64 {
    let store = async || {
        let mut connection = PgConnection::connect(&database.url).await.ok()?;
        sqlx::query("insert into probe values (now())").execute(&mut connection).await.ok()
    };
    until("the new primary stores something", store).await;
    Stamp::now().monotonic
}

fn documents(targets: &Targets, count: usize, ms: u64) -> Vec<(Spec, Value)> {
    let each = |_| {
        let spec = Spec::default();
        let document = targets.task(Deed::Http { ms }, &spec);
        (spec, document)
    };
    (0..count).map(each).collect()
}

/// Asks for batches of tasks, each of so many that take so long, and does not wait for the answers.
fn burst(world: &World, book: &Arc<Book>, running: &mut JoinSet<()>, batches: &[(usize, u64)]) {
    for (number, (count, ms)) in batches.iter().enumerate() {
        let (book, tasks) = (book.clone(), documents(&world.targets, *count, *ms));
        running.spawn(async move {
            book.create(number % book.creating.len(), tasks).await;
        });
    }
}

/// How many tasks are on their way, once there are many.
async fn creating_many(book: &Book) -> i64 {
    let creating = || book.creating.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let began = Instant::now();
    while creating() < BUSY && began.elapsed() < MOMENT {
        tokio::task::yield_now().await;
    }
    creating()
}

/// Waits for a moment in which there are many tasks in each state of the database's.
async fn busy_moment(world: &World) -> Hits {
    let began = Instant::now();
    loop {
        let mut hits = Hits::default();
        hits.count(&world.database.url, Whose::Everybodys).await;
        if hits.each()[1..].iter().all(|count| *count >= BUSY) || began.elapsed() > MOMENT {
            return hits;
        }
    }
}

/// A request of the pulse.
#[derive(Debug, Clone, Copy)]
struct Beat {
    gateway: usize,
    asked: f64,
    answered: f64,
    /// None when it was refused, or not answered.
    id: Option<Uuid>,
}

/// Asks every gateway for a task ten times a second, whatever became of what it asked before.
struct Pulse {
    stop: Arc<AtomicBool>,
    beating: tokio::task::JoinHandle<Beats>,
}

impl Pulse {
    fn start(book: &Arc<Book>, targets: &Arc<Targets>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (book, targets, stopped) = (book.clone(), targets.clone(), stop.clone());
        let beating = tokio::spawn(async move {
            let mut beats = JoinSet::new();
            let mut clock = tokio::time::interval(Duration::from_millis(100));
            while !stopped.load(Ordering::Relaxed) {
                clock.tick().await;
                for gateway in 0..book.creating.len() {
                    beats.spawn(beat(book.clone(), gateway, documents(&targets, 1, 0)));
                }
            }
            Beats(beats.join_all().await)
        });
        Self { stop, beating }
    }

    async fn stop(self) -> Beats {
        self.stop.store(true, Ordering::Relaxed);
        self.beating.await.expect("the pulse")
    }
}

async fn beat(book: Arc<Book>, gateway: usize, task: Vec<(Spec, Value)>) -> Beat {
    let asked = Stamp::now().monotonic;
    let id = book.create(gateway, task).await.first().copied();
    Beat { gateway, asked, answered: Stamp::now().monotonic, id }
}

struct Beats(Vec<Beat>);

impl Beats {
    /// Soon after the new primary has stored something every gateway accepts tasks, and none refuses any.
    fn assert_soon(&self, stores: f64, within: f64) {
        let refused =
            self.0.iter().filter(|beat| beat.id.is_none()).map(|beat| beat.asked - stores).fold(0.0, f64::max);
        let accepted = self.all_accept(stores) - stores;
        eprintln!(
            "    every gateway accepts {accepted:.2} s after that; the last refused was asked {refused:.2} s after it"
        );
        assert!(accepted <= within && refused <= within, "not within {within} s");
    }

    /// When every gateway had accepted a task, after this moment.
    fn all_accept(&self, after: f64) -> f64 {
        let gateways = self.0.iter().map(|beat| beat.gateway).max().unwrap_or(0);
        let first = |gateway: usize| {
            let accepted = self.0.iter().filter(|beat| beat.gateway == gateway && beat.id.is_some());
            accepted.map(|beat| beat.answered).filter(|at| *at >= after).fold(f64::INFINITY, f64::min)
        };
        (0..=gateways).map(first).fold(after, f64::max)
    }
}

/// Notifications arrive: nothing waits for the poll.
async fn assert_notified(world: &World, book: &Arc<Book>) {
    let mut longest: f64 = 0.0;
    for gateway in [0, 1, 0, 1, 0, 1] {
        let beat = beat(book.clone(), gateway, documents(&world.targets, 1, 0)).await;
        let id = beat.id.expect("accepted");
        let limit = Duration::from_secs(30);
        let began = until_within(limit, "a run", async || Some(world.targets.of(id).first()?.began.monotonic)).await;
        longest = longest.max(began - beat.answered);
    }
    eprintln!("    with nothing else to do, a task begins within {longest:.3} s");
    assert!(longest <= BEGINS_WITHIN, "{longest:.3} s");
}

fn accepted(history: &History) -> usize {
    let count = |answer: &Answer| if let Answer::Accepted(ids) = answer { ids.len() } else { 0 };
    history.requests.iter().map(|request| count(&request.answer)).sum()
}
