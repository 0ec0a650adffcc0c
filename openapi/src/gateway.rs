//! The public API, served by the gateway.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, OpenApi, ToSchema};
use uuid::Uuid;

use crate::attempt;
use crate::bounds;
use crate::coordinator::WorkerList;
use crate::documents::{ApiKey, AttemptTokens, Failures, Headers, HookSignature, Schemas};
use crate::event::{Event, EventType, LogTruncated, ServerSentEvent};
use crate::gateway_queues as queues;
use crate::gateway_schedules as schedules;
use crate::health;
use crate::hook::operations as hooks;
use crate::key::{IssuedKey, Key, KeyList, NewKey, RotateKeyRequest};
use crate::problem::Problem;
use crate::signing;
use crate::task::{Attempt, NewTask, Task, TaskStatus};
use crate::url_worker as urls;
use crate::webhook::operations as webhooks;

/// The paths, each written once.
pub mod paths {
    pub const TASKS: &str = "/v1/tasks";
    pub const TASKS_BATCH: &str = "/v1/tasks/batch";
    pub const TASKS_CANCEL: &str = "/v1/tasks/cancel";
    pub const TASKS_RETRY: &str = "/v1/tasks/retry";
    pub const TASK: &str = "/v1/tasks/{id}";
    pub const TASK_ATTEMPTS: &str = "/v1/tasks/{id}/attempts";
    pub const TASK_CANCEL: &str = "/v1/tasks/{id}/cancel";
    pub const TASK_RETRY: &str = "/v1/tasks/{id}/retry";
    pub const EVENTS: &str = "/v1/events";
    pub const STATS: &str = "/v1/stats";
    pub const WORKERS: &str = "/v1/workers";
    pub const WORKERS_SCALE: &str = "/v1/workers/scale";
    pub const WORKER_DRAIN: &str = "/v1/workers/{worker_id}/drain";
    pub const URL_WORKERS: &str = "/v1/url-workers";
    pub const URL_WORKER: &str = "/v1/url-workers/{worker_id}";
    pub const KEYS: &str = "/v1/keys";
    pub const KEY: &str = "/v1/keys/{id}";
    pub const KEY_ROTATE: &str = "/v1/keys/{id}/rotate";
    pub const SIGNING_SECRETS: &str = "/v1/signing-secrets";
    pub const SIGNING_SECRETS_ROTATE: &str = "/v1/signing-secrets/rotate";
    /// With the token of an attempt in its query.
    pub const ATTEMPTS: &str = "/v1/attempts";
    pub const SCHEDULES: &str = "/v1/schedules";
    pub const SCHEDULES_PREVIEW: &str = "/v1/schedules/preview";
    pub const SCHEDULE: &str = "/v1/schedules/{id}";
    pub const SCHEDULE_PREVIEW: &str = "/v1/schedules/{id}/preview";
    pub const SCHEDULE_RUNS: &str = "/v1/schedules/{id}/runs";
    pub const SCHEDULE_PAUSE: &str = "/v1/schedules/{id}/pause";
    pub const SCHEDULE_RESUME: &str = "/v1/schedules/{id}/resume";
    pub const SCHEDULE_TRIGGER: &str = "/v1/schedules/{id}/trigger";
    pub const SCHEDULE_BACKFILL: &str = "/v1/schedules/{id}/backfill";
    pub const WEBHOOKS: &str = "/v1/webhooks";
    pub const WEBHOOK: &str = "/v1/webhooks/{id}";
    pub const WEBHOOK_ROTATE: &str = "/v1/webhooks/{id}/rotate";
    pub const WEBHOOK_TEST: &str = "/v1/webhooks/{id}/test";
    pub const WEBHOOK_REPLAY: &str = "/v1/webhooks/{id}/replay";
    pub const DELIVERIES: &str = "/v1/webhooks/{id}/deliveries";
    pub const DELIVERY: &str = "/v1/webhooks/{id}/deliveries/{delivery_id}";
    pub const DELIVERY_REPLAY: &str = "/v1/webhooks/{id}/deliveries/{delivery_id}/replay";
    pub const HOOKS: &str = "/v1/hooks";
    pub const HOOK: &str = "/v1/hooks/{id}";
    pub const HOOK_ROTATE: &str = "/v1/hooks/{id}/rotate";
    pub const HOOK_DELIVERIES: &str = "/v1/hooks/{id}/deliveries";
    pub const HOOK_RECEIVE: &str = "/v1/hooks/{id}/receive";
    pub const QUEUES: &str = "/v1/queues";
    pub const QUEUE: &str = "/v1/queues/{queue}";
    pub const QUEUE_PAUSE: &str = "/v1/queues/{queue}/pause";
    pub const QUEUE_RESUME: &str = "/v1/queues/{queue}/resume";
    pub const QUEUE_PURGE: &str = "/v1/queues/{queue}/purge";
    pub const DOCS: &str = "/docs";
    pub const DOCUMENT: &str = "/openapi/v1/gateway.json";
}

