//! What starts when, and how often.

use std::time::{Duration, Instant};

use taskmaster_openapi::report::{ReportStatus, TaskClaim};
use taskmaster_openapi::worker::{ReleaseCode, SubmitCode};
use taskmaster_worker::Config;

use crate::coordinator::{Coordinator, PATIENCE};
use crate::fixture::{TestWorker, claim, config, http_get, shell, simulating};
use crate::target::Target;

#[tokio::test]
async fn never_more_than_five_run_at_once_and_twelve_take_three_rounds() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    let worker = TestWorker::start(&coordinator).await;
    let tasks: Vec<_> = (0..12).map(|_| http_get(format!("{}/sleep/60", target.url))).collect();
    let claims: Vec<TaskClaim> = tasks.iter().map(claim).collect();
    let began = Instant::now();
    worker.submit_all(tasks).await;
    for claim in claims {
        assert_eq!(coordinator.outcome(claim).await.status, ReportStatus::Complete);
    }
    assert!(began.elapsed() >= Duration::from_millis(180), "{:?}", began.elapsed());
    assert_eq!((target.running_most(), target.received().len()), (5, 12));
    worker.stop().await;
}

#[tokio::test]
async fn what_waits_behind_tasks_that_go_on_and_on_is_handed_back_unstarted() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    let worker = TestWorker::with(&coordinator, Config { slots: 1, ..config(&coordinator) }).await;
    let began = Instant::now();
    let long = worker.submit(http_get(format!("{}/sleep/60000", target.url))).await;
    let behind = worker.submit(http_get(format!("{}/0", target.url))).await;
    assert_eq!(coordinator.outcome(behind).await.status, ReportStatus::Released);
    let waited = began.elapsed();
    assert!((Duration::from_secs(1)..PATIENCE).contains(&waited), "{waited:?}");
    assert_eq!(worker.release(long, true).await, ReleaseCode::Stopping);
    assert_eq!(coordinator.outcome(long).await.status, ReportStatus::Cancelled);
    assert_eq!(target.received().len(), 1);
    worker.stop().await;
}

#[tokio::test]
async fn no_task_starts_before_its_time_and_earlier_ones_go_first() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    let worker = TestWorker::with(&coordinator, Config { slots: 1, ..config(&coordinator) }).await;
    let delays_ms = [400.5, 0.0, 150.25, 300.0, 50.0];
    let tasks: Vec<_> = delays_ms
        .iter()
        .map(|delay| {
            let mut task = http_get(format!("{}/{delay}", target.url));
            task.start_in_ms = *delay;
            task
        })
        .collect();
    let claims: Vec<TaskClaim> = tasks.iter().map(claim).collect();
    let submitted = Instant::now();
    worker.submit_all(tasks).await;
    for claim in claims {
        coordinator.outcome(claim).await;
    }
    let received = target.received();
    let order: Vec<&str> = received.iter().map(|r| r.path.as_str()).collect();
    assert_eq!(order, ["/0", "/50", "/150.25", "/300", "/400.5"]);
    for request in received {
        let delay_ms: f64 = request.path[1..].parse().unwrap();
        assert!(request.at >= submitted + Duration::from_secs_f64(delay_ms / 1000.0), "{} came early", request.path);
    }
    worker.stop().await;
}

#[tokio::test]
async fn a_repeated_submission_runs_once_while_held_and_after_the_end() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    let worker = TestWorker::start(&coordinator).await;
    let task = http_get(format!("{}/sleep/100", target.url));
    let held = worker.submit(task.clone()).await;
    assert_eq!(worker.offer(&task).await, SubmitCode::AlreadyHeld);
    coordinator.outcome(held).await;
    coordinator.emptied().await;
    assert_eq!(worker.offer(&task).await, SubmitCode::AlreadyHeld);
    // A higher claim of the same task is another piece of work.
    let mut again = task.clone();
    again.claim = 2;
    coordinator.outcome(worker.submit(again).await).await;
    assert_eq!(target.received().len(), 2);
    worker.stop().await;
}

