//! The coordinator's contract: what workers (ours, and anybody's) say to it.
//!
//! A worker joins by a heartbeat that carries the join token, is told a token of its own, and from then on heartbeats every
//! `heartbeat_ms` to its `home`. A worker starts nothing when its last acknowledged heartbeat is older than `lease_ms`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{OpenApi, ToSchema};
use uuid::Uuid;

use crate::bounds;
use crate::documents::{Failures, Headers, Schemas, WorkerToken};
use crate::health;
use crate::problem::Problem;
use crate::report::{ReportResult, StatusReport, TaskClaim};

/// The paths, each written once.
pub mod paths {
    pub const HEARTBEAT: &str = "/v1/workers/{worker_id}/heartbeat";
    pub const TASK_STATUS: &str = "/v1/task-status";
    pub const WORKERS: &str = "/v1/workers";
    pub const WORKER: &str = "/v1/workers/{worker_id}";
    pub const DOCUMENT: &str = "/openapi/v1/coordinator.json";
}

/// What a worker can do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct Abilities {
    /// Runs `command` and `argv` tasks.
    #[serde(default)]
    pub commands: bool,
    /// Runs `http` tasks.
    #[serde(default = "yes")]
    pub http: bool,
    /// Of `http` tasks it also runs those with `response` or `completion`: it judges answers by them, and reports DETACHED on a 202.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub http_rules: bool,
    /// The queues it serves; all of them when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100, value_type = Vec<bounds::QueueName>)]
    pub queues: Vec<String>,
}

fn yes() -> bool {
    true
}

/// A heartbeat: the worker is there, this is where, and this is what it holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "address": "http://127.0.0.1:4000",
    "slots": 5,
    "room": 100,
    "abilities": {"commands": false, "http": true},
    "push_secret": "a-secret-of-this-worker",
    "held": [],
}))]
pub struct HeartbeatRequest {
    /// Where the worker's own contract is served: `http://<ip>:<port>`, in a network that the coordinator allows.
    #[schema(max_length = 200, format = "uri", example = "http://127.0.0.1:4000")]
    pub address: String,
    /// Tasks it runs at once.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 1000)]
    pub slots: i64,
    /// Tasks it would still take now, waiting ones included; best less by those whose outcome nobody has acknowledged, which coordinators
    /// count until it is recorded.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 0, maximum = 10000)]
    pub room: i64,
    pub abilities: Abilities,
    /// Words about the worker, at most 20, which tasks may require.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::LabelText>)]
    pub labels: BTreeMap<String, String>,
    /// What coordinators must present to the worker, as a bearer token. Made by the worker, at least 16 characters.
    #[schema(min_length = 16, max_length = 128, pattern = "^[!-~]+$")]
    pub push_secret: String,
    /// Everything the worker holds, started or not. What the coordinator thinks it holds and is not here goes to another worker.
    #[serde(default)]
    #[schema(max_items = 10000)]
    pub held: Vec<TaskClaim>,
    /// The worker finishes what it has and takes nothing new.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub draining: bool,
}

/// Where a worker sends its heartbeats and reports.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Home {
    pub coordinator_id: Uuid,
    #[schema(max_length = 200, format = "uri", example = "http://127.0.0.1:8080")]
    pub address: String,
}

/// The answer to a heartbeat.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "known": true,
    "token": "9wLqvYxg0hPzZ1xkqkz2m0m6Gm8sJr3uYk1oQwTtU5E",
    "home": {"coordinator_id": "01890a5d-2a70-7c11-9d3e-5b0f4c8a7e21", "address": "http://127.0.0.1:8080"},
    "coordinators": ["http://127.0.0.1:8080"],
    "heartbeat_ms": 5000,
    "lease_ms": 15000,
    "stop": [],
}))]
pub struct HeartbeatResponse {
    /// Whether the worker was known before this heartbeat.
    pub known: bool,
    /// The worker's own token: the bearer token of its further heartbeats and reports.
    #[schema(min_length = 43, max_length = 128)]
    pub token: String,
    /// Where to send the next heartbeats and reports, whenever it can be reached.
    pub home: Home,
    /// Every live coordinator's address: where to turn when the home does not answer.
    #[schema(max_items = 100, value_type = Vec<bounds::Address>)]
    pub coordinators: Vec<String>,
    /// Time until the next heartbeat, in milliseconds: shorter for who joins with tasks of another coordinator.
    #[schema(minimum = 1, maximum = 315576000000i64)]
    pub heartbeat_ms: u64,
    /// How long after an acknowledged heartbeat the worker may still start tasks, in milliseconds.
    #[schema(minimum = 1, maximum = 315576000000i64)]
    pub lease_ms: u64,
    /// Held tasks to stop now: cancelled ones, and ones that are no longer the worker's.
    #[schema(max_items = 10000)]
    pub stop: Vec<TaskClaim>,
    /// The worker is asked to drain and leave.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub drain: bool,
}

/// A batch of reports of one worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "worker_id": "worker-1",
    "reports": [
        {"task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "claim": 4711, "status": "COMPLETE", "started_ms_ago": 25, "ended_ms_ago": 1, "result": {"http_status": 200}},
    ],
}))]
pub struct UpdateTaskStatusRequest {
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: String,
    /// At most 2,000.
    #[schema(min_items = 1, max_items = 2000)]
    pub reports: Vec<StatusReport>,
}