/// Tasks to create together: all or none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tasks": [{"command": "echo one"}, {"http": {"method": "GET", "url": "http://127.0.0.1:8081/livez"}}]}))]
pub struct NewTaskBatch {
    #[schema(min_items = 1, max_items = 10000)]
    pub tasks: Vec<NewTask>,
}

/// A created task of a batch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057"}))]
pub struct CreatedTask {
    pub id: Uuid,
}

/// The created tasks, in the order of the request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"tasks": [{"id": "01890a5d-ac96-774b-bcce-b302099a8057"}]}))]
pub struct CreatedBatch {
    #[schema(max_items = 10000)]
    pub tasks: Vec<CreatedTask>,
}

/// Which tasks to list. All filters must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TaskFilter {
    /// Tasks in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Tasks of this queue. Those of the system's own queues, `$webhooks` and `$callbacks`, are listed only when it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 64, pattern = "^(\\$(webhooks|callbacks)|[A-Za-z0-9._-]+)$")]
    pub queue: Option<String>,
    /// Tasks that have this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 100, pattern = "^[^\\u0000]+$")]
    pub tag: Option<String>,
    /// Tasks that this worker holds, or held last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: Option<String>,
    /// Tasks that this schedule made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<Uuid>,
    /// Tasks created at this time or later (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_after: Option<DateTime<Utc>>,
    /// Tasks created before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<DateTime<Utc>>,
}

/// Which tasks to change. All filters must hold, and at least one must be given.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"filter": {"queue": "default", "tag": "demo"}, "dry_run": true}))]
pub struct BulkRequest {
    pub filter: BulkFilter,
    /// Only count what would be changed.
    #[serde(default)]
    pub dry_run: bool,
}

/// Which tasks to change. All filters must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkFilter {
    /// Tasks in this state: `QUEUED`, `PICKED` or `STARTED` to cancel, `FAILED` or `CANCELLED` to retry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Tasks of this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub queue: Option<String>,
    /// Tasks that have this tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000]+$")]
    pub tag: Option<String>,
    /// Tasks that this worker holds, or held last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: Option<String>,
    /// Tasks that this schedule made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<Uuid>,
    /// Tasks created at this time or later (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_after: Option<DateTime<Utc>>,
    /// Tasks created before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<DateTime<Utc>>,
}

impl From<BulkFilter> for TaskFilter {
    fn from(filter: BulkFilter) -> Self {
        let BulkFilter { status, queue, tag, worker_id, schedule_id, created_after, created_before } = filter;
        Self { status, queue, tag, worker_id, schedule_id, created_after, created_before }
    }
}

