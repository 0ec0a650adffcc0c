//! HTTP tasks: what answers mean, the trace that they are part of, signatures, targets that finish after a 202, and hosts that fail.

use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::problem::Problem;
use taskmaster_openapi::signing::SigningSecretList;
use taskmaster_openapi::task::{ErrorCode, Task, TaskStatus};
use taskmaster_store::webhooks::WebhookSecret;
use uuid::Uuid;

use crate::support::{Answer, Api, Arrival, Gate, JOIN_TOKEN, Process, Reply, System, Target, Up, until};

/// Answers with the status that the path names.
async fn as_asked() -> Target {
    Target::start(|arrival| Answer::status(arrival.path.trim_start_matches('/').parse().unwrap())).await
}

/// Answers 202, and leaves the rest to the test.
async fn accepting() -> Target {
    Target::start(|_| Answer::status(202)).await
}

fn header<'a>(arrival: &'a Arrival, name: &str) -> &'a str {
    arrival.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

fn calling_back(target: &Target, more: Value) -> Value {
    let mut task =
        json!({"http": {"url": target.url("/"), "completion": "callback"}, "retry": {"delays_seconds": [0]}});
    for (name, value) in more.as_object().unwrap() {
        let place = if name == "heartbeat_timeout_seconds" { &mut task["http"] } else { &mut task };
        place[name] = value.clone();
    }
    task
}

/// What the target of this request says of its attempt.
async fn say(api: &Api, arrival: &Arrival, report: Value) -> Reply {
    let url = header(arrival, "taskmaster-callback-url");
    let (_, path) = url.split_once("/v1/").unwrap();
    api.post(&format!("/v1/{path}"), &report).await
}

/// A task that calls back, whose worker is done with it; and its request.
async fn accepted(system: &System, target: &Target, more: Value) -> (Task, Arrival) {
    let before = target.count();
    let task = system.api.create(calling_back(target, more)).await;
    target.arrived(before + 1).await;
    let waited_for = async || Some(system.api.get(task.id).await).filter(|task| task.progress.is_some());
    let task = until("it is its target's", waited_for).await;
    let arrival = target.of(task.id).pop().unwrap();
    (task, arrival)
}

#[tokio::test]
async fn rules_say_which_answers_are_success_which_are_tried_again_and_which_are_final() {
    let target = as_asked().await;
    let system = System::builder().start().await;
    let run = async |status: u16, response: Value| {
        let http = json!({"url": target.url(&format!("/{status}")), "response": response});
        let task = json!({"http": http, "max_attempts": 2, "retry": {"delays_seconds": [0]}});
        let task = system.api.run(task).await;
        assert_eq!(task.result.unwrap().http_status, Some(status));
        (task.status, task.attempt)
    };
    let rules = json!({"success": ["200-204", 404], "retry": [410], "final": ["400-403"]});
    assert_eq!(run(404, rules.clone()).await, (TaskStatus::Complete, 1));
    assert_eq!(run(204, rules.clone()).await, (TaskStatus::Complete, 1));
    assert_eq!(run(205, rules.clone()).await, (TaskStatus::Failed, 2), "no success any more");
    assert_eq!(run(410, rules.clone()).await, (TaskStatus::Failed, 2));
    assert_eq!(run(403, rules.clone()).await, (TaskStatus::Failed, 1));
    assert_eq!(run(503, rules).await, (TaskStatus::Failed, 2), "as usual");
    assert_eq!(run(202, json!({})).await, (TaskStatus::Complete, 1), "as usual");

    for (http, pointer) in [
        (json!({"response": {"success": [404], "final": ["400-499"]}}), "/http/response/final/0"),
        (json!({"response": {"retry": ["5xx"]}}), "/http/response/retry/0"),
        (json!({"heartbeat_timeout_seconds": 5}), "/http/heartbeat_timeout_seconds"),
        (json!({"sign": true, "headers": {"Webhook-Id": "1"}}), "/http/headers/Webhook-Id"),
    ] {
        let mut task = json!({"http": http});
        task["http"]["url"] = json!(target.url("/200"));
        let problem: Problem = system.api.post("/v1/tasks", &task).await.expect(422);
        assert_eq!(problem.errors[0].pointer, pointer);
    }
}