#[tokio::test]
async fn without_a_lease_nothing_starts_and_what_waits_goes_on_after_the_next_answer() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    coordinator.set(|inner| {
        inner.lease_ms = 300;
        inner.heartbeat_ms = 50;
    });
    let worker = TestWorker::start(&coordinator).await;
    let mut task = http_get(format!("{}/later", target.url));
    task.start_in_ms = 500.0;
    // Held before the lease runs out, due after.
    let waiting = loop {
        match worker.offer(&task).await {
            SubmitCode::Accepted => break claim(&task),
            // The machine was so busy that the lease had run out.
            SubmitCode::Draining => tokio::time::sleep(Duration::from_millis(10)).await,
            other => panic!("{other:?}"),
        }
    };
    coordinator.set(|inner| inner.refuse_heartbeats = Some(taskmaster_openapi::Code::DatabaseUnavailable));
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert!(target.received().is_empty(), "started without a lease");
    assert_eq!(worker.offer(&http_get(target.url.clone())).await, SubmitCode::Draining);
    assert!(!worker.health.readiness().ready);
    coordinator.set(|inner| {
        inner.lease_ms = 60_000;
        inner.refuse_heartbeats = None;
    });
    assert_eq!(coordinator.outcome(waiting).await.status, ReportStatus::Complete);
    assert!(worker.health.readiness().ready);
    worker.stop().await;
}

#[tokio::test]
async fn release_lets_go_of_what_waits_and_stops_what_runs_only_when_told_to() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, Config { slots: 1, ..simulating(&coordinator, PATIENCE) }).await;
    let running = worker.submit(shell("runs")).await;
    let waiting_task = shell("waits");
    let waiting = worker.submit(waiting_task.clone()).await;
    coordinator.started(running).await;

    assert_eq!(worker.release(waiting, false).await, ReleaseCode::Released);
    assert_eq!(worker.release(waiting, false).await, ReleaseCode::Unknown);
    assert_eq!(worker.offer(&waiting_task).await, SubmitCode::AlreadyHeld, "what was let go of never runs here");
    assert_eq!(worker.release(running, false).await, ReleaseCode::Running);
    assert_eq!(worker.release(running, true).await, ReleaseCode::Stopping);
    let outcome = coordinator.outcome(running).await;
    assert_eq!(outcome.status, ReportStatus::Cancelled);
    assert!(outcome.started_ms_ago.is_some() && outcome.ended_ms_ago.is_some());
    worker.stop().await;
    assert!(coordinator.inner().reports_of(waiting).is_empty(), "no report follows a release");
}

#[tokio::test]
async fn the_stop_list_of_a_heartbeat_stops_what_runs_and_hands_back_what_waits() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, Config { slots: 1, ..simulating(&coordinator, PATIENCE) }).await;
    let running = worker.submit(shell("runs")).await;
    let waiting = worker.submit(shell("waits")).await;
    coordinator.started(running).await;
    coordinator.set(|inner| inner.stop = vec![running, waiting]);
    assert_eq!(coordinator.outcome(running).await.status, ReportStatus::Cancelled);
    assert_eq!(coordinator.outcome(waiting).await.status, ReportStatus::Released);
    worker.stop().await;
}

#[tokio::test]
async fn a_simulated_task_takes_its_time_or_times_out() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, simulating(&coordinator, Duration::from_millis(200))).await;
    let whole = worker.submit(shell("anything")).await;
    let mut hurried = shell("anything");
    hurried.timeout_ms = 50;
    let cut = worker.submit(hurried).await;
    let whole = coordinator.outcome(whole).await;
    assert_eq!((whole.status, whole.result), (ReportStatus::Complete, None));
    assert!(whole.started_ms_ago.unwrap() - whole.ended_ms_ago.unwrap() >= 199);
    let cut = coordinator.outcome(cut).await;
    assert_eq!(cut.status, ReportStatus::Failed);
    assert_eq!(cut.error.unwrap().code, taskmaster_openapi::task::ErrorCode::Timeout);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_tasks_of_no_duration_all_come_to_their_end_in_few_requests() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, simulating(&coordinator, Duration::ZERO)).await;
    let mut waiting: Vec<_> = (0..10_000).map(|_| shell("nothing")).collect();
    while !waiting.is_empty() {
        let batch = waiting.split_off(waiting.len().saturating_sub(1_000));
        let answer = worker.submit_all(batch.clone()).await;
        let taken = |index: &usize| answer.results[*index].code == SubmitCode::Accepted;
        waiting.extend((0..batch.len()).filter(|index| !taken(index)).map(|index| batch[index].clone()));
    }
    coordinator.until("all outcomes", |inner| (inner.outcomes_count() == 10_000).then_some(())).await;
    let batches = coordinator.inner().batches.len();
    let reports = coordinator.inner().reports().count();
    assert!(batches < 1_000 && reports < 15_000, "{batches} requests, {reports} reports");
    coordinator.emptied().await;
    worker.stop().await;
}