/// What a bulk change came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dry_run": true, "matched": 12, "changed": 0, "requested": 0, "more": false}))]
pub struct BulkResponse {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Tasks that the filter found, at most 10,000 a call.
    #[schema(minimum = 0, maximum = 10000)]
    pub matched: i64,
    /// Tasks that were changed at once: CANCELLED, or QUEUED again.
    #[schema(minimum = 0, maximum = 10000)]
    pub changed: i64,
    /// Tasks that a worker must still let go of.
    #[schema(minimum = 0, maximum = 10000)]
    pub requested: i64,
    /// More tasks may match: call again.
    pub more: bool,
}

/// Which page of a list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Items of a page: 50 when left out, at most 500; more is lowered to that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 9223372036854775807i64, default = 50, example = 10)]
    pub page_size: Option<i64>,
    /// The `next_page_token` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(max_length = 500, pattern = "^[A-Za-z0-9_-]*$")]
    pub page_token: Option<String>,
}

/// A page of tasks, newest first, finished ones included.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "tasks": [{
        "id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "status": "QUEUED",
        "http": {"method": "POST", "url": "https://example.com/hook", "headers": {"Authorization": "***"}, "body": "{}"},
        "queue": "default",
        "priority": 0,
        "attempt": 0,
        "max_attempts": 3,
        "retry": {"initial_seconds": 1.0, "multiplier": 2.0, "max_seconds": 3600.0, "jitter": 0.2},
        "timeout_seconds": 300,
        "tags": ["demo"],
        "created_at": "2026-01-31T12:00:00.000000Z",
        "scheduled_at": "2026-01-31T18:00:00.000000Z",
        "run_at": "2026-01-31T18:00:00.000000Z",
    }],
    "next_page_token": "AQGJCl2slndLvM6zAgmagFcAAAAAAAAAAA",
}))]
pub struct TaskList {
    #[schema(max_items = 500)]
    pub tasks: Vec<Task>,
    /// Asks for the next page; empty at the end, and only there. A page may be short, even empty, and still carry a token.
    #[schema(max_length = 500, pattern = "^[A-Za-z0-9_-]*$")]
    pub next_page_token: String,
}

/// A task's attempts, the first one first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "attempts": [{
        "attempt": 1,
        "status": "COMPLETE",
        "worker_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e",
        "picked_at": "2026-01-31T12:00:00.002000Z",
        "started_at": "2026-01-31T12:00:00.005000Z",
        "ended_at": "2026-01-31T12:00:00.009000Z",
        "result": {"exit_code": 0, "stdout": "hello\n", "stderr": ""},
    }],
}))]
pub struct AttemptList {
    #[schema(max_items = 1000)]
    pub attempts: Vec<Attempt>,
}

/// How many tasks are in each state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusCounts {
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub queued: i64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub picked: i64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub started: i64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub complete: i64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub failed: i64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub cancelled: i64,
}

impl StatusCounts {
    /// The count of one state.
    pub fn of_mut(&mut self, status: TaskStatus) -> &mut i64 {
        match status {
            TaskStatus::Queued => &mut self.queued,
            TaskStatus::Picked => &mut self.picked,
            TaskStatus::Started => &mut self.started,
            TaskStatus::Complete => &mut self.complete,
            TaskStatus::Failed => &mut self.failed,
            TaskStatus::Cancelled => &mut self.cancelled,
        }
    }
}

/// The counts of one queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct QueueStats {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub queue: String,
    pub tasks: StatusCounts,
}

/// What is due and waits for a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backlog {
    /// Tasks that are due and not claimed, counted up to 10,000.
    #[schema(minimum = 0, maximum = 10000)]
    pub due: i64,
    /// There are more than were counted.
    pub due_is_lower_bound: bool,
    /// How long the one that waits longest has been due, in seconds; 0 when none waits.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub oldest_due_seconds: f64,
}

/// Rates over the last minute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Rates {
    #[schema(minimum = 1, maximum = 3600)]
    pub window_seconds: i64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub created_per_second: f64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub completed_per_second: f64,
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub failed_per_second: f64,
}

