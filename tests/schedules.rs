//! Schedules in the store, against a real PostgreSQL: each occurrence once, however many fire; and what the policies do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use sqlx::PgPool;
use taskmaster::postgres::{Options, PrivatePostgres};
use taskmaster_openapi::event::EventType;
use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport};
use taskmaster_openapi::schedule::{CatchUp, Overlap, Run, RunState, RunTrigger, Schedule};
use taskmaster_openapi::task::{TaskStatus, Work};
use taskmaster_store::claim::{Band, BandFrom, ClaimedTask};
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::schedules::edit::{Changed, Made, Refusal};
use taskmaster_store::schedules::runs::{Backfilled, Triggered};
use taskmaster_store::schedules::{Beat, ScheduleToKeep, Timing};
use taskmaster_store::{DatabaseArgs, Due, Known, OnceKey, Store, TaskToCreate};
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

    async fn create(&self, schedule: &ScheduleToKeep) -> Uuid {
        match self.store.create_schedule(Uuid::now_v7(), schedule, 1_000, None).await.unwrap() {
            Made::Created(schedule) => schedule.id,
            other => panic!("{other:?}"),
        }
    }

    async fn schedule(&self, id: Uuid) -> Schedule {
        self.store.schedule(id).await.unwrap().unwrap()
    }

    async fn runs(&self, id: Uuid) -> Vec<Run> {
        self.store.schedule_runs(id, None, 1_000).await.unwrap().unwrap().into_iter().map(|(run, _)| run).collect()
    }

    /// Makes an occurrence, so many seconds from now, the next one.
    async fn next_in(&self, id: Uuid, seconds: f64) {
        sqlx::query(
            "update schedules set next_fire_at = now() + $2 * interval '1 second', wake_at = now() where id = $1",
        )
        .bind(id)
        .bind(seconds)
        .execute(&self.sql)
        .await
        .unwrap();
    }

    /// Fires until nothing is due.
    async fn fire(&self) {
        while self.store.fire_schedules().await.unwrap().more {}
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.sql).await.unwrap()
    }

    /// Ends the tasks that are due, each in this way.
    async fn end_all(&self, status: ReportStatus) {
        let lanes = self.store.lanes().await.unwrap();
        let bands: Vec<BandFrom> = Band::of(lanes.iter().map(|lane| lane.id))
            .map(|band| BandFrom { band, low_water: None, max: usize::MAX })
            .collect();
        let workers = ["w".to_owned()];
        let claimed = self.store.claim(Uuid::now_v7(), &bands, &workers, &[0; 100], 0.0).await.unwrap().tasks;
        assert!(!claimed.is_empty(), "nothing is due");
        for task in claimed {
            assert_eq!(self.report(&task, status).await, ReportCode::Recorded);
        }
    }

    async fn report(&self, task: &ClaimedTask, status: ReportStatus) -> ReportCode {
        let report = StatusReport {
            task_id: task.task_id,
            claim: task.claim,
            status,
            started_ms_ago: Some(5),
            ended_ms_ago: Some(1),
            result: None,
            error: None,
            permanent: true,
            retry_after_ms: None,
        };
        let report = WorkerReport { worker_id: "w".into(), report };
        self.store.record(&[report]).await.unwrap().results[0].code
    }

    /// How many events of each kind there are of a schedule.
    async fn events(&self, id: Uuid) -> Vec<EventType> {
        while self.store.advance_events().await.unwrap() {}
        let events = self.store.events_after(0, 10_000).await.unwrap().events;
        events.into_iter().filter(|event| event.schedule_id == Some(id)).map(|event| event.event_type).collect()
    }

    async fn stop(self) {
        self.sql.close().await;
        self.store.close().await;
        self.server.stop().await;
    }
}

