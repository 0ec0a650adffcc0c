//! Limits of queues against a real PostgreSQL: nobody claims past them, however many claim at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use sqlx::PgPool;
use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_openapi::queue::{Queue, QueueSettings, Rate};
use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{TaskStatus, Work};
use taskmaster_store::claim::{Band, BandFrom, Claimed, ClaimedTask};
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::queues::edit::Changed;
use taskmaster_store::queues::purge::Purged;
use taskmaster_store::{DatabaseArgs, Due, Retry, Store, StoreError, TaskToCreate};
use uuid::Uuid;

const QUEUE: &str = "q";
const WORKER: &str = "w";

struct Fixture {
    server: PrivatePostgres,
    store: Store,
    sql: PgPool,
}

impl Fixture {
    async fn new() -> Self {
        let server = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
        let store = Store::new(server.connect_options(), &DatabaseArgs::default());
        store.migrate().await.unwrap();
        let sql = PgPool::connect_with(server.connect_options()).await.unwrap();
        Self { server, store, sql }
    }

    /// Another process's.
    fn another(&self) -> Store {
        Store::new(self.server.connect_options(), &DatabaseArgs::default())
    }

    async fn set(&self, settings: QueueSettings) -> Queue {
        let revision = self.store.queue(QUEUE).await.unwrap().map_or(0, |queue| queue.revision);
        done(self.store.set_queue(QUEUE, revision, &settings).await.unwrap())
    }

    async fn create(&self, keys: &[Option<&str>]) -> Vec<Uuid> {
        let tasks: Vec<TaskToCreate> = keys.iter().map(|key| task(*key)).collect();
        self.store.create_ids(&tasks).await.unwrap();
        tasks.into_iter().map(|task| task.id).collect()
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.sql).await.unwrap()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.sql).await.unwrap();
    }

    async fn stop(self) {
        self.sql.close().await;
        self.store.close().await;
        self.server.stop().await;
    }
}

fn done(changed: Changed) -> Queue {
    match changed {
        Changed::Done(queue) => *queue,
        other => panic!("{other:?}"),
    }
}

fn task(key: Option<&str>) -> TaskToCreate {
    TaskToCreate {
        id: Uuid::now_v7(),
        work: Work::Command("true".into()),
        due: Due::Now,
        queue: QUEUE.into(),
        priority: 0,
        max_attempts: 3,
        retry: None,
        timeout_seconds: 300,
        tags: Vec::new(),
        callbacks: None,
        flow_key: key.map(str::to_owned),
        requires: Default::default(),
        trace: None,
    }
}

fn rate(count: i64, period_seconds: i64) -> Option<Rate> {
    Some(Rate { count, period_seconds })
}

/// One claim from everything there is, by whatever the store knows of queues.
async fn claim(store: &Store, seats: usize) -> Claimed {
    let lanes = store.lanes().await.unwrap();
    let bands: Vec<BandFrom> = Band::of(lanes.iter().map(|lane| lane.id))
        .map(|band| BandFrom { band, low_water: None, max: usize::MAX })
        .collect();
    store.claim(Uuid::now_v7(), &bands, &[WORKER.to_owned()], &vec![0; seats], 0.0).await.unwrap()
}

/// As a coordinator does it: when something has been set meanwhile, it reads that, and claims again.
async fn claim_knowing(store: &Store, seats: usize) -> Claimed {
    loop {
        let claimed = claim(store, seats).await;
        if !claimed.is_stale {
            return claimed;
        }
        assert!(claimed.tasks.is_empty());
        store.load_queues().await.unwrap();
    }
}

async fn complete(store: &Store, task: &ClaimedTask) {
    let report = StatusReport {
        task_id: task.task_id,
        claim: task.claim,
        status: ReportStatus::Complete,
        started_ms_ago: Some(1),
        ended_ms_ago: Some(0),
        result: None,
        error: None,
        permanent: false,
        retry_after_ms: None,
    };
    let recorded = store.record(&[WorkerReport { worker_id: WORKER.into(), report }]).await.unwrap();
    assert_eq!(recorded.results[0].code, ReportCode::Recorded);
}

