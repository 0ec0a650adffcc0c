//! All faults at once, under load: a few seconds of it in every test run, and for as long as one likes by
//! `TASKMASTER_FAULTS_SECONDS`.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use sqlx::{Connection, PgConnection};
use taskmaster_openapi::report::{ReportCode, TaskClaim};
use taskmaster_openapi::task::TaskStatus;
use uuid::Uuid;

use super::checker::assert_whole;
use super::history::{Answer, History, Spec};
use super::hits::{ENOUGH, Hits, Whose};
use super::liar::{Liar, lies};
use super::load::{Clients, Pace};
use super::proxy::Flows;
use super::support::until_within;
use super::target::Deed;
use super::world::{Kind, Part, Plan, World};

/// What a run is like.
#[derive(Debug, Clone)]
struct Form {
    seconds: u64,
    seed: u64,
    plan: Plan,
    pace: Pace,
    /// Clients hold back beyond so many live tasks.
    live_max: i64,
    /// Milliseconds between the beginnings of faults.
    every_ms: std::ops::Range<u64>,
    /// Faults in progress at once.
    at_once: usize,
    /// How long everything may take to end, once all is whole again.
    end_within: Duration,
}

impl Form {
    /// What the environment asks for: the short form, when it says nothing.
    fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
        let seed = number("TASKMASTER_FAULTS_SEED").unwrap_or_else(|| rand::rng().random());
        let plan = Plan {
            gateways: 2,
            coordinators: 2,
            workers: 4,
            heartbeat_seconds: 1.0,
            own_cluster: true,
            worker_arguments: &["--slots", "8"],
            ..Plan::default()
        };
        let short = Self {
            seconds: 18,
            seed,
            plan,
            pace: Pace { clients: 4, pause_ms: 400, batch_max: 6, commands: 15 },
            live_max: 200,
            every_ms: 100..900,
            at_once: 3,
            end_within: Duration::from_secs(120),
        };
        match number("TASKMASTER_FAULTS_SECONDS") {
            None => short,
            Some(seconds) => Self {
                seconds,
                plan: Plan { heartbeat_seconds: 5.0, worker_arguments: &["--slots", "40"], ..short.plan },
                pace: Pace { clients: 16, pause_ms: 50, batch_max: 30, commands: 4 },
                live_max: 3_000,
                every_ms: 300..4_000,
                at_once: 3,
                end_within: Duration::from_secs(240),
                ..short
            },
        }
    }

    fn lease(&self) -> f64 {
        3.0 * self.plan.heartbeat_seconds
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    /// SIGSTOP, past the lease, and SIGCONT.
    Stop,
    /// Nothing gets through.
    Cut,
    /// What is asked gets through, and what is answered comes late.
    CutBack,
    LoseAnswers,
    Slow,
    /// The answers of these statements are lost after their effect.
    LoseClaim,
    LoseRecord,
    LoseCreate,
}

/// Which way is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Way {
    /// To the part.
    There,
    /// From the part to the database.
    Database,
}

/// A fault of a part; the database's own has no part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Aim {
    fault: Fault,
    at: Option<Kind>,
    way: Option<Way>,
}

impl std::fmt::Display for Aim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let way = match (self.way, self.at) {
            (None, Some(kind)) => format!("{kind:?}"),
            (None, None) => "Database".into(),
            (Some(Way::Database), Some(kind)) => format!("{kind:?} to database"),
            (Some(_), Some(Kind::Gateway)) => "client to gateway".into(),
            (Some(_), Some(Kind::Coordinator)) => "worker to coordinator".into(),
            (Some(_), _) => "coordinator to worker".into(),
        };
        write!(f, "{:?} {way}", self.fault)
    }
}

impl Aim {
    /// Which states it can hit: what is being created, waits, is PICKED, is STARTED.
    fn can_hit(self) -> [bool; 4] {
        match (self.fault, self.at) {
            (Fault::LoseClaim, _) => [false, true, false, false],
            (Fault::LoseRecord, _) => [false, false, false, true],
            (_, None) => [true; 4],
            (_, Some(Kind::Gateway)) => [true, false, false, false],
            (_, Some(Kind::Coordinator)) => [false, true, true, true],
            (_, Some(Kind::Worker)) => [false, false, true, true],
        }
    }
}