/// Since yesterday: an interval that divides a day has just begun.
fn every(seconds: i32) -> ScheduleToKeep {
    let starts_at = Some(Utc::now().trunc_subsecs(0) - TimeDelta::days(1));
    ScheduleToKeep {
        name: None,
        timing: Timing { beat: Beat::Every(seconds), time_zone: "UTC".into(), starts_at, ends_at: None },
        overlap: Overlap::Allow,
        catch_up: CatchUp::All,
        catch_up_window_seconds: 86_400,
        jitter_seconds: 0,
        pause_after_failures: None,
        task: TaskToCreate {
            id: Uuid::nil(),
            work: Work::Command("true".into()),
            due: Due::Now,
            queue: "default".into(),
            requires: Default::default(),
            priority: 3,
            max_attempts: 2,
            retry: None,
            timeout_seconds: 60,
            tags: vec!["tick".into()],
            callbacks: None,
            flow_key: None,
            trace: None,
        },
    }
}

fn states(runs: &[Run]) -> Vec<RunState> {
    runs.iter().map(|run| run.state).collect()
}

#[tokio::test]
async fn many_that_fire_at_once_fire_every_occurrence_once() {
    let fixture = Fixture::new().await;
    for _ in 0..60 {
        let id = fixture.create(&ScheduleToKeep { jitter_seconds: 2, ..every(1) }).await;
        sqlx::query("update schedules set next_fire_at = date_trunc('second', now()) - interval '150 seconds', wake_at = now() where id = $1")
            .bind(id)
            .execute(&fixture.sql)
            .await
            .unwrap();
    }
    let firers = (0..6).map(|_| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            // What others hold locked, they fire.
            let mut idle = 0;
            while idle < 20 {
                let fired = store.fire_schedules().await.unwrap();
                idle = if fired.schedules == 0 { idle + 1 } else { 0 };
                tokio::task::yield_now().await;
            }
        })
    });
    for firer in firers.collect::<Vec<_>>() {
        firer.await.unwrap();
    }
    let gaps =
        "select count(*) from (select fire_at - lag(fire_at) over (partition by schedule_id order by fire_at) as step
                                       from schedule_runs) steps where step <> interval '1 second'";
    assert_eq!(fixture.number(gaps).await, 0, "an occurrence was passed over");
    let (runs, tasks) = (
        fixture.number("select count(*) from schedule_runs").await,
        fixture.number("select count(*) from tasks").await,
    );
    assert!(runs == tasks && runs >= 60 * 150, "{runs} runs, {tasks} tasks");
    let foreign =
        "select count(*) from tasks t left join schedule_runs r on r.task_id = t.id and r.schedule_id = t.schedule_id
                    where r.run_at is distinct from t.scheduled_at or t.priority <> 3 or t.tags <> '[\"tick\"]'";
    assert_eq!(fixture.number(foreign).await, 0);
    assert_eq!(
        fixture.number("select count(*) from schedules where last_fire_at is null or next_fire_at <= now()").await,
        0
    );
    fixture.stop().await;
}

#[tokio::test]
async fn the_run_before_decides_as_the_policy_says() {
    let fixture = Fixture::new().await;
    let with = |overlap| ScheduleToKeep { overlap, ..every(3_600) };
    let skip = fixture.create(&with(Overlap::Skip)).await;
    for _ in 0..2 {
        fixture.next_in(skip, 0.0).await;
        fixture.fire().await;
    }
    let runs = fixture.runs(skip).await;
    assert_eq!(states(&runs), [RunState::Skipped, RunState::Fired]);
    assert_eq!(runs[0].reason.as_deref(), Some("the run before had not ended"));
    assert_eq!(fixture.events(skip).await, [EventType::ScheduleSkipped]);
    fixture.end_all(ReportStatus::Complete).await;
    fixture.next_in(skip, 600.0).await;
    fixture.store.fire_schedules().await.unwrap();
    assert_eq!(fixture.runs(skip).await.len(), 2, "it is looked at when its time has come, not before");

    let queue = fixture.create(&with(Overlap::QueueOne)).await;
    for _ in 0..3 {
        fixture.next_in(queue, 0.0).await;
        fixture.fire().await;
    }
    assert_eq!(states(&fixture.runs(queue).await), [RunState::Skipped, RunState::Waiting, RunState::Fired]);
    fixture.store.start_waiting().await.unwrap();
    assert_eq!(fixture.number("select count(*) from tasks").await, 1, "the one before has not ended");
    fixture.end_all(ReportStatus::Failed).await;
    fixture.store.start_waiting().await.unwrap();
    let runs = fixture.runs(queue).await;
    assert_eq!(states(&runs), [RunState::Skipped, RunState::Fired, RunState::Fired]);
    let task = fixture.store.get(runs[1].task_id.unwrap()).await.unwrap().unwrap();
    assert_eq!(
        (task.status, task.schedule_id, task.scheduled_at),
        (TaskStatus::Queued, Some(queue), runs[1].occurrence_at)
    );
    fixture.end_all(ReportStatus::Complete).await;

    let cancel = fixture.create(&with(Overlap::CancelOld)).await;
    for _ in 0..2 {
        fixture.next_in(cancel, 0.0).await;
        fixture.fire().await;
    }
    let runs = fixture.runs(cancel).await;
    assert_eq!(states(&runs), [RunState::Fired, RunState::Fired]);
    assert_eq!(runs[0].task_status, Some(TaskStatus::Queued));
    assert_eq!(runs[1].task_status, Some(TaskStatus::Cancelled));
    fixture.stop().await;
}