/// What the tasks' keys are, in the order of their seats.
async fn keys(store: &Store, claimed: &Claimed) -> Vec<String> {
    let mut tasks = claimed.tasks.clone();
    tasks.sort_by_key(|task| task.seat);
    let mut keys = Vec::new();
    for task in tasks {
        keys.push(store.get(task.task_id).await.unwrap().unwrap().flow_key.unwrap_or_default());
    }
    keys
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_that_claim_at_once_never_have_more_in_flight_than_the_limit_and_leave_nothing() {
    let fixture = Fixture::new().await;
    fixture.set(QueueSettings { concurrency: Some(3), ..Default::default() }).await;
    fixture.create(&[None; 90]).await;
    let (in_flight, most, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let coordinators = (0..6).map(|_| async {
        let store = fixture.another();
        while ended.load(Ordering::SeqCst) < 90 {
            for task in claim_knowing(&store, 5).await.tasks {
                // Counted for a shorter time than it is claimed.
                most.fetch_max(in_flight.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                in_flight.fetch_sub(1, Ordering::SeqCst);
                complete(&store, &task).await;
                ended.fetch_add(1, Ordering::SeqCst);
            }
        }
        store.close().await;
    });
    let all = tokio::time::timeout(Duration::from_secs(60), futures::future::join_all(coordinators)).await;
    assert!(all.is_ok(), "{ended:?} of 90 tasks have ended");
    assert!(most.load(Ordering::SeqCst) <= 3, "{most:?} in flight at once");
    assert_eq!(fixture.count("select count(*) from tasks").await, 0);
    fixture.stop().await;
}

#[tokio::test]
async fn a_place_is_free_once_the_outcome_is_recorded_or_the_task_has_gone_back() {
    let fixture = Fixture::new().await;
    fixture.create(&[None; 9]).await;
    let before = claim(&fixture.store, 1).await;
    assert_eq!(before.tasks.len(), 1, "while there is no limit");
    fixture.set(QueueSettings { concurrency: Some(3), ..Default::default() }).await;
    let first = claim_knowing(&fixture.store, 9).await;
    assert_eq!(first.tasks.len(), 2, "what was in flight before counts");
    // One that begins anew knows as much.
    let another = fixture.another();
    let none = claim_knowing(&another, 9).await;
    assert!(none.tasks.is_empty() && !none.held_back.is_empty());
    complete(&another, &before.tasks[0]).await;
    assert_eq!(claim_knowing(&another, 9).await.tasks.len(), 1);
    let back = TaskClaim { task_id: first.tasks[0].task_id, claim: first.tasks[0].claim };
    another.hand_back(&[back]).await.unwrap();
    assert_eq!(claim_knowing(&another, 9).await.tasks.len(), 1);
    assert!(claim_knowing(&another, 9).await.tasks.is_empty());
    fixture.set(QueueSettings::default()).await;
    assert_eq!(claim_knowing(&another, 9).await.tasks.len(), 5, "without limits all of the rest");
    another.close().await;
    fixture.stop().await;
}

#[tokio::test]
async fn who_does_not_know_of_a_pause_claims_nothing_at_all() {
    let fixture = Fixture::new().await;
    fixture.create(&[None, None]).await;
    let another = fixture.another();
    another.load_queues().await.unwrap();
    assert_eq!(claim(&another, 1).await.tasks.len(), 1);
    let paused = done(fixture.store.pause_queue(QUEUE, Some("maintenance")).await.unwrap());
    assert_eq!((paused.paused, paused.pause_reason.as_deref()), (true, Some("maintenance")));
    let stale = claim(&another, 1).await;
    assert!(stale.is_stale && stale.tasks.is_empty());
    assert!(claim_knowing(&another, 1).await.tasks.is_empty());
    assert!(!done(fixture.store.resume_queue(QUEUE).await.unwrap()).paused);
    assert_eq!(claim_knowing(&another, 1).await.tasks.len(), 1);
    another.close().await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_rate_is_a_bucket_that_fills_by_the_databases_clock() {
    let fixture = Fixture::new().await;
    fixture.set(QueueSettings { rate: rate(6, 3_600), ..Default::default() }).await;
    fixture.create(&[None; 20]).await;
    assert_eq!(claim_knowing(&fixture.store, 4).await.tasks.len(), 4);
    let rest = claim_knowing(&fixture.store, 4).await;
    assert_eq!((rest.tasks.len(), rest.held_back.len()), (2, 1));
    assert!(rest.held_back[0].ms >= 10_000.0, "the next token is ten minutes away: {rest:?}");
    fixture.run("update queue_flows set at = at - interval '25 minutes'").await;
    // Another process takes the tokens that there are, and no more.
    let another = fixture.another();
    assert_eq!(claim_knowing(&another, 9).await.tasks.len(), 2);
    assert!(claim_knowing(&fixture.store, 9).await.tasks.is_empty());
    fixture.run("update queue_flows set at = at - interval '2 days'").await;
    assert_eq!(claim_knowing(&another, 20).await.tasks.len(), 6, "no more than the bucket holds");
    assert_eq!(another.trim_queue_flows().await.unwrap(), 0);
    fixture.run("update queue_flows set at = at - interval '2 days'").await;
    assert_eq!(another.trim_queue_flows().await.unwrap(), 1, "what is full need not be kept");
    another.close().await;
    fixture.stop().await;
}

#[tokio::test]
async fn each_key_has_its_own_limits_and_keys_take_turns() {
    let fixture = Fixture::new().await;
    let limits = QueueSettings { concurrency: Some(4), concurrency_by_key: Some(2), ..Default::default() };
    fixture.set(limits.clone()).await;
    let many: Vec<Option<&str>> = std::iter::repeat_n(Some("many"), 50).chain([Some("one")]).collect();
    fixture.create(&many).await;
    let first = claim_knowing(&fixture.store, 9).await;
    let mut of = keys(&fixture.store, &first).await;
    of.sort();
    assert_eq!(of, ["many", "many", "one"], "two of a key at most");
    fixture.create(&[None, Some("two")]).await;
    let second = claim_knowing(&fixture.store, 9).await;
    assert_eq!(second.tasks.len(), 1, "four in all");
    for task in first.tasks.iter().chain(&second.tasks) {
        complete(&fixture.store, task).await;
    }
    // One place at a time goes round.
    fixture.set(QueueSettings { concurrency: Some(1), ..limits }).await;
    fixture.create(&[Some("two"), Some("three"), Some("three")]).await;
    let mut order = Vec::new();
    for _ in 0..4 {
        let claimed = claim_knowing(&fixture.store, 9).await;
        order.extend(keys(&fixture.store, &claimed).await);
        complete(&fixture.store, &claimed.tasks[0]).await;
    }
    order.sort();
    order.dedup();
    assert!(order.len() >= 3, "nobody waits for the many: {order:?}");
    fixture.stop().await;
}

#[tokio::test]
async fn each_key_has_a_rate_of_its_own() {
    let fixture = Fixture::new().await;
    fixture.set(QueueSettings { rate_by_key: rate(2, 3_600), ..Default::default() }).await;
    fixture.create(&[Some("a"), Some("a"), Some("a"), Some("b"), None, None, None]).await;
    let claimed = claim_knowing(&fixture.store, 9).await;
    let mut of = keys(&fixture.store, &claimed).await;
    of.sort();
    assert_eq!(of, ["", "", "", "a", "a", "b"], "what has no key has no limit by key");
    fixture.create(&[Some("b"), Some("b")]).await;
    assert_eq!(keys(&fixture.store, &claim_knowing(&fixture.store, 9).await).await, ["b"]);
    fixture.stop().await;
}

#[tokio::test]
async fn lanes_of_keys_whose_tasks_have_ended_go_to_other_keys_and_a_retry_finds_its_own() {
    let fixture = Fixture::new().await;
    fixture.set(QueueSettings { concurrency_by_key: Some(1), ..Default::default() }).await;
    let mut first = None;
    for round in 0..4 {
        let names: Vec<String> = (0..50).map(|i| format!("{round}-{i}")).collect();
        let ids = fixture.create(&names.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>()).await;
        first.get_or_insert(ids[0]);
        let purged = fixture.store.purge_queue(QUEUE, None, 1_000, false).await.unwrap();
        assert_eq!(purged, Some(Purged { matched: 50, cancelled: 50, more: false }));
    }
    let lanes = fixture.count("select count(*) from lanes where flow <> ''").await;
    assert!((50..=114).contains(&lanes), "{lanes} lanes for 200 keys, of which 50 had tasks at once");
    let first = first.unwrap();
    let Retry::Queued(again) = fixture.store.retry(first).await.unwrap() else { panic!("it was cancelled") };
    assert_eq!((again.flow_key.as_deref(), again.queue.as_str()), (Some("0-0"), QUEUE));
    let in_its_lane = "select count(*) from tasks t join lanes l on l.id = t.lane where l.flow = t.flow_key";
    assert_eq!(fixture.count(in_its_lane).await, 1);
    fixture.stop().await;
}

#[tokio::test]
async fn no_more_keys_than_allowed_have_tasks_at_once_and_neighbours_are_stored() {
    let fixture = Fixture::new().await;
    fixture.set(QueueSettings { concurrency_by_key: Some(1), ..Default::default() }).await;
    let names: Vec<String> = (0..1_000).map(|i| i.to_string()).collect();
    fixture.create(&names.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>()).await;
    let one_more = fixture.store.create(&[task(Some("one more"))]).await;
    assert!(matches!(one_more, Err(StoreError::TooManyFlowKeys)), "{one_more:?}");
    fixture.create(&[Some("17"), None]).await;
    assert_eq!(claim_knowing(&fixture.store, 2_000).await.tasks.len(), 1_001, "one of each key, and the one without");
    assert_eq!(fixture.store.purge_queue(QUEUE, None, 1_000, false).await.unwrap().unwrap().cancelled, 1);
    fixture.stop().await;
}

#[tokio::test]
async fn a_purge_cancels_what_waits_and_leaves_what_workers_have() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.purge_queue(QUEUE, None, 10, true).await.unwrap(), None, "no such queue");
    let ids = fixture.create(&[None; 12]).await;
    let held = claim(&fixture.store, 2).await.tasks;
    let look = fixture.store.purge_queue(QUEUE, None, 7, true).await.unwrap().unwrap();
    assert_eq!(look, Purged { matched: 7, cancelled: 0, more: true });
    let long_ago = "2020-01-01T00:00:00Z".parse().unwrap();
    assert_eq!(fixture.store.purge_queue(QUEUE, Some(long_ago), 7, false).await.unwrap(), Some(Purged::default()));
    let purged = fixture.store.purge_queue(QUEUE, None, 7, false).await.unwrap().unwrap();
    assert_eq!(purged, Purged { matched: 7, cancelled: 7, more: true });
    let rest = fixture.store.purge_queue(QUEUE, None, 7, false).await.unwrap().unwrap();
    assert_eq!(rest, Purged { matched: 3, cancelled: 3, more: false });
    for id in ids {
        let is_held = held.iter().any(|task| task.task_id == id);
        let status = fixture.store.get(id).await.unwrap().unwrap().status;
        assert_eq!(status, if is_held { TaskStatus::Picked } else { TaskStatus::Cancelled });
    }
    while fixture.store.advance_events().await.unwrap() {}
    let counts = fixture.store.queue(QUEUE).await.unwrap().unwrap().tasks;
    assert_eq!((counts.queued, counts.picked, counts.cancelled), (0, 2, 10));
    fixture.stop().await;
}

#[tokio::test]
async fn queues_are_listed_by_name_and_changed_only_at_the_revision_that_was_seen() {
    let fixture = Fixture::new().await;
    fixture.create(&[None]).await;
    let set = fixture.set(QueueSettings { concurrency: Some(2), rate: rate(5, 10), ..Default::default() }).await;
    assert!(matches!(fixture.store.set_queue(QUEUE, 0, &set.settings()).await.unwrap(), Changed::WrongRevision));
    done(fixture.store.pause_queue("a", None).await.unwrap());
    let names = async |after: &str| -> Vec<String> {
        fixture.store.queues(after, 10).await.unwrap().into_iter().map(|queue| queue.queue).collect()
    };
    assert_eq!(names("").await, ["a", QUEUE]);
    assert_eq!(names("a").await, [QUEUE]);
    assert_eq!(fixture.store.queue(QUEUE).await.unwrap().unwrap().settings(), set.settings());
    done(fixture.store.reset_queue("a", None).await.unwrap());
    assert_eq!(names("").await, [QUEUE], "a queue that never had a task");
    assert!(matches!(fixture.store.reset_queue("a", None).await.unwrap(), Changed::NotFound));
    let reset = done(fixture.store.reset_queue(QUEUE, Some(set.revision)).await.unwrap());
    assert_eq!((reset.settings(), reset.revision), (QueueSettings::default(), 0));
    // A revision never comes again.
    let again = fixture.set(QueueSettings { concurrency: Some(2), ..Default::default() }).await;
    assert!(again.revision > set.revision);
    fixture.stop().await;
}
