//! Messages, written and read: pushes, reports, heartbeats, and the tasks that clients are shown.

use serde::Serialize;
use serde::de::DeserializeOwned;
use taskmaster_openapi::coordinator::{Abilities, HeartbeatRequest, UpdateTaskStatusRequest};
use taskmaster_openapi::gateway::TaskList;
use taskmaster_openapi::report::{ReportStatus, StatusReport};
use taskmaster_openapi::task::{ErrorCode, RetryPolicy, Task, TaskError, TaskResult, TaskStatus, Work};
use taskmaster_openapi::worker::{SubmitTaskRequest, SubmittedTask};
use taskmaster_service::extract;

use crate::{Call, ITEMS, Part, samples};

pub(crate) const FUNCTIONS: Part = &[
    ("contracts/write_push", || written(push())),
    ("contracts/read_push", || read(&push(), |push| push.tasks.len())),
    ("contracts/write_reports", || written(reports())),
    ("contracts/read_reports", || read(&reports(), |reports| reports.reports.len())),
    ("contracts/read_heartbeat", || read(&heartbeat(), |heartbeat| heartbeat.held.len())),
    ("contracts/write_task_list", || written(task_list())),
];

const WORKER_ID: &str = "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e";

/// As clients and servers write it.
fn written(message: impl Serialize + 'static) -> Call {
    Box::new(move || if serde_json::to_vec(&message).is_ok_and(|text| text.len() > ITEMS) { ITEMS } else { 0 })
}

/// As servers read it; `items` counts what has been read.
fn read<T: Serialize + DeserializeOwned + 'static>(message: &T, items: fn(&T) -> usize) -> Call {
    let text = serde_json::to_vec(message).unwrap_or_default();
    Box::new(move || extract::parse_json(&text).map_or(0, |message| items(&message)))
}

fn push() -> SubmitTaskRequest {
    let task = |i| SubmittedTask {
        task_id: samples::id(i),
        claim: i as i64 + 1,
        attempt: 1,
        start_in_ms: (i % 250) as f64 + 0.25,
        timeout_ms: 300_000,
        work: samples::work(i),
        traceparent: None,
        tracestate: None,
        try_always: false,
    };
    SubmitTaskRequest { worker_id: WORKER_ID.into(), tasks: (0..ITEMS).map(task).collect() }
}

/// Starts, successes and failures by turns.
fn reports() -> UpdateTaskStatusRequest {
    let report = |i: usize| {
        let status = [ReportStatus::Started, ReportStatus::Complete, ReportStatus::Failed][i % 3];
        let ended = status != ReportStatus::Started;
        let error =
            TaskError { code: ErrorCode::ExitStatus, message: "the command ended with exit status 1".to_owned() };
        StatusReport {
            task_id: samples::id(i),
            claim: i as i64 + 1,
            status,
            started_ms_ago: Some(120),
            ended_ms_ago: ended.then_some(3),
            result: ended.then(|| result(i)),
            error: (status == ReportStatus::Failed).then_some(error),
            permanent: false,
            retry_after_ms: None,
        }
    };
    UpdateTaskStatusRequest { worker_id: WORKER_ID.into(), reports: (0..ITEMS).map(report).collect() }
}

fn result(i: usize) -> TaskResult {
    TaskResult {
        exit_code: Some(0),
        stdout: Some(format!("hello {i}\n\"and\" a second line\n")),
        stderr: Some(String::new()),
        ..TaskResult::default()
    }
}

fn heartbeat() -> HeartbeatRequest {
    HeartbeatRequest {
        address: "http://10.0.0.1:4000".into(),
        slots: 5,
        room: 10,
        abilities: Abilities { commands: true, http: true, http_rules: true, queues: Vec::new() },
        labels: [("zone".to_owned(), "a".to_owned())].into(),
        push_secret: "a secret of sixteen or more".into(),
        held: samples::claims(),
        draining: false,
    }
}

fn task_list() -> TaskList {
    TaskList { tasks: (0..ITEMS).map(task).collect(), next_page_token: String::new() }
}

fn task(i: usize) -> Task {
    let (command, argv, http) = match samples::work(i) {
        Work::Command(command) => (Some(command), None, None),
        Work::Argv(argv) => (None, Some(argv), None),
        Work::Http(http) => (None, None, Some(http)),
    };
    let at = Some(samples::time(i));
    Task {
        id: samples::id(i),
        status: TaskStatus::Complete,
        command,
        argv,
        http,
        queue: "default".into(),
        requires: Default::default(),
        priority: 0,
        attempt: 1,
        max_attempts: 3,
        retry: RetryPolicy::default(),
        timeout_seconds: 300,
        tags: vec!["nightly".into()],
        worker_id: Some(WORKER_ID.into()),
        created_at: samples::time(i),
        scheduled_at: samples::time(i),
        run_at: samples::time(i),
        picked_at: at,
        started_at: at,
        completed_at: at,
        failed_at: None,
        cancelled_at: None,
        cancel_requested_at: None,
        result: Some(result(i)),
        error: None,
        schedule_id: None,
        callback: None,
        failure_callback: None,
        flow_key: None,
        traceparent: None,
        progress: None,
    }
}
