//! The lifecycle, twice: a small pure model, and PostgreSQL through the store. The same random operations, some of them nonsense,
//! are done to both, and every task is compared after each.
//!
//! A run is repeated with the `TASKMASTER_MODEL_SEED` that it printed; `TASKMASTER_MODEL_STEPS` makes it longer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use sqlx::{ConnectOptions, PgConnection};
use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::gateway::StatusCounts;
use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, RetryPolicy, TaskError, TaskStatus, Work};
use taskmaster_store::claim::{Band, BandFrom};
use taskmaster_store::fleet::Beat;
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::rescue::RescueLimits;
use taskmaster_store::{Cancel, DatabaseArgs, Due, Retry, Store, TaskToCreate};
use uuid::Uuid;

const STEPS: u64 = 800;
const WORKERS: [&str; 3] = ["w0", "w1", "w2"];
const LOST_WORKERS_MAX: i16 = 5;
/// Fewer live tasks than this are added to.
const LIVE_MIN: usize = 8;

/// A task as the model has it; also what is read from the database.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    status: TaskStatus,
    attempt: i16,
    max_attempts: i16,
    lost_workers: i16,
    hand_backs: i32,
    claim: i64,
    worker: Option<String>,
    started: bool,
    cancel_requested: bool,
    /// The claims of earlier attempts.
    attempts: Vec<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happening {
    Failed { permanent: bool },
    Stopped,
    HandedBack,
    Lost,
}

impl Shape {
    fn new(max_attempts: i16) -> Self {
        Self {
            status: TaskStatus::Queued,
            attempt: 0,
            max_attempts,
            lost_workers: 0,
            hand_backs: 0,
            claim: 0,
            worker: None,
            started: false,
            cancel_requested: false,
            attempts: Vec::new(),
        }
    }

    fn is_held(&self) -> bool {
        matches!(self.status, TaskStatus::Picked | TaskStatus::Started)
    }

    fn is_held_by(&self, claim: i64, worker: &str) -> bool {
        self.is_held() && self.claim == claim && self.worker.as_deref() == Some(worker)
    }

    fn picked(&mut self, claim: i64, worker: &str) {
        assert!(claim > self.claim, "claim numbers rise");
        self.status = TaskStatus::Picked;
        (self.claim, self.worker, self.started) = (claim, Some(worker.to_owned()), false);
    }

    fn start(&mut self) {
        if self.status == TaskStatus::Picked {
            (self.status, self.started) = (TaskStatus::Started, true);
            self.attempt += 1;
        }
    }

    fn complete(&mut self) {
        self.start();
        self.status = TaskStatus::Complete;
    }

    fn happen(&mut self, happening: Happening) {
        let began = self.status == TaskStatus::Started;
        let tried = match happening {
            Happening::Failed { .. } | Happening::Stopped => {
                self.start();
                true
            }
            Happening::Lost | Happening::HandedBack => {
                self.attempt -= i16::from(began);
                began && happening == Happening::Lost
            }
        };
        self.lost_workers += i16::from(happening == Happening::Lost);
        self.hand_backs += i32::from(happening == Happening::HandedBack);
        let used_up = match happening {
            Happening::HandedBack => false,
            Happening::Lost => self.lost_workers >= LOST_WORKERS_MAX,
            Happening::Failed { permanent: true } => true,
            _ => self.attempt >= self.max_attempts,
        };
        self.status = match (self.cancel_requested, used_up) {
            (true, _) => TaskStatus::Cancelled,
            (false, true) => TaskStatus::Failed,
            (false, false) => TaskStatus::Queued,
        };
        if self.status == TaskStatus::Queued && tried {
            self.attempts.push(self.claim);
        }
    }

    fn cancel(&mut self) {
        match self.status {
            TaskStatus::Queued => (self.status, self.cancel_requested) = (TaskStatus::Cancelled, true),
            TaskStatus::Picked | TaskStatus::Started => self.cancel_requested = true,
            _ => {}
        }
    }