#[tokio::test]
async fn what_is_too_late_is_missed_with_an_event_and_what_a_fault_has_disturbed_is_armed_again() {
    let fixture = Fixture::new().await;
    let id = fixture.create(&ScheduleToKeep { catch_up: CatchUp::Last, ..every(600) }).await;
    fixture.next_in(id, -7_200.0).await;
    fixture.fire().await;
    let runs = fixture.runs(id).await;
    assert_eq!(states(&runs), [RunState::Fired, RunState::Missed]);
    assert!(runs[1].missed.unwrap() >= 11 && runs[1].missed_until.unwrap() < runs[0].occurrence_at, "{runs:?}");
    assert_eq!(fixture.events(id).await, [EventType::ScheduleMissed]);

    for (disturbed, sql) in [
        ("its next time", "update schedules set next_fire_at = null, wake_at = null"),
        ("its place in the line", "update schedules set wake_at = null"),
    ] {
        let next = fixture.schedule(id).await.next_occurrence_at;
        sqlx::query(sql).execute(&fixture.sql).await.unwrap();
        assert_eq!(fixture.store.fire_schedules().await.unwrap().schedules, 0);
        assert_eq!(fixture.store.rearm_schedules().await.unwrap().schedules, 1, "{disturbed}");
        assert_eq!(fixture.store.rearm_schedules().await.unwrap().schedules, 0, "{disturbed}");
        let armed: Option<DateTime<Utc>> =
            sqlx::query_scalar("select next_fire_at from schedules").fetch_one(&fixture.sql).await.unwrap();
        assert_eq!(armed, next, "{disturbed}");
    }
    // One that has come to its end is not disturbed.
    sqlx::query("update schedules set ends_at = now() - interval '1 day', next_fire_at = null, wake_at = null")
        .execute(&fixture.sql)
        .await
        .unwrap();
    fixture.store.rearm_schedules().await.unwrap();
    assert_eq!(fixture.number("select count(*) from schedules where is_over").await, 1);
    fixture.stop().await;
}

