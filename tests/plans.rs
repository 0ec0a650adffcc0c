//! What each statement touches: rows in proportion to what it is about, whatever else is in the database, and whatever the
//! planner believes of it.
//!
//! Counted are the rows and index entries that PostgreSQL itself says it has read (`pg_stat_user_tables`, `pg_stat_user_indexes`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use sqlx::PgPool;
use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_openapi::gateway::TaskFilter;
use taskmaster_openapi::queue::QueueSettings;
use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskError, TaskStatus, Work};
use taskmaster_store::claim::{Band, BandFrom, ClaimedTask, Mark};
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::queues::edit::Changed;
use taskmaster_store::rescue::RescueLimits;
use taskmaster_store::schedules::fire::Untended;
use taskmaster_store::{DatabaseArgs, Due, Store, TaskToCreate};
use uuid::Uuid;

/// Tasks of each step.
const BATCH: usize = 100;
/// Rows and index entries that a step may read: so many a task, and so many besides (bands, lanes, counters, bounded scans).
const PER_TASK: i64 = 12;
const BESIDES: i64 = 600;
/// After so many times a statement has a plan that is kept (five on a connection, of which a store has several).
const PLANNED_FOR_GOOD: usize = 20;
/// Rows of a bounded scan of a list (see the store's `read`).
const LISTED: i64 = 25_000;
const WORKER: &str = "worker";

struct Fixture {
    server: PrivatePostgres,
    sql: PgPool,
}

impl Fixture {
    async fn new() -> Self {
        let server = PrivatePostgres::start(&Options::ephemeral()).await.unwrap();
        let fixture = Self { sql: PgPool::connect_with(server.connect_options()).await.unwrap(), server };
        let store = fixture.store();
        store.migrate().await.unwrap();
        // One of each queue, so that its lanes are there.
        for queue in QUEUES {
            store.create_ids(&[task(queue, 0, Due::After(HOUR))]).await.unwrap();
        }
        store.close().await;
        fixture
    }

    fn store(&self) -> Store {
        Store::new(self.server.connect_options(), &DatabaseArgs::default())
    }

    async fn run(&self, sql: &'static str) {
        let mut connection = self.sql.acquire().await.unwrap();
        sqlx::raw_sql(sql).execute(&mut *connection).await.unwrap();
        // What this has read is told at once, and not while something else is counted.
        sqlx::query("select pg_stat_force_next_flush()").execute(&mut *connection).await.unwrap();
    }

    /// Rows that were read so far, by whoever has closed its connection since.
    async fn read(&self) -> i64 {
        let sql = "select (select coalesce(sum(seq_tup_read), 0) from pg_stat_user_tables)::bigint
                        + (select coalesce(sum(idx_tup_read), 0) from pg_stat_user_indexes)::bigint";
        sqlx::query_scalar(sql).fetch_one(&self.sql).await.unwrap()
    }

    /// Does something with a store of its own, and fails when that reads more than so many rows.
    async fn within<T>(&self, rows: i64, what: &str, step: impl AsyncFnOnce(&Store) -> T) -> T {
        let before = self.read().await;
        let store = self.store();
        let done = step(&store).await;
        // Servers tell their counts when a connection ends; the server's process may take a moment to end after it.
        store.close().await;
        let mut read = self.read().await - before;
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = self.read().await - before;
            if now == read && self.alone().await {
                break;
            }
            read = now;
        }
        assert!(read <= rows, "{what} read {read} rows, more than {rows}; so far: {}", self.most_read().await);
        done
    }

    /// Blocks of the indexes of tasks that were looked at so far. What a walk over an index passes over counts as nothing read.
    async fn blocks(&self) -> i64 {
        let sql =
            "select sum(idx_blks_read + idx_blks_hit)::bigint from pg_statio_user_indexes where relname = 'tasks'";
        sqlx::query_scalar(sql).fetch_one(&self.sql).await.unwrap()
    }

    /// The indexes and tables of which most was read.
    async fn most_read(&self) -> String {
        let sql = "select string_agg(name || ' ' || read, ', ')
                     from (select * from (select indexrelname as name, idx_tup_read as read from pg_stat_user_indexes
                                          union all select relname, seq_tup_read from pg_stat_user_tables) each
                            where read > 0 order by read desc limit 5) most";
        sqlx::query_scalar(sql).fetch_one(&self.sql).await.unwrap()
    }

    /// Whether no store is connected.
    async fn alone(&self) -> bool {
        let sql = "select count(*) from pg_stat_activity where application_name = 'taskmaster'";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&self.sql).await.unwrap() == 0
    }

    async fn stop(self) {
        self.sql.close().await;
        self.server.stop().await;
    }
}