    fn retry(&mut self) -> bool {
        if !matches!(self.status, TaskStatus::Failed | TaskStatus::Cancelled) {
            return false;
        }
        if self.started && !self.attempts.contains(&self.claim) {
            self.attempts.push(self.claim);
        }
        let kept = Self { claim: self.claim, worker: self.worker.take(), ..Self::new(self.max_attempts) };
        *self = Self { started: self.started, attempts: std::mem::take(&mut self.attempts), ..kept };
        true
    }
}

/// Both of them, and what drives them.
struct Pair {
    store: Store,
    connection: PgConnection,
    random: StdRng,
    model: BTreeMap<Uuid, Shape>,
    coordinator: Uuid,
    /// The last operations, for the message of a failure.
    log: Vec<String>,
}

impl Pair {
    fn any_task(&mut self) -> Option<Uuid> {
        // Mostly one that lives.
        let live: Vec<Uuid> = self.model.iter().filter(|(_, t)| !t.status.is_terminal()).map(|(id, _)| *id).collect();
        let all: Vec<Uuid> = self.model.keys().copied().collect();
        let among = if self.random.random_bool(0.85) && !live.is_empty() { &live } else { &all };
        among.choose(&mut self.random).copied()
    }

    fn any_worker(&mut self) -> String {
        WORKERS.choose(&mut self.random).copied().unwrap_or_default().to_owned()
    }

    fn held(&self) -> Vec<TaskClaim> {
        let held = self.model.iter().filter(|(_, task)| task.is_held());
        held.map(|(task_id, task)| TaskClaim { task_id: *task_id, claim: task.claim }).collect()
    }

    /// Some claims: held ones, and some that are not right.
    fn some_claims(&mut self) -> Vec<TaskClaim> {
        let mut claims: Vec<TaskClaim> = self.held();
        let keep: Vec<bool> = claims.iter().map(|_| self.random.random_bool(0.3)).collect();
        claims = claims.into_iter().zip(keep).filter_map(|(claim, keep)| keep.then_some(claim)).collect();
        if self.random.random_bool(0.2)
            && let Some(claim) = claims.first_mut()
        {
            claim.claim -= 1;
        }
        claims
    }

    async fn beat(&self) {
        let beat = |id: &str| Beat {
            worker_id: id.to_owned(),
            address: "http://127.0.0.1:1".into(),
            slots: 5,
            held: 0,
            abilities: Abilities { commands: true, http: true, http_rules: true, queues: Vec::new() },
            labels: BTreeMap::new(),
            draining: false,
            home: self.coordinator,
        };
        self.store.beat(&WORKERS.map(beat)).await.unwrap();
    }

    async fn step(&mut self) {
        let live = self.model.values().filter(|task| !task.status.is_terminal()).count();
        match self.random.random_range(0..100) {
            _ if live < LIVE_MIN => self.create().await,
            0..25 => self.claim().await,
            25..70 => self.report().await,
            70..78 => self.hand_back().await,
            78..82 => self.lose().await,
            82..85 => self.lose_worker().await,
            85..92 => self.cancel().await,
            _ => self.retry().await,
        }
    }

    async fn create(&mut self) {
        let count = self.random.random_range(1..4);
        let mut tasks = Vec::new();
        for _ in 0..count {
            let max_attempts = self.random.random_range(1..4);
            let delays_seconds = Some(vec![0.0]);
            let task = TaskToCreate {
                id: Uuid::now_v7(),
                work: Work::Command("true".into()),
                due: Due::Now,
                queue: "default".into(),
                requires: Default::default(),
                priority: self.random.random_range(0..3),
                max_attempts,
                retry: Some(RetryPolicy { delays_seconds, jitter: 0.0, ..RetryPolicy::default() }),
                timeout_seconds: 300,
                tags: Vec::new(),
                callbacks: None,
                flow_key: None,
                trace: None,
            };
            self.model.insert(task.id, Shape::new(max_attempts));
            tasks.push(task);
        }
        self.log.push(format!("create {count}"));
        self.store.create(&tasks).await.unwrap();
    }

