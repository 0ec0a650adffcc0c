//! The worker's contract: what a coordinator says to it.

use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use crate::documents::{Failures, Headers, PushSecret, Schemas};
use crate::health;
use crate::problem::Problem;
use crate::report::{StatusReport, TaskClaim};
use crate::task::Work;

/// The paths, each written once.
pub mod paths {
    pub const TASKS: &str = "/v1/tasks";
    pub const RELEASE: &str = "/v1/tasks/release";
    pub const STATUS: &str = "/v1/status";
    pub const DOCUMENT: &str = "/openapi/v1/worker.json";
}

/// Headers that an HTTP task's target is sent.
pub mod headers {
    pub const TASK_ID: &str = "taskmaster-task-id";
    pub const ATTEMPT: &str = "taskmaster-attempt";
    /// A target that answers with this header and the value `never` is not tried again.
    pub const RETRY: &str = "taskmaster-retry";
    /// Where a target that answers 202 says what came of it.
    pub const CALLBACK_URL: &str = "taskmaster-callback-url";
    /// The trace that a request is part of (W3C Trace Context).
    pub const TRACEPARENT: &str = "traceparent";
    pub const TRACESTATE: &str = "tracestate";
}

/// A command that ends with this exit status is not tried again (`EX_DATAERR` of sysexits).
pub const EXIT_STATUS_PERMANENT: i32 = 65;

/// One task for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmittedTask {
    pub task_id: Uuid,
    /// The claim number: goes into every report of this attempt.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub claim: i64,
    /// Which attempt this is, from 1.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub attempt: i64,
    /// Start no sooner than so many milliseconds after this message (fractions count); 0 is at once.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 315576000000i64)]
    pub start_in_ms: f64,
    /// Longest duration of the attempt, in milliseconds.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 86400000)]
    pub timeout_ms: u64,
    pub work: Work,
    /// The trace that the attempt is part of, and its own place in it (W3C Trace Context): to be sent to the target of an HTTP request
    /// that has no such header of its own, and given to commands as `TRACEPARENT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 55, max_length = 55, pattern = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
    pub traceparent: Option<String>,
    /// What goes with `traceparent`; `TRACESTATE` to commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 512)]
    pub tracestate: Option<String>,
    /// Make the request even to a host that lately failed: whoever sends this keeps an eye on that itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub try_always: bool,
}

/// Tasks for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "worker_id": "worker-1",
    "tasks": [{
        "task_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "claim": 4711,
        "attempt": 1,
        "start_in_ms": 0,
        "timeout_ms": 300000,
        "work": {"http": {"method": "GET", "url": "http://127.0.0.1:8081/livez"}},
    }],
}))]
pub struct SubmitTaskRequest {
    /// Who this is for; a worker refuses what is meant for another.
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: String,
    #[schema(min_items = 1, max_items = 2000)]
    pub tasks: Vec<SubmittedTask>,
}

/// Whether a worker took a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubmitCode {
    /// Taken.
    Accepted,
    /// The worker holds this claim already (an earlier answer was lost).
    AlreadyHeld,
    /// No room: give it to another.
    NoRoom,
    /// The worker is stopping, or its lease has run out.
    Draining,
    /// The worker does not do this kind of work.
    Unsupported,
}

/// Whether a worker took a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SubmitResult {
    pub task_id: Uuid,
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub claim: i64,
    pub code: SubmitCode,
}

/// Which tasks were taken, and what room is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"results": [{"task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "claim": 4711, "code": "accepted"}], "room": 99}))]
pub struct SubmitTaskResponse {
    /// One result a task, in order.
    #[schema(max_items = 2000)]
    pub results: Vec<SubmitResult>,
    /// Tasks it would still take.
    #[schema(minimum = 0, maximum = 10000)]
    pub room: i64,
    /// Outcomes that are known already; recorded as if reported. A worker may leave this out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 2000)]
    pub reports: Vec<StatusReport>,
}