#[tokio::test]
async fn a_trace_goes_from_the_request_through_each_attempt_to_targets_and_commands() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let target = as_asked().await;
    let system = System::builder().start().await;
    let sent = [("traceparent", PARENT), ("tracestate", "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE")];
    let create = async |task: Value| -> Task {
        let task: Task = system.api.send(Method::POST, "/v1/tasks", Some(&task), &sent).await.expect(201);
        assert_eq!(task.traceparent.as_deref(), Some(PARENT));
        system.api.ended(task.id).await
    };
    let is_of_trace = |trace: &str| {
        trace.len() == 55 && trace[..36] == PARENT[..36] && trace[36..52] != PARENT[36..52] && trace.ends_with("-01")
    };
    let http = json!({"url": target.url("/500")});
    let failed = create(json!({"http": http, "max_attempts": 2, "retry": {"delays_seconds": [0]}})).await;
    assert_eq!(failed.traceparent.as_deref(), Some(PARENT), "also once it has ended");
    let attempts = target.of(failed.id);
    let traces: Vec<&str> = attempts.iter().map(|arrival| header(arrival, "traceparent")).collect();
    assert!(traces.len() == 2 && traces.iter().all(|trace| is_of_trace(trace)), "{traces:?}");
    assert_ne!(traces[0], traces[1], "each attempt has a place of its own");
    assert_eq!(header(&attempts[0], "tracestate"), "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");

    let command = create(json!({"command": "echo $TRACEPARENT $TRACESTATE"})).await;
    let said = command.result.unwrap().stdout.unwrap();
    let (trace, state) = said.trim().split_once(' ').unwrap();
    assert!(is_of_trace(trace), "{trace}");
    assert_eq!(state, "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");

    let own = create(json!({"http": {"url": target.url("/200"), "headers": {"Traceparent": "mine"}}})).await;
    assert_eq!(header(&target.of(own.id)[0], "traceparent"), "mine");

    let batch = json!({"tasks": [{"http": {"url": target.url("/200")}}]});
    let created = system.api.send(Method::POST, "/v1/tasks/batch", Some(&batch), &sent).await.json();
    let id: Uuid = created["tasks"][0]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(system.api.ended(id).await.traceparent.as_deref(), Some(PARENT));

    let wrong = [("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more")];
    let task = json!({"http": {"url": target.url("/200")}});
    let task: Task = system.api.send(Method::POST, "/v1/tasks", Some(&task), &wrong).await.expect(201);
    assert_eq!(system.api.ended(task.id).await.traceparent, None);
    assert!(!target.of(task.id)[0].headers.contains_key("traceparent"));
}