    async fn claim(&mut self) {
        let workers: Vec<String> = (0..self.random.random_range(1..6)).map(|_| self.any_worker()).collect();
        let seats: Vec<usize> = (0..workers.len()).collect();
        let lanes = self.store.lanes().await.unwrap();
        let bands: Vec<BandFrom> = Band::of(lanes.iter().map(|lane| lane.id))
            .map(|band| BandFrom { band, low_water: None, max: usize::MAX })
            .collect();
        let waiting = self.model.values().filter(|task| task.status == TaskStatus::Queued).count();
        let claimed = self.store.claim(self.coordinator, &bands, &workers, &seats, 0.0).await.unwrap().tasks;
        self.log.push(format!("claim {workers:?}: {}", claimed.len()));
        assert_eq!(claimed.len(), waiting.min(workers.len()));
        for task in claimed {
            let shape = self.model.get_mut(&task.task_id).expect("a task that was created");
            assert_eq!((shape.status, task.attempt), (TaskStatus::Queued, shape.attempt + 1));
            shape.picked(task.claim, &workers[task.seat]);
        }
    }

    /// A batch of reports, true ones and others, of which several may speak of one claim.
    async fn report(&mut self) {
        let mut reports: Vec<WorkerReport> = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let Some(task_id) = self.any_task() else { return };
            let task = &self.model[&task_id];
            let (mut claim, mut worker) = (task.claim, task.worker.clone().unwrap_or_else(|| "w0".into()));
            let mut id = task_id;
            match self.random.random_range(0..20) {
                0 => claim += 1,
                1 => claim -= 1,
                2 => worker = self.any_worker(),
                3 => id = Uuid::now_v7(),
                _ => {}
            }
            let report = self.any_report(TaskClaim { task_id: id, claim: claim.max(1) });
            reports.push(WorkerReport { worker_id: worker, report });
        }
        if self.random.random_bool(0.2) {
            let again = reports[0].clone();
            let TaskClaim { task_id, claim } = TaskClaim { task_id: again.report.task_id, claim: again.report.claim };
            let report = self.any_report(TaskClaim { task_id, claim });
            reports.push(WorkerReport { report, ..again });
        }
        self.log.push(format!("report {reports:?}"));
        let answered = self.store.record(&reports).await.unwrap().results;
        let expected = self.expect(&reports);
        let codes: Vec<ReportCode> = answered.iter().map(|result| result.code).collect();
        assert_eq!(codes, expected);
    }

    fn any_report(&mut self, claim: TaskClaim) -> StatusReport {
        use ReportStatus::{Cancelled, Complete, Detached, Failed, Released, Started};
        let any = [Started, Started, Complete, Failed, Failed, Cancelled, Released, Detached];
        let status = any[self.random.random_range(0..any.len())];
        let lost = status == Failed && self.random.random_bool(0.3);
        let code = if lost { ErrorCode::WorkerLost } else { ErrorCode::ExitStatus };
        StatusReport {
            task_id: claim.task_id,
            claim: claim.claim,
            status,
            started_ms_ago: Some(1),
            ended_ms_ago: (status != Started).then_some(0),
            result: None,
            error: (status == Failed).then(|| TaskError { code, message: "no".into() }),
            permanent: status == Failed && !lost && self.random.random_bool(0.2),
            retry_after_ms: None,
        }
    }

    /// Does to the model what the reports say, and gives back how each is answered. Of several of one claim the first that is not
    /// STARTED counts.
    fn expect(&mut self, reports: &[WorkerReport]) -> Vec<ReportCode> {
        let key = |r: &WorkerReport| (r.report.task_id, r.report.claim, r.worker_id.clone());
        let mut words: BTreeMap<(Uuid, i64, String), &StatusReport> = BTreeMap::new();
        for report in reports {
            let word = words.entry(key(report)).or_insert(&report.report);
            if word.status == ReportStatus::Started {
                *word = &report.report;
            }
        }
        let mut recorded = Vec::new();
        for (key, word) in words {
            let (task_id, claim, worker) = &key;
            let Some(task) = self.model.get_mut(task_id).filter(|task| task.is_held_by(*claim, worker)) else {
                continue;
            };
            let lost = word.error.as_ref().is_some_and(|error| error.code == ErrorCode::WorkerLost);
            match word.status {
                ReportStatus::Started if task.status == TaskStatus::Started => continue,
                ReportStatus::Started => task.start(),
                ReportStatus::Complete => task.complete(),
                ReportStatus::Failed if lost => task.happen(Happening::Lost),
                ReportStatus::Failed => task.happen(Happening::Failed { permanent: word.permanent }),
                ReportStatus::Cancelled => task.happen(Happening::Stopped),
                ReportStatus::Released => task.happen(Happening::HandedBack),
                // Nobody calls back for these.
                ReportStatus::Detached => task.happen(Happening::Failed { permanent: false }),
            }
            recorded.push(key);
        }
        let code = |report: &WorkerReport| {
            let (task_id, claim, worker) = key(report);
            if recorded.contains(&(task_id, claim, worker.clone())) {
                return ReportCode::Recorded;
            }
            match self.model.get(&task_id) {
                None => ReportCode::UnknownTask,
                Some(task) if claim < task.claim => ReportCode::StaleClaim,
                Some(task) if claim > task.claim || task.worker.as_ref() != Some(&worker) => ReportCode::NotYourTask,
                Some(task) if task.status == TaskStatus::Queued => ReportCode::StaleClaim,
                Some(_) => ReportCode::AlreadyRecorded,
            }
        };
        reports.iter().map(code).collect()
    }

    async fn hand_back(&mut self) {
        let claims = self.some_claims();
        self.log.push(format!("hand back {claims:?}"));
        self.store.hand_back(&claims).await.unwrap();
        self.happen(&claims, Happening::HandedBack, |task| task.status == TaskStatus::Picked);
    }

    async fn lose(&mut self) {
        let claims = self.some_claims();
        self.log.push(format!("lose {claims:?}"));
        self.store.lose(&claims).await.unwrap();
        self.happen(&claims, Happening::Lost, |_| true);
    }

    async fn lose_worker(&mut self) {
        let worker = self.any_worker();
        self.log.push(format!("lose worker {worker}"));
        self.store.remove_workers(std::slice::from_ref(&worker)).await.unwrap();
        let limits = RescueLimits {
            claimed_seconds_ago: 0.0,
            coordinator_lease_seconds: 3600.0,
            unstarted_seconds: 3600.0,
            timeout_margin_seconds: 3600.0,
            of: None,
        };
        let rescued = self.store.rescue(&limits).await.unwrap();
        let held = self.held();
        let of_it: Vec<TaskClaim> =
            held.into_iter().filter(|claim| self.model[&claim.task_id].worker.as_ref() == Some(&worker)).collect();
        assert_eq!(rescued, of_it.len());
        self.happen(&of_it, Happening::Lost, |_| true);
        self.beat().await;
    }

    fn happen(&mut self, claims: &[TaskClaim], happening: Happening, applies: fn(&Shape) -> bool) {
        for TaskClaim { task_id, claim } in claims {
            let task = self.model.get_mut(task_id).expect("a task that was created");
            if task.is_held() && task.claim == *claim && applies(task) {
                task.happen(happening);
            }
        }
    }

    async fn cancel(&mut self) {
        let Some(id) = self.any_task() else { return };
        self.log.push(format!("cancel {id}"));
        let answer = self.store.cancel(id).await.unwrap();
        let task = self.model.get_mut(&id).expect("a task that was created");
        task.cancel();
        let right = match task.status {
            TaskStatus::Cancelled => matches!(answer, Cancel::Cancelled(_)),
            TaskStatus::Complete | TaskStatus::Failed => matches!(answer, Cancel::Ended(_)),
            _ => matches!(answer, Cancel::Requested(_)),
        };
        assert!(right, "{answer:?}");
    }

    async fn retry(&mut self) {
        let ended: Vec<Uuid> = self.model.iter().filter(|(_, t)| t.status.is_terminal()).map(|(id, _)| *id).collect();
        let Some(id) = ended.choose(&mut self.random).copied() else { return };
        self.log.push(format!("retry {id}"));
        let answer = self.store.retry(id).await.unwrap();
        let retried = self.model.get_mut(&id).expect("a task that was created").retry();
        assert_eq!(matches!(answer, Retry::Queued(_)), retried, "{answer:?}");
    }

    /// Every task, as the database has it.
    async fn read(&mut self) -> BTreeMap<Uuid, Shape> {
        type Row = (Uuid, i16, i16, i16, i16, i32, i64, Option<String>, bool, bool, Vec<i64>);
        const COLUMNS: &str = "id, status, attempt, max_attempts, lost_workers, hand_backs, claim, worker_id,
            started_at is not null, cancel_requested_at is not null,
            array(select a.claim from attempts a where a.task_id = id order by a.claim, a.ended_at)";
        let sql = format!("select {COLUMNS} from tasks union all select {COLUMNS} from task_history");
        let rows: Vec<Row> =
            sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(&mut self.connection).await.expect("tasks");
        let count = rows.len();
        let shape = |row: Row| {
            let (id, status, attempt, max_attempts, lost_workers, hand_backs, claim, worker, started, cancel, attempts) =
                row;
            let status = TaskStatus::ALL[status as usize];
            let cancel_requested = cancel;
            let shape = Shape {
                status,
                attempt,
                max_attempts,
                lost_workers,
                hand_backs,
                claim,
                worker,
                started,
                cancel_requested,
                attempts,
            };
            (id, shape)
        };
        let shapes: BTreeMap<Uuid, Shape> = rows.into_iter().map(shape).collect();
        assert_eq!(shapes.len(), count, "a task is there twice");
        shapes
    }

    async fn compare(&mut self, step: u64) {
        let there = self.read().await;
        let differs = self.model.iter().find(|(id, shape)| there.get(id) != Some(shape));
        let last = self.log[self.log.len().saturating_sub(8)..].join("\n");
        if let Some((id, shape)) = differs {
            panic!("step {step}: {id} is {:?}\nthe model has {shape:?}\nafter\n{last}", there.get(id));
        }
        assert_eq!(there.len(), self.model.len(), "step {step}: more tasks than were created, after\n{last}");
    }
}

