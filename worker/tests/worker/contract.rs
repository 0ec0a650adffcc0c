//! What the worker serves is its contract, no more and no less.

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use taskmaster_openapi::documents;
use taskmaster_openapi::worker::{SubmitCode, WorkerApi, WorkerState, paths};
use taskmaster_service::Health;
use taskmaster_worker::{Config, Worker, WorkerError};
use tower::ServiceExt;
use utoipa::OpenApi;

use crate::coordinator::Coordinator;
use crate::fixture::{TestWorker, config, http_get, shell, simulating};

async fn status_of(router: &axum::Router, method: &str, path: &str) -> (StatusCode, Option<String>) {
    let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let allow = response.headers().get(header::ALLOW).map(|v| v.to_str().unwrap().to_owned());
    (response.status(), allow)
}

#[tokio::test]
async fn every_operation_of_the_document_is_served_and_no_other_method() {
    let worker = Worker::bind(Config::default(), Health::new()).await.unwrap();
    let operations = documents::operations(&WorkerApi::openapi());
    assert!(operations.len() >= 5);
    for (method, path) in &operations {
        let (status, _) = status_of(&worker.router(), method, path).await;
        assert!(
            status != StatusCode::NOT_FOUND && status != StatusCode::METHOD_NOT_ALLOWED,
            "{method} {path}: {status}"
        );
        let mut expected: Vec<&str> = operations.iter().filter(|(_, p)| p == path).map(|(m, _)| m.as_str()).collect();
        if expected.contains(&"GET") {
            expected.push("HEAD");
        }
        // Health is served as every process serves it.
        if ["/livez", "/readyz"].contains(&path.as_str()) {
            expected.push("OPTIONS");
        }
        let (status, allow) = status_of(&worker.router(), "TRACE", path).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        let allow = allow.unwrap();
        let mut allowed: Vec<&str> = allow.split(',').collect();
        allowed.sort();
        expected.sort();
        assert_eq!(allowed, expected, "{path}");
    }
    for unknown in ["/", "/v1/tasks/1", "/v1/workers", "/docs"] {
        assert_eq!(status_of(&worker.router(), "GET", unknown).await.0, StatusCode::NOT_FOUND, "{unknown}");
    }
}

#[tokio::test]
async fn the_document_is_served_as_it_is_committed() {
    let worker = Worker::bind(Config::default(), Health::new()).await.unwrap();
    let request = Request::get(paths::DOCUMENT).body(Body::empty()).unwrap();
    let response = worker.router().oneshot(request).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "application/json");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, documents::to_json(&WorkerApi::openapi()).unwrap());
}

#[tokio::test]
async fn nobody_without_the_push_secret_is_heard() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::start(&coordinator).await;
    assert!(worker.push_secret.len() >= 32);
    let http = reqwest::Client::new();
    for token in ["", "wrong", crate::coordinator::JOIN_TOKEN, "token-1"] {
        for path in [paths::TASKS, paths::RELEASE] {
            let request = http.post(format!("{}{path}", worker.address)).bearer_auth(token).json(&json!({}));
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
            assert_eq!(answer.json::<Value>().await.unwrap()["code"], "unauthorized");
        }
        let answer = http.get(format!("{}{}", worker.address, paths::STATUS)).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    }
    for open in ["/livez", "/readyz", paths::DOCUMENT] {
        let answer = http.get(format!("{}{open}", worker.address)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{open}");
    }
    worker.stop().await;
}

#[tokio::test]
async fn what_breaks_the_contract_is_refused_whole_with_a_pointer() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::start(&coordinator).await;
    let task = serde_json::to_value(http_get("http://127.0.0.1:9/")).unwrap();
    let with = |field: &str, value: Value| {
        let mut task = task.clone();
        task[field] = value;
        json!({"worker_id": worker.id, "tasks": [task]})
    };
    for (body, pointer) in [
        (json!({"worker_id": "another", "tasks": [task]}), "/worker_id"),
        (json!({"worker_id": worker.id, "tasks": []}), "/tasks"),
        (with("claim", json!(0)), "/tasks/0/claim"),
        (with("attempt", json!(0)), "/tasks/0/attempt"),
        (with("start_in_ms", json!(-1)), "/tasks/0/start_in_ms"),
        (with("start_in_ms", json!(1e300)), "/tasks/0/start_in_ms"),
        (with("timeout_ms", json!(0)), "/tasks/0/timeout_ms"),
        (with("timeout_ms", json!(u64::MAX)), "/tasks/0/timeout_ms"),
        (with("task_id", json!("x")), "/tasks/0/task_id"),
        (with("work", json!({"argv": []})), "/tasks/0/work/argv"),
        (with("work", json!({"http": {"url": "nowhere"}})), "/tasks/0/work/http/url"),
    ] {
        let url = format!("{}{}", worker.address, paths::TASKS);
        let answer =
            reqwest::Client::new().post(url).bearer_auth(&worker.push_secret).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY, "{pointer}");
        assert_eq!(answer.json::<Value>().await.unwrap()["errors"][0]["pointer"], pointer);
    }
    assert!(coordinator.inner().reports().next().is_none());
    worker.stop().await;
}

#[tokio::test]
async fn the_status_tells_slots_queue_and_room() {
    let coordinator = Coordinator::start().await;
    let settings = Config { queue_max: 3, ..simulating(&coordinator, crate::coordinator::PATIENCE) };
    let worker = TestWorker::with(&coordinator, settings).await;
    let answer = worker.submit_all((0..9).map(|_| shell("true")).collect()).await;
    let codes: Vec<SubmitCode> = answer.results.iter().map(|r| r.code).collect();
    assert_eq!(codes, [[SubmitCode::Accepted; 8].as_slice(), &[SubmitCode::NoRoom]].concat());
    assert_eq!(answer.room, 0);
    let url = format!("{}{}", worker.address, paths::STATUS);
    let state: WorkerState =
        reqwest::Client::new().get(url).bearer_auth(&worker.push_secret).send().await.unwrap().json().await.unwrap();
    let expected = WorkerState {
        worker_id: worker.id.clone(),
        slots: 5,
        running: 5,
        queued: 3,
        room: 0,
        draining: false,
        circuits: Vec::new(),
    };
    assert_eq!(state, expected);
    coordinator
        .until("a full house in a heartbeat", |inner| {
            let body = &inner.heartbeats.last()?.body;
            (body.held.len() == 8 && body.room == 0).then_some(())
        })
        .await;
}

#[tokio::test]
async fn commands_are_unsupported_unless_allowed() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, Config { allow_commands: false, ..config(&coordinator) }).await;
    assert!(!coordinator.inner().heartbeats[0].body.abilities.commands);
    assert_eq!(worker.offer(&shell("true")).await, SubmitCode::Unsupported);
    assert_eq!(worker.offer(&crate::fixture::argv(&["true"])).await, SubmitCode::Unsupported);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_cannot_start_says_what_to_change() {
    let taken = Worker::bind(Config::default(), Health::new()).await.unwrap();
    let error = Worker::bind(Config { listen: taken.address(), ..Config::default() }, Health::new()).await.unwrap_err();
    assert!(matches!(error, WorkerError::Listen { .. }) && error.to_string().contains("--listen"), "{error}");
    let error = Worker::bind(Config { queue_max: 9_999, ..Config::default() }, Health::new()).await.unwrap_err();
    assert!(matches!(error, WorkerError::Setting { flag: "--queue-max", .. }), "{error}");
}