/// The fleet, added up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FleetStats {
    #[schema(minimum = 0, maximum = 10000)]
    pub workers: i64,
    #[schema(minimum = 0, maximum = 10000000)]
    pub slots: i64,
}

/// Queued tasks that none of the workers that are there can run: they wait for one that can.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct UnservedTasks {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub queue: String,
    /// Whether they are commands, which not every worker runs, or HTTP requests.
    pub commands: bool,
    /// Labels that they require.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::LabelText>)]
    pub requires: BTreeMap<String, String>,
    /// How many are queued, due or not.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub queued: i64,
}

/// Counts, backlog and rates: kept as things happen, at most a second old.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "at": "2026-01-31T12:00:00.000000Z",
    "tasks": {"queued": 12, "picked": 1, "started": 4, "complete": 1031, "failed": 2, "cancelled": 0},
    "queues": [{"queue": "default", "tasks": {"queued": 12, "picked": 1, "started": 4, "complete": 1031, "failed": 2, "cancelled": 0}}],
    "backlog": {"due": 7, "due_is_lower_bound": false, "oldest_due_seconds": 0.4},
    "rates": {"window_seconds": 60, "created_per_second": 12.5, "completed_per_second": 12.4, "failed_per_second": 0.0},
    "fleet": {"workers": 1, "slots": 5},
    "unserved": [{"queue": "default", "commands": true, "requires": {"gpu": "a100"}, "queued": 3}],
}))]
pub struct Stats {
    pub at: DateTime<Utc>,
    /// Since the installation began; finished tasks stay counted after their history is dropped.
    pub tasks: StatusCounts,
    #[schema(max_items = 1000)]
    pub queues: Vec<QueueStats>,
    pub backlog: Backlog,
    pub rates: Rates,
    pub fleet: FleetStats,
    /// What waits for workers that are not there: their queue, ability or labels are served by none. The 100 with most tasks.
    #[serde(default)]
    #[schema(max_items = 100)]
    pub unserved: Vec<UnservedTasks>,
}

/// How many workers there should be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"workers": 3}))]
pub struct ScaleRequest {
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 0, maximum = 200)]
    pub workers: i64,
}

/// How many workers there are to be, and were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"previous": 1, "workers": 3}))]
pub struct ScaleResponse {
    /// Workers that were running, draining ones left out.
    #[schema(minimum = 0, maximum = 200)]
    pub previous: i64,
    /// Workers from now on. New ones join within a second; surplus ones finish what they have and leave.
    #[schema(minimum = 0, maximum = 200)]
    pub workers: i64,
}

/// Which events to send. All filters must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventFilter {
    /// Kinds of events, separated by commas; all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 500, example = "task.completed,task.failed", pattern = "^[a-z., ]+$")]
    pub types: Option<String>,
    /// Events of tasks of this queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub queue: Option<String>,
    /// Events of this task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    /// Events of this worker, and of tasks it held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: Option<String>,
    /// Events of this schedule; those of its tasks are found by their own ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<Uuid>,
    /// Start after this event; as the header `Last-Event-ID`, which wins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 0, maximum = 9007199254740991i64)]
    pub after: Option<i64>,
}

