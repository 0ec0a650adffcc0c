//! The worker's contract as routes.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::{StatusCode, header};
use taskmaster_openapi::checks::{self, Findings};
use taskmaster_openapi::limits::{HELD_TASKS_MAX, INTERNAL_BODY_BYTES_MAX, REPORTS_MAX};
use taskmaster_openapi::task::Work;
use taskmaster_openapi::worker::{
    OpenCircuit, ReleaseRequest, ReleaseResponse, SubmitTaskRequest, SubmitTaskResponse, SubmittedTask, WorkerState,
    paths,
};
use taskmaster_openapi::{Code, FieldError, Problem, documents, limits};
use taskmaster_service::extract::Json;
use taskmaster_service::{Health, Secret, auth, layers};
use tower_http::timeout::TimeoutLayer;

use crate::circuits::OpenHost;
use crate::slots::Slots;

/// Longest `start_in_ms`: the longest delay a task can have.
const START_IN_MS_MAX: f64 = limits::DELAY_SECONDS_MAX * 1000.0;
/// Longest `timeout_ms`.
const TIMEOUT_MS_MAX: u64 = limits::TIMEOUT_SECONDS_MAX.unsigned_abs() * 1000;

/// Longest time for one request, its body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// What the routes need to know.
#[derive(Debug)]
pub(crate) struct Api {
    pub worker_id: String,
    pub push_secret: Secret,
    pub allow_commands: bool,
    pub slots_count: i64,
    pub slots: Arc<Slots>,
}

/// The routes that ask for the push secret: what the contract has, besides health.
fn guarded() -> [(&'static str, MethodRouter<Arc<Api>>); 3] {
    [(paths::TASKS, post(submit_task)), (paths::RELEASE, post(release_tasks)), (paths::STATUS, get(get_worker_status))]
}

/// The whole router: the contract, its document, health, and what every router is wrapped in.
pub(crate) fn router(api: Arc<Api>, health: &Health) -> Router {
    let mut contract = Router::new();
    for (path, handler) in guarded() {
        contract = contract.route(path, handler.route_layer(from_fn_with_state(api.clone(), authorize)));
    }
    let timeout = TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST_TIMEOUT);
    let contract = contract.layer(timeout).with_state(api);
    layers::wrap(contract.route(paths::DOCUMENT, get(document)).merge(health.router()))
}

async fn authorize(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    match auth::bearer(request.headers()) {
        Some(given) if auth::same_secret(given, api.push_secret.expose()) => next.run(request).await,
        _ => auth::unauthorized("Present the push_secret of this worker's heartbeats as the bearer token.")
            .into_response(),
    }
}

async fn submit_task(
    State(api): State<Arc<Api>>,
    Json(request): Json<SubmitTaskRequest, INTERNAL_BODY_BYTES_MAX>,
) -> Result<axum::Json<SubmitTaskResponse>, Problem> {
    api.check(&request)?;
    let able = |work: &Work| api.allow_commands || matches!(work, Work::Http(_));
    let (results, room) = {
        let mut board = api.slots.board();
        // Read under the lock: whatever happened before this moment is older than these tasks.
        let results = board.submit(request.tasks, able, std::time::Instant::now());
        (results, board.room())
    };
    api.slots.start_due();
    Ok(axum::Json(SubmitTaskResponse { results, room: as_i64(room), reports: Vec::new() }))
}

async fn release_tasks(
    State(api): State<Arc<Api>>,
    Json(request): Json<ReleaseRequest, INTERNAL_BODY_BYTES_MAX>,
) -> Result<axum::Json<ReleaseResponse>, Problem> {
    check_count(request.tasks.len(), HELD_TASKS_MAX)?;
    let errors = checks::claims("tasks", &request.tasks);
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let results = api.slots.board().release(&request.tasks, request.stop);
    Ok(axum::Json(ReleaseResponse { results }))
}

async fn get_worker_status(State(api): State<Arc<Api>>) -> axum::Json<WorkerState> {
    let counts = api.slots.board().counts();
    axum::Json(WorkerState {
        worker_id: api.worker_id.clone(),
        slots: api.slots_count,
        running: as_i64(counts.running),
        queued: as_i64(counts.waiting),
        room: as_i64(counts.room),
        draining: counts.draining,
        circuits: api.slots.open_circuits(CIRCUITS_SHOWN_MAX).into_iter().map(shown).collect(),
    })
}

/// Hosts that the worker's state names.
const CIRCUITS_SHOWN_MAX: usize = 100;

fn shown(open: OpenHost) -> OpenCircuit {
    let retry_in_ms = i64::try_from(open.wait.as_millis()).unwrap_or(i64::MAX);
    OpenCircuit { host: open.host, failures: open.failures.into(), retry_in_ms }
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], documents::WORKER)
}

impl Api {
    /// Refuses a submission that is meant for another worker, or that breaks the contract's bounds.
    fn check(&self, request: &SubmitTaskRequest) -> Result<(), Problem> {
        if request.worker_id != self.worker_id {
            let detail = format!("this is worker {}; the one it was meant for has gone", self.worker_id);
            return Err(Problem::field(Code::ValidationFailed, "/worker_id", detail));
        }
        check_count(request.tasks.len(), REPORTS_MAX)?;
        let errors: Vec<FieldError> =
            request.tasks.iter().enumerate().flat_map(|(index, task)| task_errors(index, task)).collect();
        if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
    }
}

fn check_count(count: usize, most: usize) -> Result<(), Problem> {
    match count {
        1.. if count <= most => Ok(()),
        _ => Err(Problem::field(
            Code::ValidationFailed,
            "/tasks",
            format!("must be 1 to {most} tasks; these are {count}"),
        )),
    }
}

fn task_errors(index: usize, task: &SubmittedTask) -> Vec<FieldError> {
    let mut findings = Findings::of("tasks", index);
    findings.claim(task.claim);
    let attempt = (1..=limits::INTEGER_MAX).contains(&task.attempt);
    findings.expect(attempt, "attempt", format_args!("must be 1 to {}", limits::INTEGER_MAX));
    let start = (0.0..=START_IN_MS_MAX).contains(&task.start_in_ms);
    findings.expect(start, "start_in_ms", format_args!("must be 0 to 315576000000"));
    let timeout = (1..=TIMEOUT_MS_MAX).contains(&task.timeout_ms);
    findings.expect(timeout, "timeout_ms", format_args!("must be 1 to 86400000"));
    let traceparent = task.traceparent.as_deref().is_none_or(checks::is_traceparent);
    findings.expect(traceparent, "traceparent", format_args!("must be as W3C Trace Context writes it"));
    let tracestate = task.tracestate.as_ref().is_none_or(|text| text.chars().count() <= limits::TRACESTATE_CHARS_MAX);
    findings.expect(
        tracestate,
        "tracestate",
        format_args!("must have at most {} characters", limits::TRACESTATE_CHARS_MAX),
    );
    findings.work(&task.work);
    findings.into_errors()
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
