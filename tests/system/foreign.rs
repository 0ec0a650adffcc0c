//! Workers that are not ours: a page of Python, and one of JavaScript, written from docs/workers.md.

use std::process::Command;

use serde_json::json;
use taskmaster_openapi::task::{ErrorCode, TaskStatus};

use crate::support::{JOIN_TOKEN, Process, System, Target};

const PYTHON: (&str, &str) = ("python3", "worker.py");
const NODE: (&str, &str) = ("node", "worker.js");

/// Has the worker join there, and do what workers do.
async fn works(system: &System, url: &str, (program, script): (&str, &str)) {
    let path = format!("{}/worker/examples/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(program);
    command.args([&path, "--coordinator", url, "--join-token", JOIN_TOKEN, "--allow-commands", "--label", "zone=eu"]);
    let mut worker = Process::spawn_command(script, command);
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

    let task = system.api.run(json!({"command": "true", "requires": {"zone": "eu"}})).await;
    assert_eq!((task.status, task.worker_id.as_ref()), (TaskStatus::Complete, Some(&id)), "{task:?}");

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
    works(&system, &system.coordinator_urls[0], PYTHON).await;
}

#[tokio::test]
async fn a_worker_in_python_joins_through_the_gateway_and_runs_tasks() {
    let system = System::builder().workers(0).start().await;
    works(&system, &system.api.url, PYTHON).await;
}

#[tokio::test]
async fn a_worker_in_javascript_joins_through_the_gateway_and_runs_tasks() {
    let system = System::builder().workers(0).start().await;
    works(&system, &system.api.url, NODE).await;
}

#[tokio::test]
async fn a_worker_that_takes_fewer_than_it_has_room_for_is_given_the_rest_as_it_gets_through_with_them() {
    let source = std::fs::read_to_string(format!("{}/worker/examples/worker.py", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let modest = source.replacen("if room() == 0:", "if len(waiting) + len(running) > 1:", 1);
    assert_ne!(modest, source);
    let system = System::builder().workers(0).start().await;
    let mut command = Command::new("python3");
    command.args(["-c", &modest, "--coordinator", &system.coordinator_urls[0], "--join-token", JOIN_TOKEN]);
    let _worker = Process::spawn_command("a modest worker", command);
    system.workers_listed(1).await;
    let target = Target::quick().await;
    let ids = system.api.create_batch(&vec![target.task(); 300]).await;
    // Were it given none until its next heartbeat, 5 s later, each time that it has not taken all, it would take minutes.
    system.api.all_ended(&ids).await;
    assert!(target.count() == 300 && target.most_in_progress() <= 2, "{}", target.most_in_progress());
}

/// Commands of docs/workers.md that other tests run: which, and where.
const TESTED_ELSEWHERE: [(&str, &str); 3] = [
    ("python3 worker/examples/worker.py ", "above"),
    ("node worker/examples/worker.js ", "above"),
    ("taskmaster conformance -- python3 worker/examples/worker.py ", "tests/conformance.rs"),
];

#[tokio::test]
async fn what_the_page_about_workers_tells_to_type_works() {
    let document = include_str!("../../docs/workers.md");
    let blocks = document.split("\n```").filter_map(|part| part.strip_prefix("sh\n"));
    let commands: Vec<&str> = blocks.flat_map(str::lines).collect();
    let (curls, others): (Vec<&str>, Vec<&str>) = commands.iter().partition(|command| command.starts_with("curl "));
    for command in others {
        assert!(TESTED_ELSEWHERE.iter().any(|(begin, _)| command.starts_with(begin)), "no test runs `{command}`");
    }
    let system = System::builder().workers(0).start().await;
    let address = system.api.url.strip_prefix("http://").unwrap();
    for command in &curls {
        let checked = command.replacen("curl ", "curl --fail-with-body --show-error --max-time 90 ", 1);
        let ran = Command::new("sh").arg("-c").arg(checked.replace("127.0.0.1:8081", address)).output().unwrap();
        assert!(ran.status.success(), "{command}\n{}", String::from_utf8_lossy(&ran.stdout));
    }
    let [task] = system.api.list("").await.try_into().unwrap();
    assert_eq!((task.requires["gpu"].as_str(), curls.len()), ("a100", 3));
}