/// The answer to a batch of reports: one result an item, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"results": [{"task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "claim": 4711, "status": 200, "code": "recorded"}]}))]
pub struct UpdateTaskStatusResponse {
    #[schema(max_items = 2000)]
    pub results: Vec<ReportResult>,
}

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkerStatus {
    Active,
    Draining,
}

/// A worker that is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "worker_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e",
    "address": "http://127.0.0.1:4000",
    "status": "ACTIVE",
    "slots": 5,
    "held": 2,
    "abilities": {"commands": true, "http": true},
    "labels": {"zone": "eu"},
    "home": "01890a5d-2a70-7c11-9d3e-5b0f4c8a7e21",
    "joined_at": "2026-01-31T11:00:00.000000Z",
    "last_heartbeat_at": "2026-01-31T12:00:00.000000Z",
}))]
pub struct Worker {
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: String,
    #[schema(max_length = 200, format = "uri")]
    pub address: String,
    pub status: WorkerStatus,
    #[schema(minimum = 1, maximum = 1000)]
    pub slots: i64,
    /// Tasks it held at its last heartbeat.
    #[schema(minimum = 0, maximum = 10000)]
    pub held: i64,
    pub abilities: Abilities,
    #[schema(value_type = BTreeMap<String, bounds::LabelText>)]
    pub labels: BTreeMap<String, String>,
    /// The coordinator that pushes to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<Uuid>,
    pub joined_at: DateTime<Utc>,
    pub last_heartbeat_at: DateTime<Utc>,
}

/// The workers that are there, by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"workers": [{
    "worker_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e",
    "address": "http://127.0.0.1:4000",
    "status": "ACTIVE",
    "slots": 5,
    "held": 2,
    "abilities": {"commands": true, "http": true},
    "labels": {"zone": "eu"},
    "home": "01890a5d-2a70-7c11-9d3e-5b0f4c8a7e21",
    "joined_at": "2026-01-31T11:00:00.000000Z",
    "last_heartbeat_at": "2026-01-31T12:00:00.000000Z",
}]}))]
pub struct WorkerList {
    #[schema(max_items = 10000)]
    pub workers: Vec<Worker>,
}

/// A worker says that it is there.
#[utoipa::path(
    post, path = paths::HEARTBEAT, operation_id = "sendHeartbeat", tag = "coordinator",
    params(("worker_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "worker-1", description = "The worker's id: new for every start of a worker")),
    request_body = HeartbeatRequest,
    responses(
        (status = 200, description = "The heartbeat counts from now", body = HeartbeatResponse),
        (status = "4XX", description = "The heartbeat is refused; `code` says why", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Turn to another coordinator", body = Problem, content_type = "application/problem+json"),
    ),
    security(("worker_token" = []))
)]
pub fn send_heartbeat() {}

/// A worker reports what became of tasks. Repeat until answered: reports are idempotent.
#[utoipa::path(
    post, path = paths::TASK_STATUS, operation_id = "updateTaskStatus", tag = "coordinator",
    request_body = UpdateTaskStatusRequest,
    responses(
        (status = 200, description = "Each item has its own result", body = UpdateTaskStatusResponse),
        (status = "4XX", description = "Nothing was recorded; `code` says why", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Nothing may have been recorded: send it again, here or to another coordinator", body = Problem, content_type = "application/problem+json"),
    ),
    security(("worker_token" = []))
)]
pub fn update_task_status() {}

/// The workers that are there.
#[utoipa::path(
    get, path = paths::WORKERS, operation_id = "listWorkers", tag = "coordinator",
    responses(
        (status = 200, description = "The workers, by id", body = WorkerList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("worker_token" = []))
)]
pub fn list_workers() {}

/// A worker leaves: it holds nothing any more. What it still held goes to others.
#[utoipa::path(
    delete, path = paths::WORKER, operation_id = "removeWorker", tag = "coordinator",
    params(("worker_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "worker-1", description = "The worker's id")),
    responses(
        (status = 204, description = "The worker is gone"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security(("worker_token" = []))
)]
pub fn remove_worker() {}

#[derive(OpenApi)]
#[openapi(
    info(title = "TaskMaster coordinator", version = "1.0.0",
        description = "What workers say to a coordinator. A worker written from this document and the worker's own works with TaskMaster.\n\nThe first heartbeat carries the join token as its bearer token; its answer has the worker's own token, for everything after. When that one is refused (401), join again with the join token.\n\n\
            A gateway passes on heartbeats, reports and departures to any live coordinator, so that a worker outside the network needs to know \
            the gateway's address only; its answers name the coordinators' own, for workers that can reach those."),
    tags(
        (name = "coordinator", description = "Join, say what is held, report what came of it, leave. Every call may be repeated."),
        (name = "health", description = "For load balancers and supervisors. The status code is the contract."),
    ),
    paths(send_heartbeat, update_task_status, list_workers, remove_worker, health::livez, health::readyz),
    servers(
        (url = "/", description = "A gateway, which passes on what workers say; not the list of workers"),
        (url = "http://{address}", description = "A coordinator itself",
            variables(("address" = (default = "127.0.0.1:8080", description = "Host and port")))),
    ),
    modifiers(&WorkerToken, &Failures, &Headers, &Schemas),
)]
pub struct CoordinatorApi;