#[tokio::test]
async fn requests_are_signed_and_a_new_secret_overlaps_with_the_old() {
    let target = as_asked().await;
    let system = System::builder().start().await;
    let sent = async |http: Value| {
        let mut http = http;
        http["url"] = json!(target.url("/200"));
        let task = system.api.run(json!({"http": http})).await;
        assert!(!format!("{task:?}").contains("signature"));
        target.of(task.id).pop().unwrap()
    };
    let signatures = |arrival: &Arrival, secrets: &SigningSecretList| -> Vec<bool> {
        let (id, at) = (header(arrival, "webhook-id"), header(arrival, "webhook-timestamp"));
        let given: Vec<&str> = header(arrival, "webhook-signature").split(' ').collect();
        let sign = |secret: &str| WebhookSecret::parse(secret).unwrap().sign(id, at.parse().unwrap(), &arrival.body);
        secrets.secrets.iter().map(|secret| given.contains(&sign(&secret.secret).as_str())).collect()
    };
    let secrets: SigningSecretList = system.api.fetch("/v1/signing-secrets").await.expect(200);
    assert_eq!(secrets.secrets.len(), 1);
    let arrival = sent(json!({"sign": true, "body": "{\"order\": 7}"})).await;
    assert_eq!(signatures(&arrival, &secrets), [true]);
    let id = format!("msg_{}_1", arrival.task_id.unwrap().simple());
    assert_eq!(header(&arrival, "webhook-id"), id);
    let bytes = sent(json!({"sign": true, "body_base64": "AP8="})).await;
    assert_eq!((&bytes.body[..], signatures(&bytes, &secrets)), (&[0, 255][..], vec![true]));
    assert!(!sent(json!({})).await.headers.contains_key("webhook-signature"));

    let rotate = async |overlap: Value| system.api.post("/v1/signing-secrets/rotate", &overlap).await;
    let rotated: SigningSecretList = rotate(json!({"overlap_seconds": 60})).await.expect(200);
    assert_eq!(rotated.secrets[1].secret, secrets.secrets[0].secret);
    assert!(rotated.secrets[1].expires_at.is_some());
    let arrival = sent(json!({"sign": true})).await;
    assert_eq!(signatures(&arrival, &rotated), [true, true]);
    let again: SigningSecretList = rotate(json!({"overlap_seconds": 0})).await.expect(200);
    assert_eq!(again.secrets.len(), 1);
    let arrival = sent(json!({"sign": true})).await;
    assert_eq!((signatures(&arrival, &again), signatures(&arrival, &rotated)), (vec![true], vec![false, false]));
    assert_eq!(
        rotate(json!({"overlap_seconds": -1})).await.expect::<Problem>(422).errors[0].pointer,
        "/overlap_seconds"
    );
}