/// Every fault that there is.
fn aims() -> Vec<Aim> {
    use Fault::*;
    use Kind::*;
    let part = |fault, kind| Aim { fault, at: Some(kind), way: None };
    let way = |fault, kind, way| Aim { fault, at: Some(kind), way: Some(way) };
    let mut aims = vec![
        Aim { fault: Kill, at: None, way: None },
        way(LoseClaim, Coordinator, Way::Database),
        way(LoseRecord, Coordinator, Way::Database),
        way(LoseCreate, Gateway, Way::Database),
    ];
    for kind in [Gateway, Coordinator, Worker] {
        aims.extend([part(Kill, kind), part(Stop, kind)]);
        for fault in [Cut, CutBack, LoseAnswers, Slow] {
            aims.push(way(fault, kind, Way::There));
            if kind != Worker {
                aims.push(way(fault, kind, Way::Database));
            }
        }
    }
    aims
}

/// Texts that only these statements have.
const CLAIM: &str = "from seated, number";
const RECORD: &str = "delete from tasks t using done r";
const CREATE: &str = "insert into tasks (id, lane, priority, run_at, created_at";

/// The fewest that a fault hit in a state that it can hit, up to what is enough.
fn least(hits: &Hits, aim: Aim) -> i64 {
    let of = hits.each().into_iter().zip(aim.can_hit()).filter(|(_, can)| *can).map(|(hits, _)| hits);
    of.min().unwrap_or(0).min(ENOUGH)
}

/// A fault in progress.
struct Active {
    aim: Aim,
    number: usize,
    until: Instant,
}

struct Storm {
    form: Form,
    random: StdRng,
    active: Vec<Active>,
    hits: BTreeMap<Aim, Hits>,
    database_back: Option<Instant>,
}

impl Storm {
    fn new(form: Form) -> Self {
        let random = StdRng::seed_from_u64(form.seed);
        Self { form, random, active: Vec::new(), hits: BTreeMap::new(), database_back: None }
    }

    /// Begins a fault of something that nothing else is wrong with.
    async fn strike(&mut self, world: &mut World, clients: &mut Clients) {
        let aim = self.next_aim();
        let gateway = self.random.random_range(0..world.gateways.len());
        let Some(kind) = aim.at else { return self.kill_database(world, clients, gateway).await };
        let number = match kind {
            Kind::Gateway => gateway,
            _ => self.random.random_range(0..parts_of(world, kind).len()),
        };
        let busy = self.active.iter().any(|active| active.aim.at == Some(kind) && active.number == number);
        if busy || !parts_of(world, kind)[number].runs() {
            return;
        }
        self.count(aim, world, clients, number).await;
        let seconds = self.begin(aim, &mut parts_of(world, kind)[number]);
        self.active.push(Active { aim, number, until: Instant::now() + Duration::from_secs_f64(seconds) });
    }

    /// One of the faults that have hit least so far.
    fn next_aim(&mut self) -> Aim {
        let least = |aim: &Aim| self.hits.get(aim).map_or(0, |hits| least(hits, *aim));
        let aims = aims();
        let fewest = aims.iter().map(least).min().unwrap_or(0);
        let behind: Vec<Aim> = aims.into_iter().filter(|aim| least(aim) <= fewest + ENOUGH / 5).collect();
        *behind.choose(&mut self.random).expect("a fault")
    }

    /// Gives back how long it lasts.
    fn begin(&mut self, aim: Aim, part: &mut Part) -> f64 {
        let lease = self.form.lease();
        let brief = self.random.random_range(0.2..2.0);
        let slow = Duration::from_millis(self.random.random_range(5..150));
        let count = self.random.random_range(1..4);
        let proxy = match (aim.way, &part.database) {
            (Some(Way::Database), Some(database)) => database,
            _ => &part.reached,
        };
        match aim.fault {
            Fault::Kill => {
                part.kill9();
                return brief * 1.5;
            }
            Fault::Stop => {
                part.pause();
                return match part.kind {
                    Kind::Gateway => brief * 2.0,
                    Kind::Coordinator => 6.0 + brief,
                    Kind::Worker => lease + 1.0 + brief,
                };
            }
            Fault::Cut => proxy.set(Flows::CUT),
            Fault::CutBack => proxy.set(Flows::NO_ANSWER),
            Fault::LoseAnswers => proxy.set(Flows::LOST_ANSWERS),
            Fault::Slow => proxy.set(Flows::slow(slow)),
            Fault::LoseClaim => proxy.lose_answers_of(CLAIM, count),
            Fault::LoseRecord => proxy.lose_answers_of(RECORD, count),
            Fault::LoseCreate => proxy.lose_answers_of(CREATE, count),
        }
        match aim.fault {
            // Sometimes past every lease.
            Fault::Cut | Fault::CutBack if self.random.random_bool(0.3) => lease.max(5.0) + 1.0 + brief,
            Fault::Slow => brief * 3.0,
            _ => brief,
        }
    }

