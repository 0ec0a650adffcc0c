//! Workers that are only a URL: functions, and whatever else sleeps until it is called. They send no heartbeats; a coordinator looks after
//! each, calls it for every task, and takes its answer for the outcome.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::bounds;
use crate::gateway::paths;
use crate::problem::Problem;

/// A worker that is only a URL, as it is to be.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "url": "https://example.com/run",
    "slots": 10,
    "queues": ["functions"],
    "push_secret": "a-secret-of-this-function",
}))]
pub struct NewUrlWorker {
    /// What to call: an absolute `http` or `https` URL, of a public address or in a network that coordinators allow. It is shown: no secret
    /// belongs in it.
    #[schema(max_length = 200, format = "uri", example = "https://example.com/run")]
    pub url: String,
    /// Calls at once.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    pub slots: Option<i64>,
    /// The queues it serves.
    #[schema(min_items = 1, max_items = 100, value_type = Vec<bounds::QueueName>)]
    pub queues: Vec<String>,
    /// Takes `http` tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = true)]
    pub http: Option<bool>,
    /// Takes `command` and `argv` tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = false)]
    pub commands: Option<bool>,
    /// Its labels, at most 20, which tasks may require.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::LabelText>)]
    pub labels: BTreeMap<String, String>,
    /// What every call carries as its bearer token. Can be written but not read back.
    #[schema(min_length = 16, max_length = 128, pattern = "^[!-~]+$")]
    pub push_secret: String,
}

impl std::fmt::Debug for NewUrlWorker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewUrlWorker").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A worker that is only a URL.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "worker_id": "thumbnails",
    "url": "https://example.com/run",
    "slots": 10,
    "queues": ["functions"],
    "http": true,
    "commands": false,
    "labels": {},
    "home": "01890a5d-2a70-7c11-9d3e-5b0f4c8a7e21",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "changed_at": "2026-01-31T12:00:00.000000Z",
}))]
pub struct UrlWorker {
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: String,
    #[schema(max_length = 200, format = "uri")]
    pub url: String,
    #[schema(minimum = 1, maximum = 1000)]
    pub slots: i64,
    #[schema(max_items = 100, value_type = Vec<bounds::QueueName>)]
    pub queues: Vec<String>,
    pub http: bool,
    pub commands: bool,
    #[schema(value_type = BTreeMap<String, bounds::LabelText>)]
    pub labels: BTreeMap<String, String>,
    /// The coordinator that looks after it; none for the first seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub home: Option<Uuid>,
    /// Since then no call was taken. It is called more and more seldom, one task at a time, until one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable_since: Option<DateTime<Utc>>,
    /// Why the last call was not taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub last_error: Option<String>,
    pub created_at: DateTime<Utc>,
    pub changed_at: DateTime<Utc>,
}

/// The workers that are only a URL, by id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"url_workers": [{
    "worker_id": "thumbnails",
    "url": "https://example.com/run",
    "slots": 10,
    "queues": ["functions"],
    "http": true,
    "commands": false,
    "labels": {},
    "created_at": "2026-01-31T12:00:00.000000Z",
    "changed_at": "2026-01-31T12:00:00.000000Z",
}]}))]
pub struct UrlWorkerList {
    #[schema(max_items = 1000)]
    pub url_workers: Vec<UrlWorker>,
}

/// Have tasks of some queues run by calling a URL: once a task, by POST, with `SubmitTaskRequest` of the worker's contract.
///
/// The answer is `SubmitTaskResponse` with the task's outcome in `reports`. The URL sends no heartbeats and may sleep between calls. Putting
/// it again changes it, and lifts a drain; its id must be none of another worker's.
#[utoipa::path(
    put, path = paths::URL_WORKER, operation_id = "putUrlWorker", tag = "fleet",
    params(("worker_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "thumbnails", description = "The worker's id")),
    request_body = NewUrlWorker,
    responses(
        (status = 200, description = "The worker as it is from now on", body = UrlWorker),
        (status = 201, description = "The worker, which is new", body = UrlWorker, headers(("Location" = String, description = "The worker's path"))),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn put_url_worker() {}

/// The workers that are only a URL.
#[utoipa::path(
    get, path = paths::URL_WORKERS, operation_id = "listUrlWorkers", tag = "fleet",
    responses(
        (status = 200, description = "All of them, by id", body = UrlWorkerList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["workers"]))
)]
pub fn list_url_workers() {}

/// One worker that is only a URL, and whether its calls are taken.
#[utoipa::path(
    get, path = paths::URL_WORKER, operation_id = "getUrlWorker", tag = "fleet",
    params(("worker_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "thumbnails", description = "The worker's id")),
    responses(
        (status = 200, description = "The worker", body = UrlWorker),
        (status = "4XX", description = "No such worker", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["workers"]))
)]
pub fn get_url_worker() {}

/// Call a URL no more. Calls in progress may end.
#[utoipa::path(
    delete, path = paths::URL_WORKER, operation_id = "deleteUrlWorker", tag = "fleet",
    params(("worker_id" = String, Path, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$", example = "thumbnails", description = "The worker's id")),
    responses(
        (status = 204, description = "It is given no more tasks"),
        (status = "4XX", description = "No such worker", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn delete_url_worker() {}
