//! Workers that are only a URL: called once a task, looked after by one coordinator, and by another when that one is gone.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::Problem;
use taskmaster_openapi::task::{ErrorCode, TaskStatus};
use taskmaster_openapi::url_worker::{UrlWorker, UrlWorkerList};

use crate::support::{Answer, Arrival, Gate, System, Target, until};

/// The task that a call carries.
fn task_of(arrival: &Arrival) -> Value {
    let call: Value = serde_json::from_slice(&arrival.body).unwrap();
    assert_eq!(call["tasks"].as_array().unwrap().len(), 1, "{call}");
    call["tasks"][0].clone()
}

/// An answer with this outcome.
fn outcome(arrival: &Arrival, mut report: Value) -> Answer {
    let task = task_of(arrival);
    (report["task_id"], report["claim"]) = (task["task_id"].clone(), task["claim"].clone());
    let result = json!({"task_id": task["task_id"], "claim": task["claim"], "code": "accepted"});
    let answer = json!({"results": [result], "room": 0, "reports": [report]});
    Answer::ok().header("content-type", "application/json").body(answer.to_string())
}

fn complete(arrival: &Arrival) -> Answer {
    outcome(arrival, json!({"status": "COMPLETE", "result": {"stdout": "done"}}))
}

/// A task for it.
fn task() -> Value {
    json!({"queue": "functions", "http": {"url": "http://example.com/", "body": "hello"}, "retry": {"delays_seconds": [0]}})
}

async fn put(system: &System, url: &str, slots: usize) -> UrlWorker {
    let worker =
        json!({"url": url, "slots": slots, "queues": ["functions"], "push_secret": "the-secret-of-the-function"});
    let reply = system.api.send(Method::PUT, "/v1/url-workers/shout", Some(&worker), &[]).await;
    let status = reply.status.as_u16();
    assert!([200, 201].contains(&status), "{status}");
    reply.expect(status)
}

async fn shown(system: &System) -> UrlWorker {
    system.api.fetch("/v1/url-workers/shout").await.expect(200)
}

/// A system without other workers.
async fn system(coordinators: usize) -> System {
    System::builder().coordinators(coordinators).workers(0).start().await
}

#[tokio::test]
async fn a_url_is_called_once_a_task_and_its_answer_is_the_outcome() {
    let function = Target::start(complete).await;
    let system = system(1).await;
    put(&system, &function.url("/run"), 3).await;
    let elsewhere = system.api.create(json!({"http": {"url": "http://example.com/"}})).await;
    let task = system.api.run(task()).await;
    assert_eq!((task.status, task.worker_id.as_deref(), task.attempt), (TaskStatus::Complete, Some("shout"), 1));
    assert_eq!(task.result.unwrap().stdout.as_deref(), Some("done"));
    let [call] = function.arrivals().try_into().unwrap();
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/run"));
    assert_eq!(call.headers["authorization"], "Bearer the-secret-of-the-function");
    let given = task_of(&call);
    assert_eq!((given["task_id"].as_str(), given["attempt"].as_i64()), (Some(task.id.to_string().as_str()), Some(1)));
    assert_eq!(given["work"]["http"]["body"], "hello");

    let listed: UrlWorkerList = system.api.fetch("/v1/url-workers").await.expect(200);
    assert_eq!(listed.url_workers, [shown(&system).await]);
    let [worker] = system.api.workers().await.try_into().unwrap();
    assert_eq!((worker.worker_id.as_str(), worker.home), ("shout", shown(&system).await.home));
    // What is not of its queues is not for it.
    assert_eq!(system.api.get(elsewhere.id).await.status, TaskStatus::Queued);
}

#[tokio::test]
async fn calls_are_at_most_as_many_as_slots_and_none_is_early() {
    let function = Target::start(|arrival: &Arrival| complete(arrival).after(Duration::from_millis(50))).await;
    let system = system(1).await;
    put(&system, &function.url("/"), 3).await;
    let mut tasks = vec![task(); 40];
    let mut later = task();
    later["delay_seconds"] = json!(1.2);
    tasks.extend(vec![later; 3]);
    let ids = system.api.create_batch(&tasks).await;
    system.api.all_ended(&ids).await;
    assert_eq!((function.count(), function.most_in_progress()), (43, 3));
    for call in function.arrivals() {
        let id = task_of(&call)["task_id"].as_str().unwrap().parse().unwrap();
        let ran = system.api.get(id).await;
        assert!(call.wall >= ran.scheduled_at, "{ran:?}");
    }
}