/// Create one task: a command, a program with arguments, or an HTTP request; now, at a time, or after a delay.
///
/// `traceparent` and `tracestate` of the request (W3C Trace Context) are kept with the task, and passed on by its attempts.
#[utoipa::path(
    post, path = paths::TASKS, operation_id = "createTask", tag = "tasks",
    params(
        ("Prefer" = Option<String>, Header, example = "wait=10",
            description = "`wait=N`: answer when the task has ended, or after N seconds (at most 60), with the task as it then is"),
        ("Idempotency-Key" = Option<String>, Header, example = "order-17",
            description = "The same key and payload create nothing again for 24 h: the answer is made from the tasks as they now are. Another payload is refused with 422, a request still in progress with 409"),
    ),
    request_body(content = NewTask, examples(
        ("a command" = (summary = "A shell command, at once", value = json!({"command": "echo hello"}))),
        ("a program" = (summary = "A program with arguments, without a shell; ahead of others",
            value = json!({"argv": ["printf", "%s", "hello"], "priority": 9, "timeout_seconds": 10}))),
        ("an HTTP request" = (summary = "An HTTP request in two seconds, at most twice",
            value = json!({"http": {"method": "GET", "url": "http://127.0.0.1:8081/livez"}, "delay_seconds": 2, "max_attempts": 2}))),
        ("a webhook" = (summary = "A POST with a body and a secret header, tried again after 1 s, 10 s and 60 s",
            value = json!({
                "http": {"url": "http://127.0.0.1:8081/livez", "headers": {"Authorization": "Bearer secret", "Content-Type": "application/json"},
                    "body": "{\"order\": 17}"},
                "max_attempts": 4, "retry": {"delays_seconds": [1, 10, 60]}, "tags": ["order-17"], "queue": "mails"}))),
        ("for certain workers" = (summary = "For a worker that has a label; it waits until there is one",
            value = json!({"command": "echo on a GPU", "requires": {"gpu": "a100"}}))),
        ("rules" = (summary = "A signed request, for which 404 is success, and most other mistakes are final",
            value = json!({"http": {"method": "DELETE", "url": "http://127.0.0.1:8081/v1/nothing", "sign": true,
                "response": {"success": ["200-299", 404], "final": ["400-403"]}}}))),
        ("an end by a callback" = (summary = "A function that answers 202, and says later what came of it",
            value = json!({"http": {"url": "http://127.0.0.1:9900/", "body": "to be or not", "completion": "callback",
                "heartbeat_timeout_seconds": 60}, "timeout_seconds": 3600}))),
        ("at a time" = (summary = "At a time",
            value = json!({"command": "echo good morning", "scheduled_at": "2099-01-31T07:00:00+01:00", "tags": ["demo"]}))),
    )),
    responses(
        (status = 201, description = "The task is committed: it survives the loss of any process", body = Task, headers(
            ("Location" = String, description = "The task's path"),
            ("Preference-Applied" = String, description = "`wait=N`, where that was honoured"),
            ("Idempotency-Replayed" = String, description = "`true`, where the task was created before"))),
        (status = 409, description = "A request with this `Idempotency-Key` is in progress", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was created; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; `Retry-After` may say when", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn create_task() {}

/// Create up to 10,000 tasks, all or none.
///
/// `traceparent` and `tracestate` of the request (W3C Trace Context) are kept with each, and passed on by their attempts.
#[utoipa::path(
    post, path = paths::TASKS_BATCH, operation_id = "createTaskBatch", tag = "tasks",
    params(
        ("Idempotency-Key" = Option<String>, Header, example = "orders-18-to-40",
            description = "The same key and payload create nothing again for 24 h: the answer is made from the tasks as they now are. Another payload is refused with 422, a request still in progress with 409"),
    ),
    request_body = NewTaskBatch,
    responses(
        (status = 201, description = "All tasks are committed", body = CreatedBatch, headers(
            ("Idempotency-Replayed" = String, description = "`true`, where the tasks were created before"))),
        (status = 409, description = "A request with this `Idempotency-Key` is in progress", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "None was created; `errors` names each bad item, at most 100", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; `Retry-After` may say when", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn create_task_batch() {}

/// List tasks, newest first; live and finished ones are one collection.
#[utoipa::path(
    get, path = paths::TASKS, operation_id = "listTasks", tag = "tasks",
    params(TaskFilter, Page),
    responses(
        (status = 200, description = "A page", body = TaskList, headers(
            ("Link" = String, description = "The next page, `rel=\"next\"`"),
            ("Age" = i64, description = "There only when a replica of the database answered: the answer may be so many seconds old"))),
        (status = "4XX", description = "A parameter is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_tasks() {}

/// One task.
#[utoipa::path(
    get, path = paths::TASK, operation_id = "getTask", tag = "tasks",
    params(
        ("id" = Uuid, Path, description = "The task's id"),
        ("Prefer" = Option<String>, Header, example = "wait=10",
            description = "`wait=N`: answer when the task has ended, or after N seconds (at most 60), with the task as it then is"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer the client has"),
    ),
    responses(
        (status = 200, description = "The task", body = Task, headers(
            ("ETag" = String, description = "Changes with the task"),
            ("Preference-Applied" = String, description = "`wait=N`, where that was honoured"))),
        (status = 304, description = "The client has this answer already"),
        (status = "4XX", description = "No such task, or not an id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_task() {}

/// A task's attempts: worker, times, result and error of each.
#[utoipa::path(
    get, path = paths::TASK_ATTEMPTS, operation_id = "listTaskAttempts", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The attempts, the first one first", body = AttemptList),
        (status = "4XX", description = "No such task, or not an id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_task_attempts() {}

/// Cancel a task: it never starts, or is stopped.
#[utoipa::path(
    post, path = paths::TASK_CANCEL, operation_id = "cancelTask", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task is CANCELLED (also when it was before)", body = Task),
        (status = 202, description = "A worker must still let go: `cancel_requested_at` is set", body = Task),
        (status = 409, description = "It has ended otherwise", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such task, or it ended otherwise", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn cancel_task() {}

/// Run a FAILED or CANCELLED task again, under the same id and with as many attempts as at first.
#[utoipa::path(
    post, path = paths::TASK_RETRY, operation_id = "retryTask", tag = "tasks",
    params(("id" = Uuid, Path, description = "The task's id")),
    responses(
        (status = 200, description = "The task is QUEUED again", body = Task),
        (status = 409, description = "It is not FAILED or CANCELLED", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such task, or it is not FAILED or CANCELLED", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn retry_task() {}

/// Cancel the tasks that match a filter, up to 10,000 a call. Try dry_run first.
#[utoipa::path(
    post, path = paths::TASKS_CANCEL, operation_id = "cancelTasks", tag = "tasks",
    request_body = BulkRequest,
    responses(
        (status = 200, description = "What was cancelled, or would be", body = BulkResponse),
        (status = "4XX", description = "The filter is wrong or missing; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; what was cancelled before stays so", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn cancel_tasks() {}

/// Run the FAILED or CANCELLED tasks that match a filter again, up to 10,000 a call. Try dry_run first.
#[utoipa::path(
    post, path = paths::TASKS_RETRY, operation_id = "retryTasks", tag = "tasks",
    request_body = BulkRequest,
    responses(
        (status = 200, description = "What was retried, or would be", body = BulkResponse),
        (status = "4XX", description = "The filter is wrong or missing; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; what was retried before stays so", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn retry_tasks() {}

/// Follow what happens, as server-sent events.
///
/// Each event has the event's number as its `id`; a client that comes back with `Last-Event-ID` (or `after`) has missed nothing that
/// is still kept. When what it missed is no longer kept, the first event is `log.truncated`. A comment comes every 15 s;
/// a client that does not keep up is cut off, and resumes.
///
/// The answer has no end: `curl -N` and `EventSource` follow it. The page at `/docs` shows what comes within 5 s.
#[utoipa::path(
    get, path = paths::EVENTS, operation_id = "streamEvents", tag = "events",
    params(EventFilter, ("Last-Event-ID" = Option<i64>, Header, minimum = 0, maximum = 9007199254740991i64, example = 0, description = "The last event the client has seen")),
    responses(
        (status = 200, description = "A stream of events", body = ServerSentEvent, content_type = "text/event-stream"),
        (status = "4XX", description = "A parameter is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn stream_events() {}

/// Counts, backlog and rates.
#[utoipa::path(
    get, path = paths::STATS, operation_id = "getStats", tag = "fleet",
    responses(
        (status = 200, description = "The figures", body = Stats, headers(
            ("Age" = i64, description = "There only when a replica of the database answered: the answer may be so many seconds old"))),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_stats() {}

/// The workers that are there.
#[utoipa::path(
    get, path = paths::WORKERS, operation_id = "listWorkers", tag = "fleet",
    responses(
        (status = 200, description = "The workers, by id", body = WorkerList, headers(
            ("Age" = i64, description = "There only when a replica of the database answered: the answer may be so many seconds old"))),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["workers"]))
)]
pub fn list_workers() {}

/// Have one worker finish what it has and leave.
#[utoipa::path(
    post, path = paths::WORKER_DRAIN, operation_id = "drainWorker", tag = "fleet",
    params(("worker_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "worker-1", description = "The worker's id")),
    responses(
        (status = 202, description = "The worker is told at its next heartbeat"),
        (status = "4XX", description = "No such worker", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["workers"]))
)]
pub fn drain_worker() {}

/// Set the number of workers, where this host can: in "up" it adds and drains workers at once.
#[utoipa::path(
    post, path = paths::WORKERS_SCALE, operation_id = "scaleWorkers", tag = "fleet",
    request_body = ScaleRequest,
    responses(
        (status = 200, description = "So it will be", body = ScaleResponse),
        (status = "4XX", description = "The number is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 501, description = "This host scales otherwise; `detail` says how", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["workers"]))
)]
pub fn scale_workers() {}

/// Make an API key.
///
/// The answer is the only place that ever shows the key's secret, so that `Idempotency-Key` is refused here: an answer that was lost
/// cannot be given again. Revoke the key, and make another.
#[utoipa::path(
    post, path = paths::KEYS, operation_id = "createKey", tag = "keys",
    request_body = NewKey,
    responses(
        (status = 201, description = "The key, and its token", body = IssuedKey, headers(
            ("Location" = String, description = "The key's path"))),
        (status = "4XX", description = "No key was made; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn create_key() {}

/// List API keys, newest first; revoked and expired ones are kept for the record.
#[utoipa::path(
    get, path = paths::KEYS, operation_id = "listKeys", tag = "keys",
    params(Page),
    responses(
        (status = 200, description = "A page", body = KeyList, headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = "4XX", description = "A parameter is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn list_keys() {}

/// One API key.
#[utoipa::path(
    get, path = paths::KEY, operation_id = "getKey", tag = "keys",
    params(("id" = String, Path, min_length = 12, max_length = 12, pattern = "^[0-9A-Za-z]{12}$", example = "7Kq2mX9aBc4Z", description = "The key's id")),
    responses(
        (status = 200, description = "The key", body = Key),
        (status = "4XX", description = "No such key", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn get_key() {}

/// Give a key a new secret. The one that it had goes on working for `overlap_seconds`, so that nobody is locked out meanwhile.
///
/// Of two rotations within one overlap only the newer one's old secret goes on working.
#[utoipa::path(
    post, path = paths::KEY_ROTATE, operation_id = "rotateKey", tag = "keys",
    params(("id" = String, Path, min_length = 12, max_length = 12, pattern = "^[0-9A-Za-z]{12}$", example = "7Kq2mX9aBc4Z", description = "The key's id")),
    request_body = RotateKeyRequest,
    responses(
        (status = 200, description = "The key, and its new token", body = IssuedKey),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The key was revoked, or has expired", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn rotate_key() {}

/// Revoke a key: every gateway refuses it within 5 s. Revoking it again changes nothing.
///
/// The last key that allows `admin` can be revoked as well: `TASKMASTER_API_KEYS` or `taskmaster keys create` are the way back.
#[utoipa::path(
    delete, path = paths::KEY, operation_id = "revokeKey", tag = "keys",
    params(("id" = String, Path, min_length = 12, max_length = 12, pattern = "^[0-9A-Za-z]{12}$", example = "7Kq2mX9aBc4Z", description = "The key's id")),
    responses(
        (status = 204, description = "The key is revoked"),
        (status = "4XX", description = "No such key", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn revoke_key() {}

#[derive(OpenApi)]
#[openapi(
    info(title = "TaskMaster", version = "1.0.0",
        description = "Work in by HTTP: a command to run or an HTTP request to make, now or later. Each task is recorded with exactly one outcome.\n\n\
            Every failure is a problem document (RFC 9457) with a stable `code`; each operation lists those that it may answer. What is no \
            HTTP at all is refused with a bare 400, 414 or 431. `/v1` only ever grows: ignore fields you do not know, and expect new codes.\n\n\
            **Workers in any language** join by this address as well: the gateway passes on what they say to any live coordinator \
            (`sendHeartbeat`, `updateTaskStatus`, `removeWorker`). See [the coordinator's document](/openapi/v1/coordinator.json), and \
            [the worker's own](/openapi/v1/worker.json)."),
    tags(
        (name = "tasks", description = "Create work, see what came of it, cancel it, run it again. Live and finished tasks are one collection."),
        (name = "schedules", description = "Tasks that are made again and again, by a cron expression in a time zone or at a fixed interval."),
        (name = "queues", description = "How tasks are let through: pause and resume, how many at once, how often, by queue and by key; defaults; purge."),
        (name = "webhooks", description = "Tell other apps what happens: signed deliveries, tried until they are taken, with a log and replay."),
        (name = "hooks", description = "Incoming webhooks: what another app sends becomes a task, once, after its sender was verified."),
        (name = "events", description = "Follow what happens as it happens: server-sent events, which resume where a client left off."),
        (name = "fleet", description = "The workers, and how they keep up: counts, backlog and rates in a shape that an autoscaler can read."),
        (name = "keys", description = "API keys: what each allows, when it expires, and how it is replaced without locking anybody out."),
        (name = "health", description = "For load balancers and supervisors. The status code is the contract."),
    ),
    paths(
        create_task, create_task_batch, list_tasks, get_task, list_task_attempts, cancel_task, retry_task, cancel_tasks, retry_tasks,
        stream_events, get_stats, list_workers, drain_worker, scale_workers,
        urls::put_url_worker, urls::list_url_workers, urls::get_url_worker, urls::delete_url_worker,
        create_key, list_keys, get_key, rotate_key, revoke_key,
        signing::list_signing_secrets, signing::rotate_signing_secret, attempt::report_attempt,
        schedules::create_schedule, schedules::list_schedules, schedules::preview_new_schedule, schedules::get_schedule,
        schedules::change_schedule, schedules::delete_schedule, schedules::pause_schedule, schedules::resume_schedule,
        schedules::trigger_schedule, schedules::backfill_schedule, schedules::preview_schedule, schedules::list_schedule_runs,
        queues::list_queues, queues::get_queue, queues::change_queue, queues::reset_queue, queues::pause_queue, queues::resume_queue,
        queues::purge_queue,
        webhooks::create_webhook, webhooks::list_webhooks, webhooks::get_webhook, webhooks::change_webhook, webhooks::delete_webhook, webhooks::rotate_webhook, webhooks::test_webhook, webhooks::replay_deliveries,
        webhooks::list_deliveries, webhooks::get_delivery, webhooks::replay_delivery,
        hooks::create_hook, hooks::list_hooks, hooks::get_hook, hooks::change_hook, hooks::delete_hook, hooks::rotate_hook,
        hooks::list_hook_deliveries, hooks::receive_hook,
        health::livez, health::readyz
    ),
    components(schemas(Event, EventType, LogTruncated, TaskStatus)),
    servers((url = "/", description = "The gateway that serves this document")),
    modifiers(&ApiKey, &HookSignature, &AttemptTokens, &Failures, &Headers, &Schemas),
)]
pub struct GatewayApi;