const QUEUES: [&str; 3] = ["default", "mail", "video"];
const HOUR: Duration = Duration::from_secs(3_600);

fn task(queue: &str, priority: i16, due: Due) -> TaskToCreate {
    TaskToCreate {
        id: Uuid::now_v7(),
        work: Work::Command("true".into()),
        due,
        queue: queue.into(),
        requires: Default::default(),
        priority,
        max_attempts: 3,
        retry: None,
        timeout_seconds: 300,
        tags: Vec::new(),
        callbacks: None,
        flow_key: None,
        trace: None,
    }
}

fn due_now(tasks: usize) -> Vec<TaskToCreate> {
    (0..tasks).map(|_| task("default", 0, Due::Now)).collect()
}

fn report(claimed: &ClaimedTask, status: ReportStatus) -> WorkerReport {
    let error = TaskError { code: ErrorCode::ExitStatus, message: "1".into() };
    let report = StatusReport {
        task_id: claimed.task_id,
        claim: claimed.claim,
        status,
        started_ms_ago: Some(2),
        ended_ms_ago: Some(1),
        result: None,
        error: (status == ReportStatus::Failed).then_some(error),
        permanent: false,
        retry_after_ms: None,
    };
    WorkerReport { worker_id: WORKER.into(), report }
}

async fn claim(store: &Store, tasks: usize) -> Vec<ClaimedTask> {
    let claimed = claim_at_most(store, tasks).await;
    assert_eq!(claimed.len(), tasks);
    claimed
}

/// What a worker that was given these says it holds.
fn held(claimed: &[ClaimedTask]) -> Vec<TaskClaim> {
    claimed.iter().map(|task| TaskClaim { task_id: task.task_id, claim: task.claim }).collect()
}

/// What becomes of tasks: some are completed, some fail, some go back and are completed then.
async fn live(store: &Store, tasks: usize) {
    store.create_ids(&due_now(3 * tasks)).await.unwrap();
    let first = claim(store, tasks).await;
    record(store, &first, ReportStatus::Started).await;
    record(store, &first, ReportStatus::Complete).await;
    record(store, &claim(store, tasks).await, ReportStatus::Failed).await;
    let back = held(&claim(store, tasks).await);
    assert!(store.to_stop(WORKER, &back).await.unwrap().is_empty());
    store.hand_back(&back).await.unwrap();
    record(store, &claim(store, tasks).await, ReportStatus::Complete).await;
    while store.advance_events().await.unwrap() {}
}

/// One claim from everything there is, by what the store knows of limits.
async fn claim_at_most(store: &Store, seats: usize) -> Vec<ClaimedTask> {
    claim_from(store, seats, None).await
}

async fn claim_from(store: &Store, seats: usize, low_water: Option<Mark>) -> Vec<ClaimedTask> {
    let lanes = store.lanes().await.unwrap();
    let bands: Vec<BandFrom> =
        Band::of(lanes.iter().map(|lane| lane.id)).map(|band| BandFrom { band, low_water, max: usize::MAX }).collect();
    let claimed = store.claim(Uuid::now_v7(), &bands, &[WORKER.to_owned()], &vec![0; seats], 0.0).await.unwrap();
    assert!(!claimed.is_stale);
    claimed.tasks
}

async fn record(store: &Store, claimed: &[ClaimedTask], status: ReportStatus) {
    let reports: Vec<WorkerReport> = claimed.iter().map(|task| report(task, status)).collect();
    let recorded = store.record(&reports).await.unwrap();
    assert!(recorded.results.iter().all(|result| result.code == ReportCode::Recorded));
}