#[tokio::test]
async fn a_schedule_is_paused_after_failures_in_a_row_and_resuming_begins_anew() {
    let fixture = Fixture::new().await;
    let id = fixture.create(&ScheduleToKeep { pause_after_failures: Some(2), ..every(3_600) }).await;
    let run = async |status| {
        fixture.next_in(id, 0.0).await;
        fixture.store.fire_schedules().await.unwrap();
        fixture.end_all(status).await;
        fixture.store.pause_failing_schedules().await.unwrap();
        fixture.schedule(id).await.paused_at.is_some()
    };
    assert!(!run(ReportStatus::Failed).await);
    assert!(!run(ReportStatus::Complete).await, "a success ends the row");
    assert!(!run(ReportStatus::Failed).await);
    assert!(run(ReportStatus::Failed).await);
    let paused = fixture.schedule(id).await;
    assert_eq!(paused.pause_reason.as_deref(), Some("its last 2 runs FAILED"));
    assert_eq!((paused.next_occurrence_at, paused.next_run_at), (None, None));
    assert_eq!(fixture.store.next_schedule_ms().await.unwrap(), None);
    let Changed::Done(resumed) = fixture.store.resume_schedule(id).await.unwrap() else { panic!("not resumed") };
    assert!(resumed.paused_at.is_none() && resumed.next_run_at.is_some());
    assert!(!run(ReportStatus::Failed).await, "those of before do not count");
    assert_eq!(fixture.events(id).await, [EventType::SchedulePaused, EventType::ScheduleResumed]);
    assert_eq!(fixture.number("select count(*) from schedule_failures").await, 0);
    fixture.stop().await;
}

#[tokio::test]
async fn what_was_made_ahead_is_withdrawn_when_a_schedule_is_changed_paused_or_deleted() {
    let fixture = Fixture::new().await;
    let id = fixture.create(&every(1)).await;
    let ahead = async || {
        sqlx::query("update schedules set wake_at = now()").execute(&fixture.sql).await.unwrap();
        fixture.store.fire_schedules().await.unwrap();
        fixture.number("select count(*) from tasks where run_at > now() and status = 0").await
    };
    assert!(ahead().await >= 2);
    let revision = fixture.schedule(id).await.revision;
    let changed = fixture.store.change_schedule(id, revision, &every(3_600)).await.unwrap();
    let Changed::Done(changed) = changed else { panic!("{changed:?}") };
    assert_eq!(fixture.number("select count(*) from tasks where run_at > clock_timestamp()").await, 0);
    assert!(
        changed.revision == revision + 1 && changed.next_occurrence_at.unwrap() > Utc::now() + TimeDelta::minutes(50)
    );
    let stale = fixture.store.change_schedule(id, revision, &every(5)).await.unwrap();
    assert_eq!(stale, Changed::Refused(Refusal::WrongRevision));

    let Changed::Done(_) = fixture.store.change_schedule(id, revision + 1, &every(1)).await.unwrap() else { panic!() };
    assert!(ahead().await >= 2);
    fixture.store.pause_schedule(id, Some("why not")).await.unwrap();
    assert_eq!(fixture.number("select count(*) from tasks where run_at > clock_timestamp()").await, 0);
    assert_eq!(fixture.store.fire_schedules().await.unwrap().schedules, 0);

    fixture.store.resume_schedule(id).await.unwrap();
    assert!(ahead().await >= 2);
    assert_eq!(fixture.store.delete_schedule(id, Some(1)).await.unwrap(), Some(Refusal::WrongRevision));
    assert_eq!(fixture.store.delete_schedule(id, None).await.unwrap(), None);
    assert_eq!(fixture.number("select count(*) from tasks where run_at > clock_timestamp()").await, 0);
    assert_eq!(fixture.store.delete_schedule(id, None).await.unwrap(), Some(Refusal::NotFound));
    // Every task that is left has its run, and the others are CANCELLED.
    let orphans = "select count(*) from tasks t where not exists (select from schedule_runs r where r.task_id = t.id)";
    assert_eq!(fixture.number(orphans).await, 0);
    fixture.stop().await;
}