#[tokio::test]
async fn what_may_have_run_is_a_failed_attempt() {
    let function = Target::start(|arrival: &Arrival| match task_of(arrival)["attempt"].as_i64() {
        Some(1) => Answer::status(500),
        Some(2) => Answer::ok().body("not json"),
        Some(3) => Answer::hang(),
        _ => outcome(
            arrival,
            json!({"status": "FAILED", "permanent": true, "error": {"code": "worker_error", "message": "no"}}),
        ),
    })
    .await;
    let system = system(1).await;
    put(&system, &function.url("/"), 1).await;
    let mut tried = task();
    tried["max_attempts"] = json!(9);
    tried["timeout_seconds"] = json!(1);
    let ended = system.api.run(tried).await;
    assert_eq!((ended.status, ended.attempt), (TaskStatus::Failed, 4));
    assert_eq!(ended.error.unwrap().message, "no");
    let codes: Vec<ErrorCode> =
        system.api.attempts(ended.id).await.into_iter().map(|attempt| attempt.error.unwrap().code).collect();
    let other = ErrorCode::WorkerError;
    assert_eq!(codes, [other, other, ErrorCode::Timeout, other]);
}

#[tokio::test]
async fn what_was_not_taken_uses_no_attempt_and_the_url_is_shown_as_unreachable() {
    // Nobody listens there yet.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let system = system(1).await;
    put(&system, &format!("http://{address}/"), 2).await;
    let ids = system.api.create_batch(&vec![task(); 5]).await;
    let away = until("it is unreachable", async || Some(shown(&system).await).filter(|w| w.last_error.is_some())).await;
    assert!(away.unreachable_since.is_some());

    let listener = std::net::TcpListener::bind(address).unwrap();
    let calls = std::sync::atomic::AtomicUsize::new(0);
    let function = Target::start_on(listener, move |arrival: &Arrival| {
        match calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Answer::status(503),
            1 => Answer::status(429),
            _ => complete(arrival),
        }
    })
    .await;
    system.api.all_ended(&ids).await;
    for id in ids {
        let ended = system.api.get(id).await;
        assert_eq!((ended.status, ended.attempt), (TaskStatus::Complete, 1));
    }
    assert_eq!(function.count(), 7);
    let back = until("it is reachable", async || Some(shown(&system).await).filter(|w| w.last_error.is_none())).await;
    assert_eq!(back.unreachable_since, None);
}