/// Tasks a worker is to let go of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"tasks": [{"task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "claim": 4711}], "stop": true}))]
pub struct ReleaseRequest {
    #[schema(min_items = 1, max_items = 10000)]
    pub tasks: Vec<TaskClaim>,
    /// Also stop what has started; it is then reported CANCELLED.
    #[serde(default)]
    pub stop: bool,
}

/// What became of a task that was to be let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseCode {
    /// It had not started, and never will here. No report follows.
    Released,
    /// It had started and is being stopped; a report follows.
    Stopping,
    /// It has started and goes on.
    Running,
    /// The worker does not hold this claim.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReleaseResult {
    pub task_id: Uuid,
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub claim: i64,
    pub code: ReleaseCode,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"results": [{"task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "claim": 4711, "code": "released"}]}))]
pub struct ReleaseResponse {
    /// One result a task, in order.
    #[schema(max_items = 10000)]
    pub results: Vec<ReleaseResult>,
}

/// What a worker is doing right now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"worker_id": "worker-1", "slots": 5, "running": 2, "queued": 0, "room": 98, "draining": false}))]
pub struct WorkerState {
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: String,
    #[schema(minimum = 1, maximum = 1000)]
    pub slots: i64,
    #[schema(minimum = 0, maximum = 10000)]
    pub running: i64,
    #[schema(minimum = 0, maximum = 10000)]
    pub queued: i64,
    #[schema(minimum = 0, maximum = 10000)]
    pub room: i64,
    pub draining: bool,
    /// Hosts that failed so often in a row that they are not asked for a while; at most 100 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub circuits: Vec<OpenCircuit>,
}

/// A host that is not asked for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OpenCircuit {
    /// Scheme, host and port.
    #[schema(max_length = 8192, example = "https://example.com:443")]
    pub host: String,
    /// Failures in a row.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub failures: i64,
    /// Until one request is let through.
    #[schema(minimum = 0, maximum = 315576000000i64)]
    pub retry_in_ms: i64,
}

/// Take tasks. Repeating a submission is harmless.
#[utoipa::path(
    post, path = paths::TASKS, operation_id = "submitTask", tag = "worker",
    request_body = SubmitTaskRequest,
    responses(
        (status = 200, description = "Each task has its own result", body = SubmitTaskResponse),
        (status = "4XX", description = "No task was taken; `code` says why", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("push_secret" = []))
)]
pub fn submit_task() {}

/// Let go of tasks: what has not started, and when told so what has.
#[utoipa::path(
    post, path = paths::RELEASE, operation_id = "releaseTasks", tag = "worker",
    request_body = ReleaseRequest,
    responses(
        (status = 200, description = "Each task has its own result", body = ReleaseResponse),
        (status = "4XX", description = "Nothing was let go of; `code` says why", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("push_secret" = []))
)]
pub fn release_tasks() {}

/// What the worker is doing.
#[utoipa::path(
    get, path = paths::STATUS, operation_id = "getWorkerStatus", tag = "worker",
    responses(
        (status = 200, description = "Slots, queue and room", body = WorkerState),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("push_secret" = []))
)]
pub fn get_worker_status() {}

#[derive(OpenApi)]
#[openapi(
    info(title = "TaskMaster worker", version = "1.0.0",
        description = "What a coordinator says to a worker. Serve this, and send heartbeats and reports as the coordinator's document says.\n\nEvery request carries the worker's `push_secret` as its bearer token."),
    tags(
        (name = "worker", description = "Take tasks, let go of tasks, say what is going on. Every call may be repeated."),
        (name = "health", description = "For coordinators and supervisors. The status code is the contract."),
    ),
    paths(submit_task, release_tasks, get_worker_status, health::livez, health::readyz),
    servers((url = "http://{address}", description = "A worker",
        variables(("address" = (default = "127.0.0.1:9000", description = "Host and port, as its heartbeats name them"))))),
    modifiers(&PushSecret, &Failures, &Headers, &Schemas),
)]
pub struct WorkerApi;
