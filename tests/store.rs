//! The store against a real PostgreSQL: who is claimed first, and what the fence lets through.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use sqlx::{ConnectOptions, PgPool};
use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_openapi::attempt::Progress;
use taskmaster_openapi::event::EventType;
use taskmaster_openapi::gateway::TaskFilter;
use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{Completion, ErrorCode, HttpWork, TaskStatus, Work};
use taskmaster_openapi::webhook::{DisabledReason, Webhook};
use taskmaster_store::claim::{Band, BandFrom, ClaimedTask};
use taskmaster_store::detached::{Heard, Word};
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::rescue::RescueLimits;
use taskmaster_store::wakeup::{Channel, Wakeup};
use taskmaster_store::webhooks::filter::Filter;
use taskmaster_store::webhooks::push::{Attempted, Unsent};
use taskmaster_store::webhooks::{Change, Made, WebhookSecret, WebhookSettings};
use taskmaster_store::{DatabaseArgs, Due, Once, OnceKey, Retry, Store, TaskToCreate};
use uuid::Uuid;

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

    async fn create(&self, priority: i16) -> Uuid {
        let task = task(priority);
        self.store.create(std::slice::from_ref(&task)).await.unwrap();
        task.id
    }

    /// Claims up to so many tasks for one worker, from all bands there are.
    async fn claim(&self, worker: &str, tasks: usize) -> Vec<ClaimedTask> {
        let bands = bands(&self.store).await;
        let workers = [worker.to_owned()];
        let mut claimed = self.store.claim(Uuid::now_v7(), &bands, &workers, &vec![0; tasks], 0.0).await.unwrap().tasks;
        claimed.sort_by_key(|task| task.seat);
        claimed
    }

    async fn report(&self, worker: &str, task: &ClaimedTask, status: ReportStatus) -> ReportCode {
        self.report_claim(worker, task.task_id, task.claim, status).await
    }

    async fn report_claim(&self, worker: &str, task_id: Uuid, claim: i64, status: ReportStatus) -> ReportCode {
        let report = StatusReport {
            task_id,
            claim,
            status,
            started_ms_ago: Some(5),
            ended_ms_ago: Some(1),
            result: None,
            error: None,
            permanent: false,
            retry_after_ms: None,
        };
        let report = WorkerReport { worker_id: worker.into(), report };
        self.store.record(&[report]).await.unwrap().results[0].code
    }

    async fn status(&self, id: Uuid) -> TaskStatus {
        self.store.get(id).await.unwrap().unwrap().status
    }

    async fn stop(self) {
        self.sql.close().await;
        self.store.close().await;
        self.server.stop().await;
    }
}

fn task(priority: i16) -> TaskToCreate {
    TaskToCreate {
        id: Uuid::now_v7(),
        work: Work::Command("true".into()),
        due: Due::Now,
        queue: "default".into(),
        requires: Default::default(),
        priority,
        max_attempts: 3,
        retry: None,
        timeout_seconds: 300,
        tags: vec!["t".into()],
        callbacks: None,
        flow_key: None,
        trace: None,
    }
}

