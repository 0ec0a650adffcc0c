//! Joining, staying known, moving, and leaving.

use std::time::Duration;

use taskmaster_openapi::Code;
use taskmaster_openapi::client::{ClientError, CoordinatorClient};
use taskmaster_openapi::coordinator::UpdateTaskStatusRequest;
use taskmaster_openapi::report::ReportStatus;
use taskmaster_openapi::task::ErrorCode;
use taskmaster_openapi::worker::SubmitCode;
use taskmaster_service::Health;
use taskmaster_worker::{Config, Worker};

use crate::coordinator::{Coordinator, JOIN_TOKEN, PATIENCE};
use crate::fixture::{TestWorker, config, http_get, shell, simulating};
use crate::target::Target;

#[tokio::test]
async fn a_worker_joins_with_the_join_token_and_goes_on_with_its_own() {
    let coordinator = Coordinator::start().await;
    let settings = Config {
        queues: vec!["blue".into()],
        labels: vec![("zone".into(), "eu".into())],
        worker_id: Some("worker-1".into()),
        ..config(&coordinator)
    };
    let worker = TestWorker::with(&coordinator, settings).await;
    {
        let inner = coordinator.inner();
        let tokens: Vec<&str> = inner.heartbeats.iter().take(2).map(|beat| beat.token.as_str()).collect();
        assert_eq!(tokens, [JOIN_TOKEN, "token-1"]);
        let first = &inner.heartbeats[0];
        assert_eq!(first.worker_id, "worker-1");
        assert_eq!((first.body.slots, first.body.room), (5, 5005));
        assert_eq!(first.body.labels["zone"], "eu");
        assert_eq!(first.body.abilities.queues, ["blue"]);
        assert!(first.body.abilities.commands && first.body.abilities.http && !first.body.draining);
    }
    worker.stop().await;
    assert_eq!(coordinator.inner().removed, ["worker-1"]);
}

#[tokio::test]
async fn a_refused_token_makes_the_worker_join_again_and_report_with_the_new_one() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, simulating(&coordinator, Duration::ZERO)).await;
    coordinator.set(|inner| inner.token = "token-2".into());
    let held = worker.submit(shell("x")).await;
    coordinator.outcome(held).await;
    assert_eq!(coordinator.inner().heartbeats.iter().filter(|beat| beat.token == JOIN_TOKEN).count(), 2);
    worker.stop().await;
}

