//! HTTP tasks: sent as given, judged by status, kept within bounds, and only to allowed addresses.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use taskmaster_openapi::limits::OUTPUT_BYTES_MAX;
use taskmaster_openapi::report::{ReportStatus, StatusReport};
use taskmaster_openapi::response::ResponseRules;
use taskmaster_openapi::task::{Completion, ErrorCode, HttpMethod, HttpWork, Work};
use taskmaster_openapi::worker::{SubmittedTask, WorkerState, paths};
use taskmaster_worker::Config;

use crate::coordinator::Coordinator;
use crate::fixture::{TestWorker, config, http_get, task};
use crate::target::Target;

/// Runs tasks on one worker; outcomes in the order of the tasks.
async fn run(settings: impl FnOnce(Config) -> Config, tasks: Vec<SubmittedTask>) -> Vec<StatusReport> {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, settings(config(&coordinator))).await;
    let claims: Vec<_> = tasks.iter().map(crate::fixture::claim).collect();
    worker.submit_all(tasks).await;
    let mut outcomes = Vec::new();
    for claim in claims {
        outcomes.push(coordinator.outcome(claim).await);
    }
    worker.stop().await;
    outcomes
}

async fn get(url: String) -> StatusReport {
    run(|config| config, vec![http_get(url)]).await.remove(0)
}

fn code(outcome: &StatusReport) -> ErrorCode {
    assert_eq!(outcome.status, ReportStatus::Failed, "{outcome:?}");
    outcome.error.as_ref().unwrap().code
}