    async fn kill_database(&mut self, world: &mut World, clients: &mut Clients, gateway: usize) {
        if self.database_back.is_none() {
            self.count(Aim { fault: Fault::Kill, at: None, way: None }, world, clients, gateway).await;
            world.kill_database();
            let away = self.random.random_range(0.1..3.0);
            self.database_back = Some(Instant::now() + Duration::from_secs_f64(away));
        }
    }

    /// Ends what has lasted long enough.
    async fn calm(&mut self, world: &mut World) {
        let now = Instant::now();
        if self.database_back.is_some_and(|back| back <= now) {
            self.database_back = None;
            world.start_database().await;
        }
        let (over, active): (Vec<Active>, Vec<Active>) =
            std::mem::take(&mut self.active).into_iter().partition(|active| active.until <= now);
        self.active = active;
        for Active { aim, number, .. } in over {
            let part = &mut parts_of(world, aim.at.expect("a part"))[number];
            match aim.fault {
                Fault::Kill => part.start().await,
                Fault::Stop => part.resume(),
                _ => part.open_ways(),
            }
        }
    }

    /// Counts what a fault is about to hit at the part of this number. What creates is hit while much is being created.
    async fn count(&mut self, aim: Aim, world: &mut World, clients: &mut Clients, number: usize) {
        let mut hits = Hits::default();
        let url = &world.database.url;
        match aim.at {
            Some(Kind::Gateway) => hits.times += 1,
            Some(Kind::Worker) => hits.count(url, Whose::Worker(&world.workers[number].id)).await,
            Some(Kind::Coordinator) => hits.count(url, Whose::Coordinator(&world.coordinators[number].id)).await,
            None => hits.count(url, Whose::Everybodys).await,
        }
        if aim.can_hit()[0] {
            hits.creating = clients.volley(number, self.random.random()).await;
        }
        self.hits.entry(aim).or_default().add(hits);
    }

    fn print(&self) {
        for (aim, hits) in &self.hits {
            eprintln!("    {:<34} {hits}", aim.to_string());
        }
    }

    /// The faults that did not hit as many tasks as wanted in a state that they can hit.
    fn behind(&self) -> Vec<String> {
        let hits = |aim: &Aim| self.hits.get(aim).copied().unwrap_or_default();
        let behind = aims().into_iter().filter(|aim| least(&hits(aim), *aim) < ENOUGH);
        behind.map(|aim| format!("{aim}: {}", hits(&aim))).collect()
    }
}

fn parts_of(world: &mut World, kind: Kind) -> &mut Vec<Part> {
    match kind {
        Kind::Gateway => &mut world.gateways,
        Kind::Coordinator => &mut world.coordinators,
        Kind::Worker => &mut world.workers,
    }
}

/// Somebody lies all the time: about tasks that others hold, with their true claims.
async fn lie(liar: &mut Liar, coordinator: &str, held: Vec<TaskClaim>) -> usize {
    let _ = liar.beat(coordinator, 0, held.clone()).await;
    let reports = held.into_iter().flat_map(lies).collect::<Vec<_>>();
    if reports.is_empty() {
        return 0;
    }
    let results = liar.report(coordinator, &liar.id, reports).await.unwrap_or_default();
    assert!(results.iter().all(|result| result.code != ReportCode::Recorded), "a lie was recorded: {results:?}");
    results.len()
}

pub async fn held_by_others(url: &str) -> Vec<TaskClaim> {
    let Ok(mut connection) = PgConnection::connect(url).await else { return Vec::new() };
    let rows: Result<Vec<(Uuid, i64)>, _> =
        sqlx::query_as("select id, claim from tasks where status > 0 limit 20").fetch_all(&mut connection).await;
    rows.unwrap_or_default().into_iter().map(|(task_id, claim)| TaskClaim { task_id, claim }).collect()
}

/// The number of live tasks; none while the database is away.
async fn live(url: &str) -> Option<i64> {
    let mut connection = PgConnection::connect(url).await.ok()?;
    let count = sqlx::query_scalar("select count(*) from tasks").fetch_one(&mut connection).await.ok()?;
    connection.close().await.ok()?;
    Some(count)
}