#[tokio::test]
async fn the_store_does_to_tasks_what_a_small_model_does() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect(name));
    let seed = number("TASKMASTER_MODEL_SEED").unwrap_or_else(|| rand::rng().random());
    let steps = number("TASKMASTER_MODEL_STEPS").unwrap_or(STEPS);
    eprintln!("    TASKMASTER_MODEL_SEED={seed}");
    let server = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
    let store = Store::new(server.connect_options(), &DatabaseArgs::default());
    store.migrate().await.unwrap();
    let connection = server.connect_options().connect().await.unwrap();
    let random = StdRng::seed_from_u64(seed);
    let (model, coordinator, log) = (BTreeMap::new(), Uuid::now_v7(), Vec::new());
    let mut pair = Pair { store, connection, random, model, coordinator, log };
    pair.beat().await;
    for step in 0..steps {
        pair.step().await;
        pair.compare(step).await;
    }
    let mut counts = StatusCounts::default();
    for task in pair.model.values() {
        *counts.of_mut(task.status) += 1;
    }
    while pair.store.advance_events().await.unwrap() {}
    assert_eq!(pair.store.stats().await.unwrap().tasks, counts);
    assert!([counts.complete, counts.failed, counts.cancelled].iter().all(|n| *n > 10), "{counts:?}");
    pair.store.close().await;
    drop(pair.connection);
    tokio::time::timeout(Duration::from_secs(60), server.stop()).await.unwrap();
}
