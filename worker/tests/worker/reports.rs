//! Reports reach a coordinator, whatever is lost on the way.

use std::time::Duration;

use taskmaster_openapi::Code;
use taskmaster_openapi::report::{ReportStatus, StatusReport, TaskClaim};
use taskmaster_worker::Config;

use crate::coordinator::{Coordinator, PATIENCE, ReportFault};
use crate::fixture::{TestWorker, claim, shell, simulating, until};

async fn worker(coordinator: &Coordinator, duration: Duration) -> TestWorker {
    TestWorker::with(coordinator, simulating(coordinator, duration)).await
}

fn statuses(coordinator: &Coordinator, claim: TaskClaim) -> Vec<ReportStatus> {
    coordinator.inner().reports_of(claim).iter().map(|report| report.status).collect()
}

#[tokio::test]
async fn a_start_is_reported_at_once_and_the_end_with_both_times() {
    let coordinator = Coordinator::start().await;
    let worker = worker(&coordinator, Duration::from_millis(300)).await;
    let held = worker.submit(shell("x")).await;
    let end = coordinator.outcome(held).await;
    assert_eq!(statuses(&coordinator, held), [ReportStatus::Started, ReportStatus::Complete]);
    assert!(end.started_ms_ago.unwrap() >= end.ended_ms_ago.unwrap() + 299);
    worker.stop().await;
}

#[tokio::test]
async fn a_start_that_was_not_sent_yet_travels_in_the_outcome_and_waiting_reports_travel_together() {
    let coordinator = Coordinator::start().await;
    let worker = worker(&coordinator, Duration::ZERO).await;
    coordinator.set(|inner| inner.hold_reports = true);
    let first = worker.submit(shell("first")).await;
    // The request with the first report waits: what comes now gathers behind it.
    let tasks: Vec<_> = (0..50).map(|_| shell("x")).collect();
    let claims: Vec<TaskClaim> = tasks.iter().map(claim).collect();
    worker.submit_all(tasks).await;
    coordinator.heartbeats(2).await;
    coordinator.set(|inner| inner.hold_reports = false);
    for claim in &claims {
        coordinator.outcome(*claim).await;
    }
    coordinator.outcome(first).await;
    let merged = claims.iter().filter(|claim| statuses(&coordinator, **claim) == [ReportStatus::Complete]).count();
    assert!(merged >= 45, "{merged} of 50 merged");
    let batches = coordinator.inner().batches.len();
    assert!(batches <= 10, "{batches} batches");
    let report = coordinator.inner().outcome(claims[20]).unwrap();
    assert!(report.started_ms_ago >= report.ended_ms_ago && report.started_ms_ago.is_some());
    worker.stop().await;
}

#[tokio::test]
async fn an_outcome_is_repeated_until_it_is_taken_with_times_of_the_sending() {
    let coordinator = Coordinator::start().await;
    coordinator.set(|inner| {
        inner.report_faults = [ReportFault::Refuse(Code::DatabaseUnavailable); 3].into();
    });
    let worker = worker(&coordinator, Duration::ZERO).await;
    let held = worker.submit(shell("x")).await;
    let outcome = coordinator.outcome(held).await;
    // Three pauses: 100, 200 and 400 ms.
    assert!(outcome.ended_ms_ago.unwrap() >= 690, "{outcome:?}");
    coordinator.emptied().await;
    worker.stop().await;
}

#[tokio::test]
async fn a_lost_answer_makes_the_worker_say_the_same_again_and_then_no_more() {
    let coordinator = Coordinator::start().await;
    coordinator.set(|inner| inner.report_faults = [ReportFault::LoseAnswer, ReportFault::LoseAnswer].into());
    let worker = worker(&coordinator, Duration::ZERO).await;
    let held = worker.submit(shell("x")).await;
    coordinator.emptied().await;
    let said: Vec<StatusReport> = coordinator.inner().reports_of(held).into_iter().cloned().collect();
    let outcomes: Vec<_> = said.iter().filter(|report| report.status == ReportStatus::Complete).collect();
    assert!((2..=3).contains(&outcomes.len()), "{said:?}");
    assert!(outcomes.windows(2).all(|pair| pair[0].ended_ms_ago <= pair[1].ended_ms_ago));
    let count = said.len();
    coordinator.heartbeats(5).await;
    assert_eq!(coordinator.inner().reports_of(held).len(), count);
    worker.stop().await;
}

#[tokio::test]
async fn an_item_that_was_not_looked_at_is_sent_again() {
    let coordinator = Coordinator::start().await;
    coordinator.set(|inner| inner.report_faults = [ReportFault::NotRecorded].into());
    let worker = worker(&coordinator, Duration::ZERO).await;
    let held = worker.submit(shell("x")).await;
    assert_eq!(coordinator.outcome(held).await.status, ReportStatus::Complete);
    assert!(statuses(&coordinator, held).len() >= 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_claim_that_is_not_the_workers_any_more_is_stopped_and_forgotten() {
    let coordinator = Coordinator::start().await;
    coordinator.set(|inner| inner.report_faults = [ReportFault::Stale].into());
    let worker = worker(&coordinator, PATIENCE).await;
    let held = worker.submit(shell("x")).await;
    coordinator.started(held).await;
    coordinator.emptied().await;
    assert_eq!(statuses(&coordinator, held), [ReportStatus::Started]);
    worker.stop().await;
    assert_eq!(coordinator.inner().outcome(held), None);
}

#[tokio::test]
async fn one_report_that_nobody_takes_does_not_hold_up_the_others() {
    let coordinator = Coordinator::start().await;
    let worker = worker(&coordinator, Duration::ZERO).await;
    let tasks: Vec<_> = (0..20).map(|_| shell("x")).collect();
    let claims: Vec<TaskClaim> = tasks.iter().map(claim).collect();
    coordinator.set(|inner| inner.poison = Some(claims[7].task_id));
    worker.submit_all(tasks).await;
    for claim in claims.iter().filter(|claim| **claim != claims[7]) {
        coordinator.outcome(*claim).await;
    }
    coordinator.emptied().await;
    worker.stop().await;
}

#[tokio::test]
async fn unacknowledged_outcomes_are_bounded_and_a_heartbeat_counts_them_as_held() {
    let coordinator = Coordinator::start().await;
    let settings = Config { slots: 1, queue_max: 8_999, ..simulating(&coordinator, Duration::ZERO) };
    let worker = TestWorker::with(&coordinator, settings).await;
    coordinator.set(|inner| inner.hold_reports = true);
    for _ in 0..3 {
        worker.submit_all((0..1_000).map(|_| shell("x")).collect()).await;
    }
    // 10,000 may be held, slots and queue may take 9,000 of it: 1,000 outcomes may wait, then nothing starts.
    // They take no room here, but whoever pushes adds up what is held and the room.
    let held = |c: &Coordinator| c.inner().heartbeats.last().map(|beat| (beat.body.held.len(), beat.body.room));
    until("a full stop", || held(&coordinator) == Some((3_000, 6_000))).await;
    coordinator.set(|inner| inner.hold_reports = false);
    coordinator.until("all outcomes", |inner| (inner.outcomes_count() == 3_000).then_some(())).await;
    worker.stop().await;
}