/// Shows what has not ended, and who is there.
async fn stuck(url: &str) {
    let mut connection = PgConnection::connect(url).await.expect("the database");
    for sql in [
        "select to_jsonb(t) - 'work' from tasks t order by status desc, run_at limit 20",
        "select to_jsonb(c) || jsonb_build_object('now', now()) from claims c order by id limit 20",
        "select to_jsonb(w) from workers w",
        "select to_jsonb(c) from coordinators c",
    ] {
        let rows: Vec<Value> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.expect(sql);
        rows.iter().for_each(|row| eprintln!("    {row}"));
    }
    panic!("not every task has ended");
}

/// Between looks at what has lasted long enough.
const TICK: Duration = Duration::from_millis(50);
/// A run that lasts so long hits with every fault what it can hit.
const LONG_SECONDS: u64 = 1_800;
const POISON_EVERY: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_mixed_faults_no_task_is_lost_none_is_stuck_and_each_has_one_outcome() {
    let form = Form::of_environment();
    eprintln!("    TASKMASTER_FAULTS_SEED={} for {} s", form.seed, form.seconds);
    let mut world = World::start(form.plan.clone()).await;
    let book = world.book();
    let mut clients = Clients::start(&book, &world.targets, form.pace, form.seed);
    let mut storm = Storm::new(form.clone());
    let mut liar = Liar::new().await;
    let (began, mut lies_told) = (Instant::now(), 0);
    let (mut next_strike, mut next_second, mut next_poison) = (began, began, began);
    while began.elapsed() < Duration::from_secs(form.seconds) {
        let now = Instant::now();
        storm.calm(&mut world).await;
        world.tend().await;
        if now >= next_strike && storm.active.len() < form.at_once {
            storm.strike(&mut world, &mut clients).await;
            next_strike = now + Duration::from_millis(storm.random.random_range(form.every_ms.clone()));
        }
        if now >= next_second && storm.database_back.is_none() {
            next_second = now + Duration::from_secs(1);
            let url = world.database.url.clone();
            let count = live(&url).await.unwrap_or(form.live_max);
            book.full.store(count >= form.live_max, Ordering::Relaxed);
            let coordinator = world.coordinators[0].reached.url();
            lies_told += lie(&mut liar, &coordinator, held_by_others(&url).await).await;
        }
        if now >= next_poison {
            next_poison = now + POISON_EVERY;
            let spec = Spec { poison: true, ..Spec::default() };
            let document: Value = world.targets.task(Deed::Command { ms: 0 }, &spec);
            book.create(0, vec![(spec, document)]).await;
        }
        tokio::time::sleep(TICK).await;
    }
    if storm.database_back.take().is_some() {
        world.start_database().await;
    }
    world.heal().await;
    let mut history = clients.stop().await;
    // A poison task may still be about.
    let url = world.database.url.clone();
    let ended = async || {
        world.tend().await;
        (live(&url).await == Some(0)).then_some(())
    };
    if tokio::time::timeout(form.end_within, until_within(form.end_within * 2, "every task ends", ended)).await.is_err()
    {
        stuck(&url).await;
    }
    liar.leave(&world.coordinators[0].reached.url()).await;
    world.finish(&mut history, form.end_within).await;
    storm.print();
    summary(&history, began.elapsed(), lies_told);
    assert_whole(&history);
    if form.seconds >= LONG_SECONDS {
        assert!(storm.behind().is_empty(), "too few tasks were hit: {:#?}", storm.behind());
    }
}

fn summary(history: &History, took: Duration, lies_told: usize) {
    let requests = |answer: fn(&Answer) -> bool| history.requests.iter().filter(|r| answer(&r.answer)).count();
    let accepted: usize =
        history.requests.iter().map(|r| if let Answer::Accepted(ids) = &r.answer { ids.len() } else { 0 }).sum();
    let ended = |status| history.rows.iter().filter(|row| row.status == status).count();
    let sum = |of: fn(&super::history::Row) -> i64| history.rows.iter().map(of).sum::<i64>();
    eprintln!(
        "    {accepted} tasks accepted in {} requests ({} unanswered), {} there: {} COMPLETE, {} FAILED, {} CANCELLED; {} runs, \
         {} cancels answered, {} workers lost, {} hand-backs, {} events, {lies_told} lies; {:.0} s in all",
        history.requests.len(),
        requests(|answer| *answer == Answer::Unknown),
        history.rows.len(),
        ended(TaskStatus::Complete),
        ended(TaskStatus::Failed),
        ended(TaskStatus::Cancelled),
        history.executions.len(),
        history.cancels.len(),
        sum(|row| row.lost_workers),
        sum(|row| row.hand_backs),
        history.events.len(),
        took.as_secs_f64(),
    );
}