#[tokio::test]
async fn by_hand_and_for_the_past_runs_are_made_once() {
    let fixture = Fixture::new().await;
    let start = Utc::now().trunc_subsecs(0) - TimeDelta::hours(5);
    let timing = Timing { starts_at: Some(start), ..every(3_600).timing };
    let id = fixture.create(&ScheduleToKeep { timing, ..every(3_600) }).await;
    let key = OnceKey {
        principal: "p".into(),
        key: "k".into(),
        payload_hash: vec![1],
        kept: std::time::Duration::from_secs(60),
    };
    let Triggered::Created(task) = fixture.store.trigger_schedule(id, Some(&key)).await.unwrap() else { panic!() };
    let again = fixture.store.trigger_schedule(id, Some(&key)).await.unwrap();
    assert_eq!(again, Triggered::Known(Known::Replayed(vec![task])));
    let runs = fixture.runs(id).await;
    assert_eq!((runs.len(), runs[0].trigger, runs[0].task_id), (1, RunTrigger::Manual, Some(task)));
    assert_eq!(fixture.store.get(task).await.unwrap().unwrap().schedule_id, Some(id));

    let (from, to) = (start, start + TimeDelta::hours(4));
    let backfill = async |dry_run| fixture.store.backfill_schedule(id, from, to, dry_run).await.unwrap();
    assert_eq!(backfill(true).await, Backfilled::Done { occurrences: 4, runs: 4 });
    assert_eq!(fixture.runs(id).await.len(), 1, "only a look");
    assert_eq!(backfill(false).await, Backfilled::Done { occurrences: 4, runs: 4 });
    assert_eq!(backfill(true).await, Backfilled::Done { occurrences: 4, runs: 0 });
    assert_eq!(backfill(false).await, Backfilled::Done { occurrences: 4, runs: 0 });
    let runs = fixture.runs(id).await;
    let times: BTreeSet<DateTime<Utc>> = runs.iter().map(|run| run.occurrence_at).collect();
    assert_eq!((runs.len(), times.len(), fixture.number("select count(*) from tasks").await), (5, 5, 5));
    let oldest = fixture.store.get(runs[4].task_id.unwrap()).await.unwrap().unwrap();
    assert_eq!(oldest.scheduled_at, runs[4].occurrence_at);
    // One that was left out can be made up for; one that was missed, too.
    sqlx::query("update schedule_runs set state = 2, task_id = null where fire_at = $1")
        .bind(runs[4].occurrence_at)
        .execute(&fixture.sql)
        .await
        .unwrap();
    assert_eq!(backfill(false).await, Backfilled::Done { occurrences: 4, runs: 1 });

    let future = fixture.store.backfill_schedule(id, from, Utc::now() + TimeDelta::hours(1), true).await.unwrap();
    assert_eq!(future, Backfilled::InFuture);
    let dense = fixture
        .create(&ScheduleToKeep { timing: Timing { starts_at: Some(start), ..every(1).timing }, ..every(1) })
        .await;
    assert_eq!(fixture.store.backfill_schedule(dense, from, to, true).await.unwrap(), Backfilled::TooMany);
    fixture.stop().await;
}

#[tokio::test]
async fn names_are_unique_and_there_is_a_limit_and_what_never_fires_is_refused() {
    let fixture = Fixture::new().await;
    let named = ScheduleToKeep { name: Some("nightly".into()), ..every(5) };
    let id = fixture.create(&named).await;
    let refused = async |schedule: &ScheduleToKeep, max| match fixture
        .store
        .create_schedule(Uuid::now_v7(), schedule, max, None)
        .await
        .unwrap()
    {
        Made::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&named, 100).await, Refusal::NameTaken);
    assert_eq!(refused(&every(5), 1).await, Refusal::TooMany);
    let timing = Timing { beat: Beat::Cron("0 0 30 2 *".into()), ..every(5).timing };
    assert_eq!(refused(&ScheduleToKeep { timing, ..every(5) }, 100).await, Refusal::NeverFires);
    let timing = Timing { ends_at: Some(Utc::now() - TimeDelta::days(1)), ..every(5).timing };
    assert_eq!(refused(&ScheduleToKeep { timing, ..every(5) }, 100).await, Refusal::NeverFires);
    let found = fixture.store.schedules(None, Some("nightly"), 10).await.unwrap();
    assert_eq!(found.iter().map(|schedule| schedule.id).collect::<Vec<_>>(), [id]);
    let other = fixture.create(&every(5)).await;
    let taken = fixture.store.change_schedule(other, 1, &named).await.unwrap();
    assert_eq!(taken, Changed::Refused(Refusal::NameTaken));
    assert_eq!(fixture.store.schedules(None, None, 10).await.unwrap().len(), 2);
    fixture.stop().await;
}