/// The whole life of some tasks, and every question about them, each within its bound.
async fn assert_every_step_reads_little(fixture: &Fixture) {
    let bound = PER_TASK * BATCH as i64 + BESIDES;
    let tasks: Vec<TaskToCreate> = (0..3 * BATCH).map(|i| task(QUEUES[i % 3], (i % 10) as i16, Due::Now)).collect();
    fixture.within(3 * bound, "creating", async |store| store.create_ids(&tasks).await.unwrap()).await;
    let first = fixture.within(bound, "claiming", async |store| claim(store, BATCH).await).await;
    let second = fixture.within(bound, "claiming again", async |store| claim(store, BATCH).await).await;
    let third = fixture.within(bound, "claiming the rest", async |store| claim(store, BATCH).await).await;
    let started = async |store: &Store| record(store, &first, ReportStatus::Started).await;
    fixture.within(bound, "recording starts", started).await;
    let complete = async |store: &Store| record(store, &first, ReportStatus::Complete).await;
    fixture.within(bound, "recording successes", complete).await;
    let failed = async |store: &Store| record(store, &second, ReportStatus::Failed).await;
    fixture.within(bound, "recording failures", failed).await;
    let held = held(&third);
    fixture.within(bound, "comparing", async |store| store.to_stop(WORKER, &held).await.unwrap()).await;
    fixture.within(bound, "handing back", async |store| store.hand_back(&held).await.unwrap()).await;
    let limits = RescueLimits {
        coordinator_lease_seconds: 5.0,
        unstarted_seconds: 60.0,
        timeout_margin_seconds: 15.0,
        claimed_seconds_ago: 0.0,
        of: None,
    };
    fixture.within(3 * bound, "rescuing", async |store| store.rescue(&limits).await.unwrap()).await;
    fixture.within(3 * bound, "sweeping", async |store| store.sweep_claims().await.unwrap()).await;
    fixture.within(BESIDES, "looking for cancels", async |store| store.cancels_in_flight().await.unwrap()).await;
    let ended = first[0].task_id;
    fixture.within(BESIDES, "getting", async |store| store.get(ended).await.unwrap().unwrap()).await;
    fixture.within(BESIDES, "cancelling", async |store| store.cancel(tasks[1].id).await.unwrap()).await;
    let moved = async |store: &Store| while store.advance_events().await.unwrap() {};
    fixture.within(3 * bound, "moving events", moved).await;
    fixture.within(3 * bound, "counting", async |store| store.stats().await.unwrap()).await;
    for filter in filters() {
        let what = format!("listing by {filter:?}");
        fixture.within(LISTED, &what, async |store| store.list(&filter, None, 50).await.unwrap()).await;
    }
}

fn filters() -> Vec<TaskFilter> {
    let all = TaskFilter::default;
    vec![
        all(),
        TaskFilter { status: Some(TaskStatus::Queued), ..all() },
        TaskFilter { status: Some(TaskStatus::Failed), ..all() },
        TaskFilter { queue: Some("video".into()), ..all() },
        TaskFilter { worker_id: Some("nobody".into()), ..all() },
    ]
}

/// Of every queue and priority: tasks of the future, and tasks that have ended, in three months.
const MUCH: &str = "
insert into tasks (id, lane, priority, run_at, created_at, scheduled_at, max_attempts, timeout_seconds, work)
select overlay(overlay(gen_random_uuid()::text placing '7' from 15) placing '01900000-0000' from 1)::uuid, l.id, i % 10, at, now(), at, 3, 300,
       '{\"command\":\"true\"}'
  from lanes l, generate_series(1, 30000) i, lateral (select now() + interval '1 hour' + i * interval '1 second' as at) a;
insert into task_history (id, finished_at, run_at, created_at, scheduled_at, claim, picked_at, started_at, lane, timeout_seconds,
       priority, status, attempt, max_attempts, hand_backs, lost_workers, worker_id, work)
select overlay(overlay(gen_random_uuid()::text placing '7' from 15) placing '01900000-0001' from 1)::uuid, at, at, at, at, i, at, at, l.id, 300,
       i % 10, 3 + (i % 1000 = 0)::int, 1, 3, 0, 0, 'worker', '{\"command\":\"true\"}'
  from lanes l, generate_series(1, 30000) i, lateral (select now() - (i % 60) * interval '12 hours' as at) a;
";