#[tokio::test]
async fn a_target_that_answered_202_takes_no_slot_says_how_far_it_is_and_ends_its_task_once() {
    let target = accepting().await;
    let system = System::builder().worker_args(&["--slots", "1"]).start().await;
    let (task, arrival) = accepted(&system, &target, json!({"heartbeat_timeout_seconds": 60})).await;
    assert_eq!((task.attempt, task.progress.unwrap().percent), (1, None));
    assert_eq!(system.api.run(json!({"command": "true"})).await.status, TaskStatus::Complete, "the only slot is free");

    let running = say(&system.api, &arrival, json!({"status": "RUNNING", "percent": 40, "message": "page 4"})).await;
    assert_eq!(running.expect::<Value>(200), json!({"outcome": "recorded"}));
    let progress = system.api.get(task.id).await.progress.unwrap();
    assert_eq!((progress.percent, progress.message.as_deref()), (Some(40.0), Some("page 4")));
    assert!(progress.heard_at.is_some());
    let running = say(&system.api, &arrival, json!({"status": "RUNNING"})).await;
    assert_eq!((running.status.as_u16(), system.api.get(task.id).await.progress.unwrap().percent), (200, Some(40.0)));

    let complete = json!({"status": "COMPLETE", "result": {"pages": 12}});
    assert_eq!(say(&system.api, &arrival, complete.clone()).await.expect::<Value>(200)["outcome"], "recorded");
    let ended = system.api.get(task.id).await;
    assert_eq!((ended.status, ended.attempt, ended.progress.is_none()), (TaskStatus::Complete, 1, true));
    assert_eq!(ended.result.unwrap().body.as_deref(), Some(r#"{"pages":12}"#));
    assert_eq!(say(&system.api, &arrival, complete).await.expect::<Value>(200)["outcome"], "already_recorded");
    for late in [json!({"status": "RUNNING"}), json!({"status": "FAILED"})] {
        assert_eq!(say(&system.api, &arrival, late).await.expect::<Value>(410)["code"], "attempt_over");
    }
    assert_eq!((target.count(), system.api.get(task.id).await.status), (1, TaskStatus::Complete));

    let token = header(&arrival, "taskmaster-callback-url").split_once("token=").unwrap().1;
    for (wrong, status, code) in [
        (format!("{token}0"), 401, "unauthorized"),
        (token.replacen('.', ".1", 1), 401, "unauthorized"),
        (String::new(), 401, "unauthorized"),
    ] {
        let reply = system.api.post(&format!("/v1/attempts?token={wrong}"), &json!({"status": "COMPLETE"})).await;
        assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (status, Some(code)), "{wrong}");
        assert!(!reply.text.contains(token));
    }
    assert_eq!(system.api.send(Method::POST, "/v1/attempts", Some(&json!({})), &[]).await.status.as_u16(), 400);
    assert_eq!(system.database.number("select count(*) from detached").await, 0);
}

#[tokio::test]
async fn a_target_that_fails_later_is_tried_again_unless_it_says_never() {
    let target = accepting().await;
    let system = System::builder().start().await;
    let (task, first) = accepted(&system, &target, json!({})).await;
    let failed = json!({"status": "FAILED", "message": "no paper"});
    assert_eq!(say(&system.api, &first, failed.clone()).await.status.as_u16(), 200);
    let second = target.arrived(2).await.pop().unwrap();
    assert_eq!((second.task_id, second.attempt), (Some(task.id), Some(2)));
    assert_eq!(
        say(&system.api, &first, json!({"status": "COMPLETE"})).await.status.as_u16(),
        410,
        "not its turn any more"
    );
    let last = json!({"status": "FAILED", "message": "no ink", "permanent": true, "result": {"pages": 0.5}});
    assert_eq!(say(&system.api, &second, last.clone()).await.status.as_u16(), 200);
    let ended = system.api.ended(task.id).await;
    assert_eq!((ended.status, ended.attempt), (TaskStatus::Failed, 2));
    let error = ended.error.unwrap();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::TargetFailed, "no ink"));
    assert_eq!(ended.result.unwrap().body.as_deref(), Some(r#"{"pages":0.5}"#));
    assert_eq!(say(&system.api, &second, last).await.expect::<Value>(200)["outcome"], "already_recorded");
    let attempts = system.api.attempts(task.id).await;
    assert_eq!(attempts[0].error.as_ref().unwrap().message, "no paper");
}

#[tokio::test]
async fn a_target_that_is_silent_for_too_long_has_failed() {
    let target = accepting().await;
    let system = System::builder().start().await;
    let silent = system.api.run(calling_back(&target, json!({"timeout_seconds": 1, "max_attempts": 1}))).await;
    assert_eq!((silent.status, silent.error.unwrap().code), (TaskStatus::Failed, ErrorCode::Timeout));

    let beats = json!({"heartbeat_timeout_seconds": 2, "max_attempts": 2});
    let (task, first) = accepted(&system, &target, beats).await;
    let before = target.count();
    // Heartbeats keep it: four seconds without one would have ended it.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(say(&system.api, &first, json!({"status": "RUNNING"})).await.status.as_u16(), 200);
    }
    assert_eq!(target.count(), before);
    let second = target.arrived(before + 1).await.pop().unwrap();
    assert_eq!((second.task_id, second.attempt), (Some(task.id), Some(2)));
    let attempts = system.api.attempts(task.id).await;
    assert_eq!(attempts[0].error.as_ref().unwrap().code, ErrorCode::HeartbeatTimeout);
    assert_eq!(say(&system.api, &first, json!({"status": "RUNNING"})).await.status.as_u16(), 410);
    assert_eq!(say(&system.api, &second, json!({"status": "COMPLETE"})).await.status.as_u16(), 200);
    assert_eq!(system.api.ended(task.id).await.status, TaskStatus::Complete);
}

#[tokio::test]
async fn a_cancel_ends_what_waits_for_its_target_at_once_and_the_next_heartbeat_says_so() {
    let target = accepting().await;
    let system = System::builder().start().await;
    let (task, arrival) = accepted(&system, &target, json!({})).await;
    let (status, cancelled) = system.api.cancel(task.id).await;
    assert_eq!((status.as_u16(), cancelled.status), (200, TaskStatus::Cancelled));
    for late in ["RUNNING", "COMPLETE", "FAILED"] {
        let reply = say(&system.api, &arrival, json!({"status": late})).await;
        assert_eq!((reply.status.as_u16(), reply.json()["code"].as_str()), (410, Some("attempt_over")));
    }
    assert_eq!(system.api.get(task.id).await.status, TaskStatus::Cancelled);
    assert_eq!(system.database.number("select count(*) from detached").await, 0);

    // Asked for while the request is on its way: recorded once the worker says that it was accepted.
    let gate = Gate::closed();
    let slow = Target::start({
        let gate = gate.clone();
        move |_| Answer::status(202).behind(&gate)
    })
    .await;
    let task = system.api.create(calling_back(&slow, json!({}))).await;
    slow.arrived(1).await;
    system.api.wait_until(task.id, TaskStatus::Started).await;
    system.api.cancel(task.id).await;
    gate.open();
    assert_eq!(system.api.ended(task.id).await.status, TaskStatus::Cancelled);
}

