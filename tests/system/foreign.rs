//! A worker that is not ours: a page of Python, written from the contracts.

use std::process::Command;

use serde_json::json;
use taskmaster_openapi::task::{ErrorCode, TaskStatus};

use crate::support::{JOIN_TOKEN, Process, System, Target};

/// Has the Python worker join there, and do what workers do.
async fn works(system: &System, url: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/worker/examples/worker.py");
    let mut command = Command::new("python3");
    command.args([script, "--coordinator", url, "--join-token", JOIN_TOKEN, "--allow-commands"]);
    let mut worker = Process::spawn_command("worker.py", command);
    let [id] = system.workers_listed(1).await.try_into().unwrap();
    let target = Target::quick().await;

    let http = json!({"method": "POST", "url": target.url("/x"), "headers": {"X-Ask": "why"}, "body": "hej"});
    let task = system.api.run(json!({"http": http})).await;
    assert_eq!((task.status, task.worker_id.as_ref()), (TaskStatus::Complete, Some(&id)), "{task:?}");
    assert_eq!(task.result.unwrap().http_status, Some(200));
    let [arrival] = target.of(task.id).try_into().unwrap();
    assert_eq!((arrival.method.as_str(), arrival.attempt, &arrival.body[..]), ("POST", Some(1), &b"hej"[..]));
    assert_eq!(arrival.headers["x-ask"], "why");

    let task = system.api.run(json!({"command": "echo hello"})).await;
    assert_eq!((task.status, task.worker_id.as_ref()), (TaskStatus::Complete, Some(&id)), "{task:?}");
    assert_eq!(task.result.unwrap().stdout.as_deref(), Some("hello\n"));
    let task = system
        .api
        .run(json!({"argv": ["sh", "-c", "exit 3"], "max_attempts": 2, "retry": {"delays_seconds": [0]}}))
        .await;
    assert_eq!((task.status, task.attempt), (TaskStatus::Failed, 2), "{task:?}");
    assert_eq!(task.error.unwrap().code, ErrorCode::ExitStatus);

    let ids = system.api.create_batch(&vec![target.task(); 200]).await;
    system.api.all_ended(&ids).await;
    assert_eq!(target.count(), 201);
    assert!(target.most_in_progress() <= 5, "{}", target.most_in_progress());

    worker.terminate().await;
    assert_eq!(system.api.worker_ids().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_in_python_joins_at_a_coordinator_and_runs_tasks() {
    let system = System::builder().workers(0).start().await;
    works(&system, &system.coordinator_urls[0]).await;
}

#[tokio::test]
async fn a_worker_in_python_joins_through_the_gateway_and_runs_tasks() {
    let system = System::builder().workers(0).start().await;
    works(&system, &system.api.url).await;
}