#[tokio::test]
async fn a_wrong_join_token_is_tried_again_and_named_in_readiness() {
    let coordinator = Coordinator::start().await;
    coordinator.set(|inner| inner.refuse_heartbeats = Some(Code::Unauthorized));
    let worker = Worker::bind(config(&coordinator), Health::new()).await.unwrap();
    let health = worker.health().clone();
    let shutdown = taskmaster_service::Shutdown::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    crate::fixture::until("the reason", || health.readiness().waiting_for.iter().any(|w| w.contains("--join-token")))
        .await;
    coordinator.set(|inner| inner.refuse_heartbeats = None);
    coordinator.heartbeats(2).await;
    crate::fixture::until("readiness", || health.readiness().ready).await;
    shutdown.request();
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn when_home_moves_the_worker_follows_at_once() {
    let (old, new) = (Coordinator::start().await, Coordinator::start().await);
    let worker = TestWorker::with(&old, simulating(&old, Duration::ZERO)).await;
    old.set(|inner| {
        inner.home = Some(new.address.clone());
        inner.heartbeat_ms = 3_600_000;
    });
    new.heartbeats(2).await;
    let reported = worker.submit(shell("x")).await;
    new.outcome(reported).await;
    assert!(old.inner().reports().next().is_none());
    worker.stop().await;
    assert!(old.inner().removed.is_empty() && new.inner().removed.len() == 1);
}

#[tokio::test]
async fn when_home_dies_the_worker_turns_to_another_with_heartbeats_and_reports() {
    let (home, other) = (Coordinator::start().await, Coordinator::start().await);
    home.set(|inner| inner.coordinators = vec![inner.home.clone().unwrap_or_default(), other.address.clone()]);
    let worker = TestWorker::with(&home, simulating(&home, Duration::from_millis(300))).await;
    let held = worker.submit(shell("x")).await;
    home.started(held).await;
    home.die();
    assert_eq!(other.outcome(held).await.status, ReportStatus::Complete);
    other.heartbeats(2).await;
    assert!(worker.health.readiness().ready);
    worker.stop().await;
    assert_eq!(other.inner().removed.len(), 1);
}

#[tokio::test]
async fn a_home_that_answers_5xx_is_passed_over_until_it_is_well() {
    let (home, other) = (Coordinator::start().await, Coordinator::start().await);
    let settings = Config {
        coordinator_url: vec![home.address.clone(), other.address.clone()],
        ..simulating(&home, Duration::ZERO)
    };
    other.set(|inner| inner.home = Some(home.address.clone()));
    let worker = TestWorker::with(&home, settings).await;
    home.set(|inner| inner.refuse_heartbeats = Some(Code::DatabaseUnavailable));
    other.heartbeats(2).await;
    home.set(|inner| inner.refuse_heartbeats = None);
    home.heartbeats(2).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_drain_hands_back_what_waits_finishes_what_runs_and_says_goodbye() {
    let coordinator = Coordinator::start().await;
    coordinator.set(|inner| inner.heartbeat_ms = 100);
    let settings = Config { slots: 1, ..simulating(&coordinator, Duration::from_millis(500)) };
    let worker = TestWorker::with(&coordinator, settings).await;
    let running = worker.submit(shell("runs")).await;
    let waiting = worker.submit(shell("waits")).await;
    coordinator.started(running).await;
    // From now on no heartbeat comes by itself.
    coordinator.set(|inner| inner.heartbeat_ms = 3_600_000);
    coordinator.heartbeats(1).await;
    worker.shutdown.request();
    coordinator.until("a heartbeat that says so", |i| i.heartbeats.last()?.body.draining.then_some(())).await;
    let released = coordinator.outcome(waiting).await;
    assert_eq!((released.status, released.started_ms_ago), (ReportStatus::Released, None));
    if coordinator.inner().outcome(running).is_none() {
        assert_eq!(worker.offer(&shell("new")).await, SubmitCode::Draining);
    }
    let id = worker.id.clone();
    worker.ended().await;
    let inner = coordinator.inner();
    assert_eq!(inner.outcome(running).unwrap().status, ReportStatus::Complete);
    assert_eq!(inner.removed, [id]);
}

#[tokio::test]
async fn what_still_runs_at_the_end_of_a_drain_is_stopped_and_reported_as_lost() {
    let coordinator = Coordinator::start().await;
    let settings = Config { drain_timeout: Duration::from_millis(100), ..config(&coordinator) };
    let worker = TestWorker::with(&coordinator, settings).await;
    let running = worker.submit(shell("echo so far; exec sleep 3600")).await;
    coordinator.started(running).await;
    worker.stop().await;
    let outcome = coordinator.inner().outcome(running).unwrap();
    assert_eq!(outcome.status, ReportStatus::Failed);
    assert_eq!(outcome.error.unwrap().code, ErrorCode::WorkerLost);
    assert!(!outcome.permanent);
}

#[tokio::test]
async fn a_coordinator_can_ask_a_worker_to_leave() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    let worker = TestWorker::start(&coordinator).await;
    let running = worker.submit(http_get(format!("{}/sleep/300", target.url))).await;
    coordinator.started(running).await;
    coordinator.set(|inner| inner.drain = true);
    worker.ended().await;
    assert_eq!(coordinator.inner().outcome(running).unwrap().status, ReportStatus::Complete);
    assert_eq!(coordinator.inner().removed.len(), 1);
}

#[tokio::test]
async fn a_worker_that_never_reaches_anybody_stops_promptly_when_asked() {
    let coordinator = Coordinator::start().await;
    coordinator.die();
    let worker = Worker::bind(config(&coordinator), Health::new()).await.unwrap();
    let health = worker.health().clone();
    let shutdown = taskmaster_service::Shutdown::new();
    let running = tokio::spawn(worker.run(shutdown.clone()));
    crate::fixture::until("not ready", || !health.readiness().ready).await;
    shutdown.request();
    tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn several_workers_live_in_one_process() {
    let coordinator = Coordinator::start().await;
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(TestWorker::start(&coordinator).await);
    }
    let mut claims = Vec::new();
    for worker in &workers {
        claims.push(worker.submit(shell("echo $PPID")).await);
    }
    let first = workers.remove(0);
    for claim in claims {
        assert_eq!(coordinator.outcome(claim).await.status, ReportStatus::Complete);
    }
    first.stop().await;
    let still = workers[0].submit(shell("true")).await;
    assert_eq!(coordinator.outcome(still).await.status, ReportStatus::Complete);
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut stream, _) = listener.accept().await.unwrap();
        assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n").await.unwrap();
        while stream.write_all(&[b' '; 64 * 1024]).await.is_ok() {}
    });
    let client = CoordinatorClient::new(taskmaster_service::client::build(PATIENCE).unwrap());
    let reports = UpdateTaskStatusRequest { worker_id: "w".into(), reports: Vec::new() };
    let error = client.update_task_status(&address, "token", &reports).await.unwrap_err();
    assert!(matches!(&error, ClientError::NoAnswer { reason, .. } if reason.contains("longer than")), "{error}");
    serving.await.unwrap();
}