#[tokio::test]
async fn a_word_that_comes_before_the_202_counts() {
    let gate = Gate::closed();
    let target = Target::start({
        let gate = gate.clone();
        move |_| Answer::status(202).behind(&gate)
    })
    .await;
    let system = System::builder().start().await;
    let ids = system.api.create_batch(&vec![calling_back(&target, json!({})); 2]).await;
    let arrivals = target.arrived(2).await;
    let of = |id: Uuid| arrivals.iter().find(|arrival| arrival.task_id == Some(id)).unwrap();
    assert_eq!(say(&system.api, of(ids[0]), json!({"status": "COMPLETE"})).await.status.as_u16(), 200);
    assert_eq!(say(&system.api, of(ids[1]), json!({"status": "RUNNING", "percent": 1})).await.status.as_u16(), 200);
    assert_eq!(system.api.get(ids[0]).await.status, TaskStatus::Complete);
    let running = system.api.get(ids[1]).await;
    assert_eq!((running.status, running.progress.unwrap().percent), (TaskStatus::Started, Some(1.0)));
    gate.open();
    let let_go = async || system.api.workers().await.iter().all(|worker| worker.held == 0).then_some(());
    until("the worker has let go of both", let_go).await;
    let running = system.api.get(ids[1]).await;
    assert_eq!((running.status, running.progress.unwrap().percent), (TaskStatus::Started, Some(1.0)));
    assert_eq!(say(&system.api, of(ids[1]), json!({"status": "COMPLETE"})).await.status.as_u16(), 200);
    system.api.all_ended(&ids).await;
    assert_eq!(target.count(), 2);
}

#[tokio::test]
async fn neither_the_death_of_the_worker_nor_of_the_coordinator_ends_what_its_target_has_accepted() {
    let target = accepting().await;
    let mut system = System::builder().start().await;
    let (task, arrival) = accepted(&system, &target, json!({})).await;
    system.workers[0].kill9();
    system.workers_listed(0).await;
    system.coordinators[0].kill9();
    system.add_coordinator().await;
    system.add_worker(&[]).await;
    system.workers_listed(1).await;
    assert_eq!(system.api.run(json!({"command": "true"})).await.status, TaskStatus::Complete);
    assert_eq!(system.api.get(task.id).await.status, TaskStatus::Started);
    assert_eq!(say(&system.api, &arrival, json!({"status": "COMPLETE"})).await.status.as_u16(), 200);
    let ended = system.api.ended(task.id).await;
    assert_eq!((ended.status, ended.attempt, target.count()), (TaskStatus::Complete, 1, 1));
}

#[tokio::test]
async fn a_worker_that_knows_no_rules_gets_none_of_the_tasks_that_have_some() {
    let target = as_asked().await;
    let mut system = System::builder().workers(0).start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/worker/examples/worker.py");
    let mut command = Command::new("python3");
    command.args([script, "--coordinator", &system.coordinator_urls[0], "--join-token", JOIN_TOKEN]);
    let _foreign = Process::spawn_command("worker.py", command);
    system.workers_listed(1).await;
    let ruled = json!({"http": {"url": target.url("/404"), "response": {"success": [404]}}});
    let ruled = system.api.create(ruled).await;
    assert_eq!(system.api.run(json!({"http": {"url": target.url("/200")}})).await.status, TaskStatus::Complete);
    assert_eq!(system.api.get(ruled.id).await.status, TaskStatus::Queued);
    let ours = system.add_worker(&[]).await;
    let ended = system.api.ended(ruled.id).await;
    assert_eq!((ended.status, ended.worker_id), (TaskStatus::Complete, Some(ours)));
}