#[tokio::test]
async fn a_cancel_ends_the_call() {
    let function = Target::start(|_| Answer::hang()).await;
    let system = system(1).await;
    put(&system, &function.url("/"), 1).await;
    let hanging = system.api.create(task()).await;
    function.arrived(1).await;
    system.api.cancel(hanging.id).await;
    assert_eq!(system.api.ended(hanging.id).await.status, TaskStatus::Cancelled);
    until("the connection is closed", async || (function.in_progress() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_long_call_is_started_and_outlives_the_end_of_its_worker_and_of_its_coordinator() {
    let gate = Gate::closed();
    let held = gate.clone();
    let function = Target::start(move |arrival: &Arrival| complete(arrival).behind(&held)).await;
    let mut system = system(2).await;
    put(&system, &function.url("/"), 2).await;
    let ids = system.api.create_batch(&vec![task(); 2]).await;
    for id in &ids {
        system.api.wait_until(*id, TaskStatus::Started).await;
    }
    assert_eq!(system.api.send(Method::DELETE, "/v1/url-workers/shout", None, &[]).await.status, 204);
    let gone: Problem = system.api.fetch("/v1/url-workers/shout").await.expect(404);
    assert_eq!(gone.code.as_str(), "worker_not_found");
    let late = system.api.create(task()).await;
    // Both coordinators are asked to stop: whoever has the calls waits for them.
    for coordinator in &mut system.coordinators {
        coordinator.signal(libc::SIGTERM);
    }
    // Longer than a coordinator may be silent.
    tokio::time::sleep(Duration::from_secs(6)).await;
    gate.open();
    for id in ids {
        let ended = system.api.ended(id).await;
        assert_eq!((ended.status, ended.attempt), (TaskStatus::Complete, 1));
    }
    assert_eq!((function.count(), system.api.get(late.id).await.status), (2, TaskStatus::Queued));
}

#[tokio::test]
async fn when_its_coordinator_dies_another_looks_after_it() {
    let gate = Gate::closed();
    let held = gate.clone();
    let function = Target::start(move |arrival: &Arrival| complete(arrival).behind(&held)).await;
    let mut system = system(2).await;
    put(&system, &function.url("/"), 4).await;
    let ids = system.api.create_batch(&vec![task(); 12]).await;
    function.arrived(4).await;
    let home = until("somebody looks after it", async || shown(&system).await.home).await;
    let mut killed = None;
    for (number, coordinator) in system.coordinators.iter_mut().enumerate() {
        if coordinator.logged("coordinator").await["id"] == home.to_string() {
            killed = Some(number);
        }
    }
    system.coordinators[killed.unwrap()].kill9();
    gate.open();
    until("another looks after it", async || shown(&system).await.home.filter(|other| *other != home)).await;
    system.api.all_ended(&ids).await;
    for id in ids {
        let ended = system.api.get(id).await;
        assert_eq!((ended.status, ended.attempt), (TaskStatus::Complete, 1), "{ended:?}");
    }
    // Those whose calls died with the coordinator were called again, and no others.
    assert!((12..=16).contains(&function.count()), "{}", function.count());
}

#[tokio::test]
async fn it_goes_by_what_was_put_last_and_drains_until_then() {
    let (old, new) = (Target::start(complete).await, Target::start(complete).await);
    let system = system(1).await;
    put(&system, &old.url("/"), 1).await;
    system.api.run(task()).await;
    assert_eq!(system.api.send(Method::POST, "/v1/workers/shout/drain", None, &[]).await.status, 202);
    until("it drains", async || {
        let workers = system.api.workers().await;
        (serde_json::to_value(&workers[0]).unwrap()["status"] == "DRAINING").then_some(())
    })
    .await;
    let changed = put(&system, &new.url("/"), 5).await;
    assert_eq!((changed.url, changed.slots), (new.url("/"), 5));
    until("calls go there", async || {
        system.api.run(task()).await;
        (new.count() > 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_put_is_checked() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let good = json!({"url": "https://example.com/run", "queues": ["a"], "push_secret": "a-secret-of-16-chars"});
    for (field, value, pointer) in [
        ("url", json!("ftp://example.com/"), "/url"),
        ("url", json!("http://0.0.0.0/"), "/url"),
        ("url", json!(format!("https://example.com/{}", "x".repeat(200))), "/url"),
        ("slots", json!(0), "/slots"),
        ("queues", json!([]), "/queues"),
        ("queues", json!(["$webhooks"]), "/queues/0"),
        ("labels", json!({"a": "\u{1}"}), "/labels/a"),
        ("http", json!(false), "/http"),
        ("push_secret", json!("short"), "/push_secret"),
        ("heartbeat", json!(1), "/heartbeat"),
    ] {
        let mut wrong = good.clone();
        wrong[field] = value;
        let reply = system.api.send(Method::PUT, "/v1/url-workers/x", Some(&wrong), &[]).await;
        let problem: Problem = reply.expect(422);
        assert_eq!(problem.errors[0].pointer, pointer);
    }
    let reply = system.api.send(Method::PUT, "/v1/url-workers/a%20b", Some(&good), &[]).await;
    assert_eq!(reply.expect::<Problem>(400).errors[0].pointer, "worker_id");
    let reply = system.api.send(Method::PUT, "/v1/url-workers/x", Some(&good), &[]).await;
    assert!(!reply.text.contains("a-secret-of-16-chars"), "the secret is not read back");
    assert_eq!(reply.status, 201);
}

#[tokio::test]
async fn the_function_in_python_is_called() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/worker/examples/function.py");
    let mut command = Command::new("python3");
    command
        .args([script, "0"])
        .env("PUSH_SECRET", "the-secret-of-the-function")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut url = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
    let system = system(1).await;
    put(&system, url.trim(), 2).await;
    let ended = system.api.run(task()).await;
    let failed = system.api.run(json!({"queue": "functions", "http": {"url": "http://x/"}, "max_attempts": 1})).await;
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((ended.status, ended.result.unwrap().stdout.as_deref()), (TaskStatus::Complete, Some("HELLO")));
    assert_eq!((failed.status, failed.error.unwrap().code), (TaskStatus::Failed, ErrorCode::WorkerError));
}