#[tokio::test]
async fn in_an_almost_empty_database_every_step_reads_rows_in_proportion() {
    let fixture = Fixture::new().await;
    assert_every_step_reads_little(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn among_many_future_and_ended_tasks_every_step_reads_no_more() {
    let fixture = Fixture::new().await;
    fixture.run(MUCH).await;
    fixture.run("vacuum analyze tasks; ").await;
    fixture.run("vacuum analyze task_history").await;
    assert_every_step_reads_little(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn with_statistics_of_an_empty_database_every_step_reads_no_more() {
    let fixture = Fixture::new().await;
    fixture.run("alter table tasks set (autovacuum_enabled = off)").await;
    fixture.run("analyze tasks; analyze task_history; analyze claims; analyze event_inbox; analyze attempts").await;
    fixture.run(MUCH).await;
    assert_every_step_reads_little(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn with_statistics_of_a_full_database_that_was_emptied_every_step_reads_no_more() {
    let fixture = Fixture::new().await;
    fixture.run(MUCH).await;
    fixture.run("analyze tasks; analyze task_history").await;
    fixture.run("alter table tasks set (autovacuum_enabled = off)").await;
    fixture.run("truncate tasks, task_history").await;
    assert_every_step_reads_little(&fixture).await;
    fixture.stop().await;
}

#[tokio::test]
async fn what_was_planned_while_there_were_no_tasks_reads_no_more_when_there_are_many() {
    let fixture = Fixture::new().await;
    fixture.run("delete from tasks").await;
    fixture.run("alter table tasks set (autovacuum_enabled = off)").await;
    fixture.run("vacuum analyze tasks").await;
    let bound = 8 * (PER_TASK * BATCH as i64 + BESIDES);
    let planned = async |store: &Store| {
        for _ in 0..PLANNED_FOR_GOOD {
            live(store, 1).await;
        }
        fixture.run(MUCH).await;
        live(store, BATCH).await;
    };
    fixture.within(bound, "what was planned for nothing", planned).await;
    fixture.stop().await;
}

/// Tasks that are due at once, of which a claim takes the first few.
const WAITING: usize = 20_000;

#[tokio::test]
async fn a_claim_that_was_planned_for_an_empty_table_reads_no_more_than_it_takes_when_many_are_due() {
    let fixture = Fixture::new().await;
    fixture.run("alter table tasks set (autovacuum_enabled = off)").await;
    // As it is when everything of a burst has ended: some pages, and no rows.
    let store = fixture.store();
    store.create_ids(&due_now(WAITING)).await.unwrap();
    fixture.run("vacuum analyze tasks").await;
    fixture.run("delete from tasks").await;
    fixture.run("vacuum (analyze, truncate off) tasks").await;
    store.create_ids(&due_now(WAITING)).await.unwrap();
    store.close().await;
    let taken = fixture.within(PER_TASK * BATCH as i64 + BESIDES, "the claim", async |store| claim(store, BATCH).await);
    assert_eq!(taken.await.len(), BATCH);
    fixture.stop().await;
}

#[tokio::test]
async fn a_claim_leaves_each_task_on_its_page_and_in_its_place_in_the_indexes() {
    let fixture = Fixture::new().await;
    let tasks = due_now(10 * BATCH);
    let live = async |store: &Store| {
        store.create_ids(&tasks).await.unwrap();
        claim(store, tasks.len()).await
    };
    fixture.within(2 * PER_TASK * tasks.len() as i64, "creating and claiming", live).await;
    let updated = "select n_tup_upd, n_tup_upd - n_tup_hot_upd from pg_stat_user_tables where relname = 'tasks'";
    let (updated, moved): (i64, i64) = sqlx::query_as(updated).fetch_one(&fixture.sql).await.unwrap();
    assert_eq!(updated, tasks.len() as i64);
    assert!(moved <= updated / 100, "{moved} of {updated} were written to other pages");
    fixture.stop().await;
}

/// Batches of events, and tasks that end, while a transaction is open.
const BATCHES_WHILE_HELD: usize = 300;
const ENDED_WHILE_HELD: usize = 20 * BATCH;
/// Of indexes: two that a task is put into, and some looks at a task, each of a few blocks.
const BLOCKS_PER_TASK: i64 = 60;

#[tokio::test]
async fn a_month_of_history_is_sampled_for_its_statistics_no_more_than_plans_need() {
    let fixture = Fixture::new().await;
    fixture.run("select taskmaster_ensure_partitions(6)").await;
    let sql = "select count(*), count(*) filter (where attstattarget is distinct from 10)
                 from pg_inherits join pg_attribute on attrelid = inhrelid and attnum > 0
                where inhparent in ('task_history'::regclass, 'attempts'::regclass)";
    let (columns, others): (i64, i64) = sqlx::query_as(sql).fetch_one(&fixture.sql).await.unwrap();
    assert!(columns > 0 && others == 0, "{others} of {columns} columns have a sample of another size");
}

#[tokio::test]
async fn while_a_transaction_is_open_what_everybody_reads_does_not_grow() {
    let fixture = Fixture::new().await;
    let mut open = fixture.sql.begin().await.unwrap();
    sqlx::query("select pg_current_xact_id()").execute(&mut *open).await.unwrap();
    let step = async |store: &Store| {
        for _ in 0..BATCHES_WHILE_HELD {
            store.create_ids(&[task("default", 0, Due::Now)]).await.unwrap();
            store.advance_events().await.unwrap();
        }
        for _ in BATCHES_WHILE_HELD / BATCH..ENDED_WHILE_HELD / BATCH {
            let new = due_now(BATCH);
            store.create_ids(&new).await.unwrap();
        }
        for _ in 0..ENDED_WHILE_HELD / BATCH {
            record(store, &claim(store, BATCH).await, ReportStatus::Complete).await;
        }
        store.stats().await.unwrap()
    };
    let stats = fixture.within(i64::MAX, "a life", step).await;
    assert_eq!(stats.tasks.complete as usize, ENDED_WHILE_HELD);
    // As many versions of a row as there were changes are walked over by whoever reads it.
    let changes =
        "select sum(n_tup_upd)::bigint from pg_stat_user_tables where relname in ('event_head', 'task_counts')";
    let changed: i64 = sqlx::query_scalar(changes).fetch_one(&fixture.sql).await.unwrap();
    assert!(changed <= BATCHES_WHILE_HELD as i64 / 10, "{changed} changes");
    let page = async |store: &Store| store.list(&TaskFilter::default(), None, 50).await.unwrap().tasks;
    let page = fixture.within(BESIDES, "a page", page).await;
    assert_eq!(page.len(), 50);
    // The table is believed to be empty, however many rows nothing may remove.
    fixture.run(MUCH).await;
    fixture.run("delete from tasks").await;
    fixture.run("vacuum analyze tasks").await;
    let from = Mark::at(sqlx::query_scalar("select clock_timestamp()").fetch_one(&fixture.sql).await.unwrap());
    let planned = async |store: &Store| {
        for tasks in (0..PLANNED_FOR_GOOD).map(|_| 1).chain([BATCH]) {
            let new = due_now(tasks);
            store.create_ids(&new).await.unwrap();
            let claimed = claim_from(store, tasks, Some(from)).await;
            assert_eq!(claimed.len(), tasks);
            record(store, &claimed, ReportStatus::Complete).await;
        }
    };
    let before = fixture.blocks().await;
    fixture.within(i64::MAX, "what was planned for nothing", planned).await;
    let blocks = fixture.blocks().await - before;
    assert!(blocks <= (PLANNED_FOR_GOOD + BATCH) as i64 * BLOCKS_PER_TASK, "{blocks} blocks of indexes");
    open.rollback().await.unwrap();
    fixture.stop().await;
}

#[tokio::test]
async fn a_claim_that_begins_where_the_last_one_ended_walks_over_nothing_of_the_same_batch() {
    let fixture = Fixture::new().await;
    let tasks = due_now(1_000);
    fixture.within(10_000, "creating", async |store| store.create_ids(&tasks).await.unwrap()).await;
    let claimed = fixture.within(10_000, "claiming most", async |store| claim(store, 900).await).await;
    let mark = |task: &ClaimedTask| Mark { run_at: task.run_at, id: task.task_id };
    let (band, last) = (claimed[0].band, claimed.iter().map(mark).max());
    assert!(claimed.iter().all(|task| Some(task.run_at) == last.map(|last| last.run_at)), "all are due at one moment");
    let from = BandFrom { band, low_water: last, max: usize::MAX };
    let workers = [WORKER.to_owned()];
    let step = async |store: &Store| store.claim(Uuid::now_v7(), &[from], &workers, &[0; 10], 0.0).await.unwrap().tasks;
    let next = fixture.within(100, "claiming on", step).await;
    assert!(next.len() == 10 && next.iter().all(|task| Some(mark(task)) > last));
    fixture.stop().await;
}

/// One claim, by limits that the store has to read first.
async fn claim_within_limits(store: &Store, seats: usize) -> Vec<ClaimedTask> {
    store.load_queues().await.unwrap();
    claim_at_most(store, seats).await
}

/// As many tasks as one claim takes may run at once, and one of each of these keys; ten times as many wait.
const KEYS: usize = 200;
/// Rows and index entries that a claim may read for each key.
const PER_KEY: i64 = 20;

#[tokio::test]
async fn claims_within_limits_read_rows_in_proportion_also_when_nothing_may_be_claimed() {
    let fixture = Fixture::new().await;
    fixture.run(MUCH).await;
    let limits = QueueSettings { concurrency: Some(BATCH as i64), concurrency_by_key: Some(1), ..Default::default() };
    let keyed = |i: usize| TaskToCreate { flow_key: Some(format!("key-{}", i % KEYS)), ..task("mail", 0, Due::Now) };
    let tasks: Vec<TaskToCreate> = (0..10 * KEYS).map(keyed).collect();
    let store = fixture.store();
    assert!(matches!(store.set_queue("mail", 0, &limits).await.unwrap(), Changed::Done(_)));
    store.load_queues().await.unwrap();
    for tasks in tasks.chunks(500) {
        store.create_ids(tasks).await.unwrap();
    }
    store.close().await;
    // Each key waits by itself, so that a claim looks at each: that is what it reads besides what it takes.
    let bound = PER_TASK * BATCH as i64 + PER_KEY * KEYS as i64 + BESIDES;
    for believed in ["analyze", "delete from pg_statistic where starelid = 'tasks'::regclass"] {
        fixture.run(believed).await;
        let first = fixture.within(bound, "claiming", async |store| claim_within_limits(store, 2 * BATCH).await).await;
        assert_eq!(first.len(), BATCH, "{believed}");
        let more = fixture.within(bound, "claiming more", async |store| claim_within_limits(store, BATCH).await).await;
        assert_eq!(more.len(), 0, "{believed}");
        let complete = async |store: &Store| record(store, &first, ReportStatus::Complete).await;
        fixture.within(bound, "recording", complete).await;
    }
    fixture.stop().await;
}

/// A hundred thousand schedules that are not due, and a hundred that are.
const SCHEDULES: &str = "
insert into schedules (id, cron, time_zone, jitter_seconds, overlap, catch_up, catch_up_window_seconds, lane, timeout_seconds, priority,
                       max_attempts, work, next_fire_at, wake_at)
select gen_random_uuid(), '0 3 * * *', 'UTC', 0, 0, 0, 86400, (select min(id) from lanes), 300, 0, 3, '{\"command\":\"true\"}',
       date_trunc('second', now()) + due, date_trunc('second', now()) + due
  from (select case when i <= 100 then interval '0' else interval '1 hour' + i * interval '1 second' end as due
          from generate_series(1, 100000) i) each";

#[tokio::test]
async fn schedules_that_are_not_due_cost_nothing() {
    let fixture = Fixture::new().await;
    fixture.run(SCHEDULES).await;
    for believed in ["nothing", "vacuum analyze schedules"] {
        if believed != "nothing" {
            fixture.run(believed).await;
            fixture.run("update schedules set next_fire_at = date_trunc('second', now()), wake_at = now() where id in (select id from schedules order by wake_at limit 100)").await;
        }
        let fired = fixture.within(4_000, "firing", async |store| store.fire_schedules().await.unwrap()).await;
        assert_eq!((fired.schedules, fired.more), (100, false), "{believed}");
        let idle = async |store: &Store| {
            assert_eq!(store.fire_schedules().await.unwrap().schedules, 0);
            assert!(store.next_schedule_ms().await.unwrap().unwrap() > 0.0);
            let untended = store.untended_schedules().await.unwrap();
            assert_eq!(untended, Untended { waiting: false, failing: false });
            assert!(!store.start_waiting().await.unwrap() && !store.pause_failing_schedules().await.unwrap());
            assert_eq!(store.rearm_schedules().await.unwrap().schedules, 0);
        };
        fixture.within(500, "having nothing to fire", idle).await;
    }
    let page = async |store: &Store| assert_eq!(store.schedules(None, None, 50).await.unwrap().len(), 50);
    fixture.within(500, "a page of schedules", page).await;
    fixture.stop().await;
}