#[tokio::test]
async fn a_function_that_answers_202_and_calls_back_is_a_worker() {
    let system = System::builder().start().await;
    let mut command = Command::new("python3");
    command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/worker/examples/slow_function.py"), "--port", "0"]);
    let mut function = Process::spawn_command("slow_function.py", command);
    let address = |line: &str| line.strip_prefix("listening on ").map(str::to_owned);
    let url = format!("http://{}/", function.printed("its address", address).await);
    let task = |body: &str| {
        let http = json!({"url": url, "completion": "callback", "heartbeat_timeout_seconds": 30, "body": body});
        json!({"http": http})
    };
    let counted = system.api.run(task("to be or not")).await;
    assert_eq!(counted.status, TaskStatus::Complete, "{counted:?}");
    assert_eq!(counted.result.unwrap().body.as_deref(), Some(r#"{"letters":9}"#));
    let nothing = system.api.run(task("")).await;
    assert_eq!((nothing.status, nothing.attempt), (TaskStatus::Failed, 1));
    assert_eq!(nothing.error.unwrap().message, "there was nothing to count");
}

#[tokio::test]
async fn every_command_of_the_documentation_works_as_it_stands() {
    let document = include_str!("../../docs/http-tasks.md");
    let up = Up::start(&["--ephemeral"]).await;
    let mut command = Command::new("python3");
    command.args([concat!(env!("CARGO_MANIFEST_DIR"), "/worker/examples/slow_function.py"), "--port", "0"]);
    let mut function = Process::spawn_command("slow_function.py", command);
    let function = function.printed("its address", |line| line.strip_prefix("listening on ").map(str::to_owned)).await;
    let [block] = document.split("\n```").filter_map(|part| part.strip_prefix("sh\n")).collect::<Vec<_>>()[..] else {
        panic!("one block of commands");
    };
    let curl = "curl() { command curl --fail-with-body --show-error --max-time 60 \"$@\"; echo; }";
    let script = format!("set -eu\n{curl}\n{block}")
        .replace("127.0.0.1:8081", up.api.url.trim_start_matches("http://"))
        .replace("127.0.0.1:9900", &function);
    let ran = tokio::task::spawn_blocking(|| Command::new("sh").arg("-c").arg(script).output().unwrap()).await.unwrap();
    let (answers, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{answers}\n{error}");
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ended: Vec<&Value> = answers.iter().filter_map(|answer| answer.get("status")).collect();
    assert_eq!(ended, ["COMPLETE", "COMPLETE", "COMPLETE"], "{answers:?}");
    assert_eq!(answers[4]["result"]["body"], r#"{"letters":9}"#);
}

#[tokio::test]
async fn tasks_for_a_host_that_fails_again_and_again_go_back_unstarted_until_it_is_well() {
    let well = Gate::closed();
    let target = Target::start({
        let well = well.clone();
        move |arrival| match well.is_open() || arrival.path == "/fine" {
            true => Answer::ok(),
            false => Answer::status(503),
        }
    })
    .await;
    let other = Target::quick().await;
    let system = System::builder().worker_args(&["--slots", "1", "--circuit-failures", "3"]).start().await;
    let task = |path: &str| json!({"http": {"url": target.url(path)}, "max_attempts": 1});
    for _ in 0..3 {
        assert_eq!(system.api.run(task("/")).await.status, TaskStatus::Failed);
    }
    let waiting = system.api.create(task("/")).await;
    let mut events = system.api.events(&format!("task_id={}&after=0&types=task.retrying", waiting.id)).await;
    events.next().await;
    well.open();
    assert_eq!(system.api.run(other.task()).await.status, TaskStatus::Complete, "other hosts are asked");
    let ended = system.api.ended(waiting.id).await;
    assert_eq!((ended.status, ended.attempt), (TaskStatus::Complete, 1), "what was put off had used no attempt");
    assert_eq!(system.api.run(task("/")).await.status, TaskStatus::Complete);
    assert_eq!(target.count(), 5, "it was asked for none that were put off");
}