#[tokio::test]
async fn a_request_is_sent_exactly_as_given() {
    let target = Target::start().await;
    let headers = BTreeMap::from([
        ("X-Custom".to_owned(), "a, b".to_owned()),
        ("authorization".to_owned(), "Basic abc".to_owned()),
        ("content-type".to_owned(), "text/x-mine".to_owned()),
    ]);
    let url = format!("{}/path?q=%20x", target.url);
    let mut text = task(Work::Http(HttpWork {
        method: HttpMethod::Put,
        url: url.clone(),
        headers,
        body: Some("{\"ü\": 1}".into()),
        ..HttpWork::default()
    }));
    text.attempt = 3;
    let bytes = task(Work::Http(HttpWork {
        method: HttpMethod::Post,
        url,
        body_base64: Some(BASE64_STANDARD.encode([0, 255])),
        ..HttpWork::default()
    }));
    let outcomes = run(|config| Config { slots: 1, ..config }, vec![text.clone(), bytes]).await;
    assert!(outcomes.iter().all(|outcome| outcome.status == ReportStatus::Complete));
    let received = target.received();
    let first = &received[0];
    assert_eq!((first.method.as_str(), first.path.as_str()), ("PUT", "/path?q=%20x"));
    assert_eq!(first.body, "{\"ü\": 1}");
    for (name, value) in [
        ("x-custom", "a, b"),
        ("authorization", "Basic abc"),
        ("content-type", "text/x-mine"),
        ("taskmaster-task-id", &text.task_id.to_string()),
        ("taskmaster-attempt", "3"),
        ("user-agent", concat!("TaskMaster/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(first.headers[name], value, "{name}");
    }
    assert_eq!(received[1].body.as_ref(), [0, 255]);
    assert!(!received[1].headers.contains_key("content-type"));
}

#[tokio::test]
async fn a_2xx_is_success_and_all_else_fails_without_following() {
    let target = Target::start().await;
    let paths = ["/status/204", "/status/400", "/status/500", "/status/410", "/redirect"];
    let outcomes =
        run(|config| config, paths.iter().map(|path| http_get(format!("{}{path}", target.url))).collect()).await;
    assert_eq!(outcomes[0].status, ReportStatus::Complete);
    assert_eq!(outcomes[0].result.as_ref().unwrap().http_status, Some(204));
    for (outcome, (status, permanent)) in
        outcomes[1..].iter().zip([(400, false), (500, false), (410, true), (302, false)])
    {
        assert_eq!((code(outcome), outcome.permanent), (ErrorCode::HttpStatus, permanent), "{status}");
        assert_eq!(outcome.result.as_ref().unwrap().http_status, Some(status));
    }
    let redirect = outcomes[4].result.as_ref().unwrap();
    assert_eq!(redirect.headers["location"], "/elsewhere");
    assert!(!redirect.headers.contains_key("set-cookie"));
    assert!(target.received().iter().all(|request| request.path != "/elsewhere"));
}

#[tokio::test]
async fn a_target_says_when_to_come_back_or_never() {
    let target = Target::start().await;
    let paths = ["/header/retry-after/7/503", "/header/taskmaster-retry/never/500", "/header/retry-after/soon/503"];
    let outcomes =
        run(|config| config, paths.iter().map(|path| http_get(format!("{}{path}", target.url))).collect()).await;
    assert_eq!((outcomes[0].retry_after_ms, outcomes[0].permanent), (Some(7_000), false));
    assert_eq!((outcomes[1].retry_after_ms, outcomes[1].permanent), (None, true));
    assert_eq!((outcomes[2].retry_after_ms, outcomes[2].permanent), (None, false));
}

#[tokio::test]
async fn a_body_is_kept_up_to_the_limit_as_text_or_as_base64() {
    let target = Target::start().await;
    let long = get(format!("{}/bytes/5000000", target.url)).await;
    assert_eq!(long.status, ReportStatus::Complete);
    let result = long.result.unwrap();
    assert!(result.body_truncated && result.body.unwrap().len() == OUTPUT_BYTES_MAX);
    let result = get(format!("{}/binary", target.url)).await.result.unwrap();
    assert_eq!((result.body, result.body_base64.as_deref(), result.body_truncated), (None, Some("//4="), false));
}

#[tokio::test]
async fn a_slow_target_runs_into_the_time_out() {
    let target = Target::start().await;
    let mut slow = http_get(format!("{}/sleep/60000", target.url));
    slow.timeout_ms = 200;
    let outcome = run(|config| config, vec![slow]).await.remove(0);
    assert_eq!((code(&outcome), outcome.permanent), (ErrorCode::Timeout, false));
}

#[tokio::test]
async fn broken_exchanges_and_dead_targets_are_told_apart() {
    let target = Target::start().await;
    assert_eq!(code(&get(format!("{}/cut", target.url)).await), ErrorCode::HttpProtocol);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let outcome = get(format!("http://{free}/secret-path")).await;
    assert_eq!(code(&outcome), ErrorCode::Connect);
    assert!(!outcome.error.unwrap().message.contains("secret-path"), "URLs may hold secrets");
    assert_eq!(code(&get("http://no-such-host.invalid/".into()).await), ErrorCode::Dns);
    assert_eq!(code(&get("http://[".into()).await), ErrorCode::HttpProtocol);
}

#[tokio::test]
async fn local_targets_are_refused_by_address_by_name_and_in_disguise() {
    let target = Target::start().await;
    let port = target.url.rsplit_once(':').unwrap().1.to_owned();
    let hosts = [
        "127.0.0.1",
        "localhost",
        "127.1",
        "0x7f000001",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "017700000001",
        "0x7f.0.0x0.01",
        "127.0.0.1.",
        "0",
        "169.254.169.254",
    ];
    let tasks = hosts.iter().map(|host| http_get(format!("http://{host}:{port}/"))).collect();
    let outcomes = run(|config| Config { allow_targets: Vec::new(), ..config }, tasks).await;
    for (host, outcome) in hosts.iter().zip(&outcomes) {
        assert_eq!(code(outcome), ErrorCode::TargetRefused, "{host}");
        assert!(outcome.error.as_ref().unwrap().message.contains("--allow-targets"));
    }
    assert!(target.received().is_empty());
}

#[tokio::test]
async fn ports_of_other_protocols_are_refused_and_can_be_opened() {
    let urls = || ["http://127.0.0.1:22/", "http://localhost:6667/"].map(http_get).to_vec();
    for outcome in run(|config| config, urls()).await {
        assert_eq!(code(&outcome), ErrorCode::TargetRefused);
        assert!(outcome.error.unwrap().message.contains("--allow-target-ports"));
    }
    let open = |config| Config { allow_target_ports: vec!["all".parse().unwrap()], ..config };
    for outcome in run(open, urls()).await {
        assert_ne!(outcome.error.unwrap().code, ErrorCode::TargetRefused, "nobody serves HTTP there");
    }
}

#[tokio::test]
async fn an_allowed_network_opens_names_too() {
    let target = Target::start().await;
    let port = target.url.rsplit_once(':').unwrap().1.to_owned();
    let outcome = get(format!("http://localhost:{port}/")).await;
    assert_eq!(outcome.status, ReportStatus::Complete, "{outcome:?}");
}

/// A GET that is to be judged, or completed, in this way.
fn ruled(url: String, change: impl FnOnce(&mut HttpWork)) -> SubmittedTask {
    let mut asked = http_get(url);
    if let Work::Http(work) = &mut asked.work {
        change(work);
    }
    asked
}

#[tokio::test]
async fn an_answer_is_judged_by_the_rules_of_its_task() {
    let target = Target::start().await;
    let rules: ResponseRules = serde_json::from_str(r#"{"success": [404], "final": [500], "retry": [410]}"#).unwrap();
    let judged =
        |status: u16| ruled(format!("{}/status/{status}", target.url), |work| work.response = Some(rules.clone()));
    let outcomes = run(|config| config, [404, 200, 500, 410].map(judged).to_vec()).await;
    assert_eq!(outcomes[0].status, ReportStatus::Complete);
    for (outcome, permanent) in outcomes[1..].iter().zip([false, true, false]) {
        assert_eq!((code(outcome), outcome.permanent), (ErrorCode::HttpStatus, permanent));
    }
}

#[tokio::test]
async fn a_202_detaches_a_task_that_is_completed_by_a_callback_and_no_other() {
    let target = Target::start().await;
    let completed =
        |status: u16, completion| ruled(format!("{}/status/{status}", target.url), |work| work.completion = completion);
    let tasks = [
        completed(202, Completion::Callback),
        completed(202, Completion::Answer),
        completed(200, Completion::Callback),
    ];
    let outcomes = run(|config| config, tasks.to_vec()).await;
    let statuses: Vec<ReportStatus> = outcomes.iter().map(|outcome| outcome.status).collect();
    assert_eq!(statuses, [ReportStatus::Detached, ReportStatus::Complete, ReportStatus::Complete]);
    assert!(outcomes[0].started_ms_ago.is_some() && outcomes[0].result.is_none());
}

#[tokio::test]
async fn a_trace_is_passed_on_unless_the_task_names_its_own() {
    let target = Target::start().await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = |own: Option<&str>| {
        let asked = ruled(target.url.clone(), |work| {
            work.headers.extend(own.map(|own| ("Traceparent".to_owned(), own.to_owned())));
        });
        SubmittedTask { traceparent: Some(trace.into()), tracestate: Some("a=1".into()), ..asked }
    };
    run(|config| Config { slots: 1, ..config }, vec![traced(None), traced(Some("mine")), http_get(&target.url)]).await;
    let received = target.received();
    assert_eq!(
        (&received[0].headers["traceparent"], &received[0].headers["tracestate"]),
        (&trace.parse().unwrap(), &"a=1".parse().unwrap())
    );
    assert_eq!(received[1].headers["traceparent"], "mine");
    assert!(!received[2].headers.contains_key("traceparent"));
}

#[tokio::test]
async fn a_host_that_fails_again_and_again_is_left_alone_and_shown() {
    let (target, other) = (Target::start().await, Target::start().await);
    let coordinator = Coordinator::start().await;
    let settings = Config { slots: 1, circuit_failures: 3, ..config(&coordinator) };
    let worker = TestWorker::with(&coordinator, settings).await;
    let ended = async |asked: SubmittedTask| coordinator.outcome(worker.submit(asked).await).await;
    let failing = || http_get(format!("{}/status/503", target.url));
    for _ in 0..3 {
        assert_eq!(code(&ended(failing()).await), ErrorCode::HttpStatus);
    }
    let put_off = ended(failing()).await;
    assert_eq!((put_off.status, put_off.started_ms_ago, put_off.error), (ReportStatus::Released, None, None));
    assert!((1..=2_000).contains(&put_off.retry_after_ms.unwrap()), "{:?}", put_off.retry_after_ms);
    assert_eq!(ended(http_get(&other.url)).await.status, ReportStatus::Complete);
    let whatever = SubmittedTask { try_always: true, ..failing() };
    assert_eq!(ended(whatever).await.status, ReportStatus::Failed);
    assert_eq!(target.received().len(), 4);
    let status = reqwest::Client::new().get(format!("{}{}", worker.address, paths::STATUS));
    let state: WorkerState = status.bearer_auth(&worker.push_secret).send().await.unwrap().json().await.unwrap();
    let [open] = &state.circuits[..] else { panic!("{state:?}") };
    assert_eq!((open.host.as_str(), open.failures), (target.url.as_str(), 3));
    worker.stop().await;
}