#[tokio::test]
async fn higher_priorities_go_first_and_waiting_raises_a_priority_by_one_a_minute() {
    let fixture = Fixture::new().await;
    let (low, high, waited) = (fixture.create(0).await, fixture.create(5).await, fixture.create(1).await);
    let first = fixture.claim("w", 1).await;
    assert_eq!(first[0].task_id, high);
    // 4 minutes and a half make 1 + 4 = 5, as much as the one that came just now: the older goes first.
    let even = fixture.create(5).await;
    sqlx::query("update tasks set run_at = now() - interval '270 seconds' where id = $1")
        .bind(waited)
        .execute(&fixture.sql)
        .await
        .unwrap();
    let order: Vec<Uuid> = fixture.claim("w", 3).await.into_iter().map(|task| task.task_id).collect();
    assert_eq!(order, [waited, even, low]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_claim_looks_only_at_its_bands_and_takes_no_more_than_there_are_seats() {
    let fixture = Fixture::new().await;
    for priority in [0, 0, 0, 7] {
        fixture.create(priority).await;
    }
    let lane = fixture.store.lanes().await.unwrap()[0].id;
    let band = BandFrom { band: Band { lane, priority: 0 }, low_water: None, max: usize::MAX };
    let workers = ["a".to_owned(), "b".to_owned()];
    let claimed = fixture.store.claim(Uuid::now_v7(), &[band], &workers, &[1, 0], 0.0).await.unwrap().tasks;
    assert_eq!(claimed.len(), 2);
    assert!(claimed.iter().all(|task| task.band.priority == 0 && task.attempt == 1));
    let workers: Vec<usize> = claimed.iter().map(|task| task.seat).collect();
    assert!(workers.contains(&0) && workers.contains(&1));
    fixture.stop().await;
}

/// Every band, from the bottom.
async fn bands(store: &Store) -> Vec<BandFrom> {
    let lanes = store.lanes().await.unwrap();
    Band::of(lanes.iter().map(|lane| lane.id)).map(|band| BandFrom { band, low_water: None, max: usize::MAX }).collect()
}

#[tokio::test]
async fn the_backlog_is_what_is_due_and_unclaimed_in_every_band_a_second_ago_at_most() {
    let fixture = Fixture::new().await;
    let due = async |expected: i64| {
        until("the backlog is as it should be", async || {
            let backlog = fixture.store.stats().await.unwrap().backlog;
            (backlog.due == expected && !backlog.due_is_lower_bound).then_some(backlog.oldest_due_seconds)
        })
        .await
    };
    assert_eq!(due(0).await, 0.0);
    fixture.create(0).await;
    fixture.create(9).await;
    let later = TaskToCreate { due: Due::After(Duration::from_secs(60)), ..task(5) };
    fixture.store.create(&[later]).await.unwrap();
    assert!(due(2).await > 0.0);
    let claimed = fixture.claim("w", 1).await;
    assert_eq!(claimed.len(), 1);
    due(1).await;
    // Handed back it is due again, behind where the last look began.
    let claim = TaskClaim { task_id: claimed[0].task_id, claim: claimed[0].claim };
    fixture.store.hand_back(&[claim]).await.unwrap();
    due(2).await;
    assert_eq!(fixture.claim("w", 5).await.len(), 2);
    due(0).await;
    fixture.create(3).await;
    due(1).await;
    fixture.stop().await;
}

#[tokio::test]
async fn what_was_claimed_ahead_of_its_time_and_handed_back_keeps_its_time() {
    let fixture = Fixture::new().await;
    let later = TaskToCreate { due: Due::After(Duration::from_secs(30)), ..task(0) };
    let created = fixture.store.create(std::slice::from_ref(&later)).await.unwrap().remove(0);
    let bands = bands(&fixture.store).await;
    let claimed = fixture.store.claim(Uuid::now_v7(), &bands, &["w".to_owned()], &[0], 60_000.0).await.unwrap().tasks;
    let claim = TaskClaim { task_id: claimed[0].task_id, claim: claimed[0].claim };
    assert_eq!(fixture.store.hand_back(&[claim]).await.unwrap(), 1);
    let task = fixture.store.get(later.id).await.unwrap().unwrap();
    assert_eq!((task.status, task.run_at), (TaskStatus::Queued, created.run_at));
    fixture.stop().await;
}

#[tokio::test]
async fn concurrent_claims_never_take_one_task_twice() {
    let fixture = Fixture::new().await;
    let tasks: Vec<TaskToCreate> = (0..2_000).map(|_| task(0)).collect();
    fixture.store.create_ids(&tasks).await.unwrap();
    let claimers = (0..8).map(|i| {
        let fixture = &fixture;
        async move {
            let mut taken = Vec::new();
            loop {
                let claimed = fixture.claim(&format!("w{i}"), 37).await;
                if claimed.is_empty() {
                    return taken;
                }
                taken.extend(claimed.into_iter().map(|task| task.task_id));
            }
        }
    });
    let mut taken: Vec<Uuid> = futures::future::join_all(claimers).await.into_iter().flatten().collect();
    // A claim that came back empty may have met only rows that others held: what is left is there still.
    taken.extend(fixture.claim("last", 2_000).await.into_iter().map(|task| task.task_id));
    assert_eq!(taken.len(), 2_000);
    taken.sort_unstable();
    taken.dedup();
    assert_eq!(taken.len(), 2_000);
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_detached_is_its_targets_and_neither_lost_nor_swept() {
    let fixture = Fixture::new().await;
    let http = HttpWork { url: "http://127.0.0.1:9/".into(), completion: Completion::Callback, ..HttpWork::default() };
    let created = TaskToCreate { work: Work::Http(http), timeout_seconds: 3, ..task(0) };
    fixture.store.create(std::slice::from_ref(&created)).await.unwrap();
    let claimed = fixture.claim("w", 1).await.remove(0);
    let claim = TaskClaim { task_id: claimed.task_id, claim: claimed.claim };
    assert_eq!(fixture.report("w", &claimed, ReportStatus::Detached).await, ReportCode::Recorded);
    assert_eq!(fixture.report("w", &claimed, ReportStatus::Detached).await, ReportCode::AlreadyRecorded);
    assert_eq!(fixture.report("liar", &claimed, ReportStatus::Detached).await, ReportCode::NotYourTask);
    // Its worker does not hold it, and has never been there.
    assert_eq!(fixture.store.lose(&[claim]).await.unwrap(), 0);
    let limits = RescueLimits {
        coordinator_lease_seconds: 0.0,
        unstarted_seconds: 0.0,
        timeout_margin_seconds: -300.0,
        claimed_seconds_ago: 0.0,
        of: None,
    };
    assert_eq!(fixture.store.rescue(&limits).await.unwrap(), 0);
    fixture.store.forget_ended_claims(&[claim.claim]).await.unwrap();
    let claims: i64 = sqlx::query_scalar("select count(*) from claims").fetch_one(&fixture.sql).await.unwrap();
    assert_eq!((claims, fixture.store.expire_detached().await.unwrap()), (0, 0));
    let other = TaskClaim { claim: claim.claim + 1, ..claim };
    let running = Word::Running(Progress { percent: Some(50.0), ..Progress::default() });
    assert_eq!(fixture.store.hear(other, running.clone()).await.unwrap(), Heard::Over);
    assert_eq!(fixture.store.hear(claim, running).await.unwrap(), Heard::Recorded);
    assert_eq!(fixture.store.get(created.id).await.unwrap().unwrap().progress.unwrap().percent, Some(50.0));
    sqlx::query("update detached set deadline_at = now(), expires_at = now()").execute(&fixture.sql).await.unwrap();
    assert_eq!(fixture.store.expire_detached().await.unwrap(), 1);
    assert_eq!(fixture.store.expire_detached().await.unwrap(), 0);
    let late = fixture.store.hear(claim, Word::Complete(None)).await.unwrap();
    assert_eq!((late, fixture.status(created.id).await), (Heard::Over, TaskStatus::Queued));

    // A worker that says so of a task that nobody calls back for: it would stay for ever.
    let plain = fixture.create(9).await;
    let claimed = fixture.claim("w", 1).await.remove(0);
    assert_eq!(claimed.task_id, plain);
    assert_eq!(fixture.report("w", &claimed, ReportStatus::Detached).await, ReportCode::Recorded);
    let ended = fixture.store.get(plain).await.unwrap().unwrap();
    assert_eq!(
        (ended.status, ended.attempt, ended.error.unwrap().code),
        (TaskStatus::Queued, 1, ErrorCode::WorkerError)
    );
    fixture.stop().await;
}

#[tokio::test]
async fn a_coordinator_rescues_what_it_has_claimed_and_what_the_dead_have_and_all_when_it_is_asked_to() {
    let fixture = Fixture::new().await;
    let [here, there] = [Uuid::now_v7(), Uuid::now_v7()];
    let limits = |of: Option<Uuid>, coordinator_lease_seconds: f64, unstarted_seconds: f64| RescueLimits {
        coordinator_lease_seconds,
        unstarted_seconds,
        timeout_margin_seconds: 15.0,
        claimed_seconds_ago: 0.0,
        of,
    };
    let lease = 3_600.0;
    for id in [here, there] {
        fixture.store.coordinator_alive(id, "http://127.0.0.1:1").await.unwrap();
    }
    // Claimed for a worker that is not there.
    let claim = async |coordinator: Uuid| {
        fixture.create(5).await;
        let bands = bands(&fixture.store).await;
        assert_eq!(
            fixture.store.claim(coordinator, &bands, &["w".to_owned()], &[0], 0.0).await.unwrap().tasks.len(),
            1
        );
    };
    let rescue = async |of: Option<Uuid>, lease: f64, unstarted: f64| {
        fixture.store.rescue(&limits(of, lease, unstarted)).await.unwrap()
    };
    claim(there).await;
    assert_eq!(rescue(Some(here), lease, 60.0).await, 0, "its own coordinator sees to it");
    assert_eq!(rescue(Some(there), lease, 60.0).await, 1);
    claim(there).await;
    assert_eq!(rescue(None, lease, 60.0).await, 1);
    claim(there).await;
    assert_eq!(rescue(Some(here), 0.0, 60.0).await, 1, "that coordinator is dead");
    claim(there).await;
    assert_eq!(rescue(Some(here), lease, 0.0).await, 1, "that coordinator had its time");
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_put_off_comes_back_later_and_has_used_no_attempt() {
    let fixture = Fixture::new().await;
    let id = fixture.create(0).await;
    let claimed = fixture.claim("w", 1).await.remove(0);
    assert_eq!(fixture.report("w", &claimed, ReportStatus::Started).await, ReportCode::Recorded);
    let report = StatusReport {
        task_id: id,
        claim: claimed.claim,
        status: ReportStatus::Released,
        started_ms_ago: None,
        ended_ms_ago: None,
        result: None,
        error: None,
        permanent: false,
        retry_after_ms: Some(60_000),
    };
    let recorded = fixture.store.record(&[WorkerReport { worker_id: "w".into(), report }]).await.unwrap();
    assert_eq!(recorded.results[0].code, ReportCode::Recorded);
    let task = fixture.store.get(id).await.unwrap().unwrap();
    assert_eq!((task.status, task.attempt), (TaskStatus::Queued, 0));
    assert!((task.run_at - task.created_at).num_seconds() >= 60 && fixture.claim("w", 1).await.is_empty());
    assert!(fixture.store.attempts(id).await.unwrap().unwrap().is_empty());
    fixture.stop().await;
}

#[tokio::test]
async fn reports_that_are_late_repeated_false_or_anothers_change_nothing() {
    let fixture = Fixture::new().await;
    let id = fixture.create(0).await;
    let old = fixture.claim("old", 1).await.remove(0);
    assert_eq!(fixture.report("old", &old, ReportStatus::Started).await, ReportCode::Recorded);
    assert_eq!(fixture.report("old", &old, ReportStatus::Started).await, ReportCode::AlreadyRecorded);

    // The task is taken back, and claimed again.
    let claim = taskmaster_openapi::report::TaskClaim { task_id: id, claim: old.claim };
    assert_eq!(fixture.store.lose(&[claim]).await.unwrap(), 1);
    assert_eq!(fixture.report("old", &old, ReportStatus::Complete).await, ReportCode::StaleClaim);
    let new = fixture.claim("new", 1).await.remove(0);
    assert!(new.claim > old.claim);
    assert_eq!(new.attempt, 1, "a lost worker uses no attempt");

    for status in [ReportStatus::Started, ReportStatus::Complete, ReportStatus::Failed, ReportStatus::Released] {
        assert_eq!(fixture.report("old", &old, status).await, ReportCode::StaleClaim);
        assert_eq!(fixture.report("liar", &new, status).await, ReportCode::NotYourTask);
        assert_eq!(fixture.report_claim("new", id, new.claim + 1, status).await, ReportCode::NotYourTask);
        assert_eq!(fixture.report_claim("new", Uuid::now_v7(), new.claim, status).await, ReportCode::UnknownTask);
        assert_eq!(fixture.status(id).await, TaskStatus::Picked);
    }

    assert_eq!(fixture.report("new", &new, ReportStatus::Complete).await, ReportCode::Recorded);
    for status in [ReportStatus::Complete, ReportStatus::Failed, ReportStatus::Started] {
        assert_eq!(fixture.report("new", &new, status).await, ReportCode::AlreadyRecorded);
    }
    assert_eq!(fixture.report("old", &old, ReportStatus::Failed).await, ReportCode::StaleClaim);
    assert_eq!(fixture.status(id).await, TaskStatus::Complete);
    let attempts = fixture.store.attempts(id).await.unwrap().unwrap();
    let statuses: Vec<TaskStatus> = attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [TaskStatus::Failed, TaskStatus::Complete]);
    fixture.stop().await;
}

#[tokio::test]
async fn a_key_creates_its_tasks_once_however_many_ask_at_once() {
    let fixture = Fixture::new().await;
    let key = |hash: u8| OnceKey {
        principal: "p".into(),
        key: "k".into(),
        payload_hash: vec![hash],
        kept: std::time::Duration::from_secs(60),
    };
    let asked = (0..16).map(|_| {
        let (store, key) = (&fixture.store, key(1));
        async move { store.create_once(&[task(0), task(0)], &key).await.unwrap() }
    });
    let answers = futures::future::join_all(asked).await;
    let created: Vec<&Once> = answers.iter().filter(|answer| matches!(answer, Once::Created(_))).collect();
    assert_eq!(created.len(), 1);
    let Once::Created(tasks) = created[0] else { unreachable!() };
    let ids: Vec<Uuid> = tasks.iter().map(|task| task.id).collect();
    for answer in &answers {
        assert!(
            matches!(answer, Once::Created(_) | Once::InFlight) || *answer == Once::Replayed(ids.clone()),
            "{answer:?}"
        );
    }
    assert_eq!(fixture.store.create_once(&[task(0)], &key(1)).await.unwrap(), Once::Replayed(ids));
    assert_eq!(fixture.store.create_once(&[task(0)], &key(2)).await.unwrap(), Once::Mismatch);
    let other = OnceKey { principal: "q".into(), ..key(2) };
    assert!(matches!(fixture.store.create_once(&[task(0)], &other).await.unwrap(), Once::Created(_)));
    sqlx::query("update idempotency_keys set expires_at = now() - interval '1 second'")
        .execute(&fixture.sql)
        .await
        .unwrap();
    assert_eq!(fixture.store.trim_idempotency_keys().await.unwrap(), 2);
    assert!(matches!(fixture.store.create_once(&[task(0)], &key(2)).await.unwrap(), Once::Created(_)));
    fixture.stop().await;
}

#[tokio::test]
async fn bulk_changes_touch_what_matches_and_a_dry_run_nothing() {
    let fixture = Fixture::new().await;
    for _ in 0..25 {
        fixture.create(0).await;
    }
    let held = fixture.claim("w", 5).await;
    let filter = TaskFilter { tag: Some("t".into()), ..TaskFilter::default() };
    let looked = fixture.store.cancel_matching(&filter, 10_000, true).await.unwrap();
    assert_eq!((looked.matched, looked.changed, looked.requested, looked.more), (25, 0, 0, false));
    let some = fixture.store.cancel_matching(&filter, 10, false).await.unwrap();
    assert!(some.matched == 10 && some.more);
    let rest = fixture.store.cancel_matching(&filter, 10_000, false).await.unwrap();
    assert_eq!(some.changed + rest.changed, 20);
    assert_eq!(fixture.status(held[0].task_id).await, TaskStatus::Picked);
    // The worker lets go: the cancel is carried out.
    for task in &held {
        assert_eq!(fixture.report("w", task, ReportStatus::Released).await, ReportCode::Recorded);
        assert_eq!(fixture.status(task.task_id).await, TaskStatus::Cancelled);
    }
    let again = fixture.store.retry_matching(&filter, 10_000, false).await.unwrap();
    assert_eq!((again.matched, again.changed), (25, 25));
    let id = held[0].task_id;
    assert!(
        matches!(fixture.store.retry(id).await.unwrap(), Retry::WrongState(task) if task.status == TaskStatus::Queued)
    );
    let counts = fixture.store.stats().await.unwrap().tasks;
    assert_eq!((counts.queued, counts.picked, counts.started, counts.cancelled), (25, 0, 0, 0));
    fixture.stop().await;
}

#[tokio::test]
async fn whoever_reads_a_log_that_was_emptied_is_told_what_it_missed_and_misses_nothing_new() {
    let fixture = Fixture::new().await;
    let store = &fixture.store;
    for _ in 0..10 {
        let head = store.events_head().await.unwrap();
        store.trim_events(0.0).await.unwrap();
        let behind = store.events_after(0, 500).await.unwrap();
        assert_eq!((behind.events.len(), behind.begins_after), (0, head));

        // Read again and again while the next event is moved to the log.
        let id = fixture.create(0).await;
        let read = async {
            loop {
                let page = store.events_after(head, 500).await.unwrap();
                assert_eq!(page.begins_after, head, "{page:?}");
                if let [event] = &page.events[..] {
                    assert_eq!((event.id, event.task_id), (head + 1, Some(id)));
                    return;
                }
            }
        };
        let move_it = async {
            tokio::task::yield_now().await;
            store.advance_events().await.unwrap();
        };
        tokio::join!(read, move_it);
    }
    fixture.stop().await;
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = std::time::Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed().as_secs() < 60, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_has_become_a_standby_is_not_even_read_from_until_it_is_promoted() {
    let fixture = Fixture::new().await;
    let in_recovery = async || {
        let mut connection = fixture.server.connect_options().connect().await.ok()?;
        sqlx::query_scalar::<_, bool>("select pg_is_in_recovery()").fetch_one(&mut connection).await.ok()
    };
    // A server that recovers from the death of one of its processes looks whether it is to be a standby.
    std::fs::write(fixture.server.directory().join("postgres/data/standby.signal"), "").unwrap();
    let process: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&fixture.sql).await.unwrap();
    // SAFETY: a system call on plain numbers.
    assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0);
    until("it is a standby", async || in_recovery().await.filter(|standby| *standby)).await;
    let error = fixture.store.lanes().await.unwrap_err();
    assert!(error.is_temporary(), "{error}");

    let mut connection = fixture.server.connect_options().connect().await.unwrap();
    sqlx::query("select pg_promote()").execute(&mut connection).await.unwrap();
    until("a task is stored again", async || fixture.store.create(&[task(0)]).await.ok()).await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_transaction_whose_beginning_is_given_up_takes_nothing_of_others_with_it() {
    let fixture = Fixture::new().await;
    let one = DatabaseArgs { database_pool_max: 1, ..DatabaseArgs::default() };
    let store = Store::new(fixture.server.connect_options(), &one);
    store.ping().await.unwrap();
    let newest =
        "select pid from pg_stat_activity where application_name = 'taskmaster' order by backend_start desc limit 1";
    let backend: i32 = sqlx::query_scalar(newest).fetch_one(&fixture.sql).await.unwrap();
    // SAFETY: a system call on plain numbers.
    let signal = |signal| assert_eq!(unsafe { libc::kill(backend, signal) }, 0);
    signal(libc::SIGSTOP);
    let claim = TaskClaim { task_id: Uuid::now_v7(), claim: 1 };
    let given_up = tokio::time::timeout(Duration::from_millis(100), store.hand_back(&[claim])).await;
    assert!(given_up.is_err());
    signal(libc::SIGCONT);
    let created = task(0);
    store.create(std::slice::from_ref(&created)).await.unwrap();
    assert!(fixture.store.get(created.id).await.unwrap().is_some(), "it was answered before it was committed");
    store.close().await;
    fixture.stop().await;
}

#[tokio::test]
async fn a_pool_has_no_more_connections_than_it_may_and_all_who_ask_have_their_turn() {
    let fixture = Fixture::new().await;
    let sessions = "select pid from pg_stat_activity where application_name = 'taskmaster'";
    let before: Vec<i32> = sqlx::query_scalar(sessions).fetch_all(&fixture.sql).await.unwrap();
    let open = async || {
        let now: Vec<i32> = sqlx::query_scalar(sessions).fetch_all(&fixture.sql).await.unwrap();
        now.iter().filter(|pid| !before.contains(pid)).count()
    };
    let two = DatabaseArgs { database_pool_max: 2, ..DatabaseArgs::default() };
    let store = Store::new(fixture.server.connect_options(), &two);
    let created = task(0);
    store.create(std::slice::from_ref(&created)).await.unwrap();
    let ask = async || {
        let asked = (0..50).map(|_| store.get(created.id));
        assert!(futures::future::join_all(asked).await.iter().all(|task| task.as_ref().unwrap().is_some()));
    };
    ask().await;
    // Both connections are kept warm by now: a listener, and what needs a transaction, find one nevertheless.
    let mut listener = store.listen(&[Channel::Due]);
    assert_eq!(listener.recv().await.unwrap(), Wakeup::Connected);
    ask().await;
    let claim = TaskClaim { task_id: Uuid::now_v7(), claim: 1 };
    tokio::join!(ask(), async { store.hand_back(&[claim]).await.unwrap() }, ask());
    assert_eq!(open().await, 2);
    drop(listener);
    store.close().await;
    until("its connections are closed", async || (open().await == 0).then_some(())).await;
    fixture.stop().await;
}

/// Those that notify cannot: each holds a lock of the whole server until it is on the disk.
#[tokio::test]
async fn transactions_that_create_at_the_same_time_share_what_is_written_to_the_disk() {
    const CALLERS: usize = 16;
    const EACH: usize = 40;
    let fixture = Fixture::new().await;
    fixture.create(0).await;
    sqlx::query("select pg_stat_reset_shared('wal')").execute(&fixture.sql).await.unwrap();
    let store = Store::new(fixture.server.connect_options(), &DatabaseArgs::default());
    let create = async || {
        for _ in 0..EACH {
            store.create(&[task(0)]).await.unwrap();
        }
    };
    futures::future::join_all((0..CALLERS).map(|_| create())).await;
    store.close().await;
    fixture.store.close().await;
    // What a connection has done is counted by the time it is gone.
    let open = "select count(*) from pg_stat_activity where application_name = 'taskmaster'";
    let is_gone =
        async || sqlx::query_scalar::<_, i64>(open).fetch_one(&fixture.sql).await.is_ok_and(|n| n == 0).then_some(());
    until("the connections are closed", is_gone).await;
    let syncs: i64 = sqlx::query_scalar("select wal_sync from pg_stat_wal").fetch_one(&fixture.sql).await.unwrap();
    assert!(syncs > 0 && syncs < (CALLERS * EACH * 3 / 4) as i64, "{syncs} for {} transactions", CALLERS * EACH);
    fixture.stop().await;
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_while_it_was_idle_makes_room_for_a_new_one() {
    let fixture = Fixture::new().await;
    let one = DatabaseArgs { database_pool_max: 1, database_connect_seconds: 1, ..DatabaseArgs::default() };
    let store = Store::new(fixture.server.connect_options(), &one);
    until("it is connected", async || store.ping().await.ok()).await;
    let newest =
        "select pid from pg_stat_activity where application_name = 'taskmaster' order by backend_start desc limit 1";
    let backend: i32 = sqlx::query_scalar(newest).fetch_one(&fixture.sql).await.unwrap();
    // SAFETY: a system call on plain numbers.
    let signal = |signal| assert_eq!(unsafe { libc::kill(backend, signal) }, 0);
    signal(libc::SIGSTOP);
    // Idle for longer than a connection is trusted without asking.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(store.ping().await.is_err());
    until("it is connected again", async || store.ping().await.ok()).await;
    signal(libc::SIGCONT);
    store.close().await;
    fixture.stop().await;
}

/// A webhook that wants to hear of every task that is cancelled.
async fn webhook(store: &Store) -> Webhook {
    let filter = Filter { events: vec![EventType::TaskCancelled], queues: Vec::new(), tags: Vec::new(), only: None };
    let settings = WebhookSettings {
        url: "http://127.0.0.1:9/".into(),
        description: None,
        filter,
        headers: Default::default(),
        max_attempts: 3,
        retry: None,
        timeout_seconds: 20,
        enabled: true,
    };
    match store.create_webhook(Uuid::now_v7(), &settings, &WebhookSecret::random(), None).await.unwrap() {
        Made::Made(webhook) => *webhook,
        other => panic!("{other:?}"),
    }
}

async fn cancelled(store: &Store, count: usize) -> Vec<Uuid> {
    let tasks: Vec<TaskToCreate> = (0..count).map(|_| task(0)).collect();
    store.create_ids(&tasks).await.unwrap();
    for task in &tasks {
        store.cancel(task.id).await.unwrap();
    }
    while store.advance_events().await.unwrap() {}
    tasks.into_iter().map(|task| task.id).collect()
}

#[tokio::test]
async fn however_many_drive_each_event_is_made_one_delivery_and_a_log_that_was_dropped_is_told_of() {
    let f = Fixture::new().await;
    assert!(!f.store.drive_webhooks().await.unwrap().subscribed);
    cancelled(&f.store, 3).await;
    let hook = webhook(&f.store).await;
    let ids = cancelled(&f.store, 300).await;
    let drive = async |store: &Store| {
        while store.drive_webhooks().await.unwrap().more {}
        store.drive_webhooks().await.unwrap();
    };
    let stores: Vec<Store> = (0..3).map(|_| Store::new(f.server.connect_options(), &DatabaseArgs::default())).collect();
    tokio::join!(drive(&stores[0]), drive(&stores[1]), drive(&stores[2]));
    drive(&f.store).await;
    let number = async |sql: &'static str| sqlx::query_scalar::<_, i64>(sql).fetch_one(&f.sql).await.unwrap();
    let of = "select count(distinct task_id) from webhook_deliveries";
    assert_eq!(
        (number(of).await, number("select count(*) from webhook_deliveries").await),
        (300, 300),
        "of {}",
        ids.len()
    );
    assert_eq!(number("select count(*) from tasks where lane < 0").await, 300);
    assert_eq!(
        number("select count(*) from events where task_ids && (select array_agg(id) from webhook_deliveries)").await,
        0
    );
    assert_eq!(f.store.stats().await.unwrap().tasks.queued, 0);

    // What is not looked at yet is not dropped with the rest; what is dropped all the same is told of.
    cancelled(&f.store, 1).await;
    f.store.trim_events(0.0).await.unwrap();
    assert!(number("select count(*) from events").await > 0);
    sqlx::query("update events set at = now() - interval '8 days'").execute(&f.sql).await.unwrap();
    f.store.trim_events(0.0).await.unwrap();
    assert_eq!(number("select count(*) from events").await, 0);
    drive(&f.store).await;
    assert!(f.store.webhook(hook.id).await.unwrap().unwrap().figures.missed_events_at.is_some());
    let after = cancelled(&f.store, 1).await;
    drive(&f.store).await;
    assert_eq!(number("select count(*) from webhook_deliveries").await, 301, "it goes on: {after:?}");
    for store in stores {
        store.close().await;
    }
    f.stop().await;
}

#[tokio::test]
async fn a_delivery_is_signed_for_where_the_webhook_leads_now_and_failures_of_days_disable_it() {
    let f = Fixture::new().await;
    let hook = webhook(&f.store).await;
    cancelled(&f.store, 1).await;
    f.store.drive_webhooks().await.unwrap();
    let [claimed] = f.claim("w", 5).await.try_into().unwrap();
    let Work::Http(work) = claimed.work.clone() else { panic!("an HTTP request") };
    let seal = async || {
        let mut sealed = f.store.seal(vec![(claimed.task_id, work.clone())]).await.unwrap();
        sealed.remove(&claimed.task_id).unwrap()
    };
    let sealed: HttpWork = seal().await.unwrap();
    assert_eq!(sealed.headers["webhook-id"], format!("msg_{}_{}", hook.id.simple(), 2));
    assert!(sealed.headers["webhook-signature"].starts_with("v1,"));
    f.store.change_webhook(hook.id, Some(&[1]), |settings| settings.url = "http://127.0.0.1:10/".into()).await.unwrap();
    assert_eq!(seal().await.unwrap().url, "http://127.0.0.1:10/");
    assert_eq!(f.store.change_webhook(hook.id, Some(&[1]), |_| {}).await.unwrap(), Change::Conflict);

    let failed = [Attempted { id: claimed.task_id, delivered: false, gone: false }];
    assert_eq!(f.store.note_deliveries(&failed).await.unwrap(), []);
    let age = "update webhooks set failing_since = now() - interval '6 days'";
    sqlx::query(age).execute(&f.sql).await.unwrap();
    let well = [Attempted { delivered: true, ..failed[0] }];
    assert_eq!(f.store.note_deliveries(&well).await.unwrap(), []);
    assert_eq!(f.store.note_deliveries(&failed).await.unwrap(), [], "it has only begun to fail again");
    sqlx::query(age).execute(&f.sql).await.unwrap();
    assert_eq!(f.store.note_deliveries(&failed).await.unwrap(), [(hook.id, DisabledReason::Failing)]);
    assert_eq!(f.store.note_deliveries(&failed).await.unwrap(), [], "once");
    assert_eq!(seal().await, Err(Unsent::Disabled));
    f.store.advance_events().await.unwrap();
    let last = f.store.events_after(0, 100).await.unwrap().events.pop().unwrap();
    assert_eq!((last.event_type, last.webhook_id), (EventType::WebhookDisabled, Some(hook.id)));
    assert!(f.store.delete_webhook(hook.id).await.unwrap());
    assert_eq!(seal().await, Err(Unsent::Deleted));
    // Its lane is handed on.
    webhook(&f.store).await;
    let lanes: i64 =
        sqlx::query_scalar("select count(*) from lanes where queue = '$webhooks'").fetch_one(&f.sql).await.unwrap();
    assert_eq!(lanes, 1);
    f.stop().await;
}
