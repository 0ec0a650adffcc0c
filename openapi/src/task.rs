//! The task, as users write it ([`NewTask`]) and as they read it back ([`Task`]).

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::attempt::Progress;
use crate::bounds;
use crate::response::ResponseRules;

/// Where a task stands.
///
/// | state | entered when | by |
/// |---|---|---|
/// | `QUEUED` | the task is accepted; a failed attempt has attempts left; a claim is handed back; a manual retry | gateway, coordinator |
/// | `PICKED` | claimed for a worker | coordinator |
/// | `STARTED` | the worker says that it started | coordinator |
/// | `COMPLETE` | the worker says that it succeeded | coordinator |
/// | `FAILED` | the last attempt failed, or the work said "never again": the dead letters | coordinator |
/// | `CANCELLED` | a cancel was asked for, and no worker holds the task (any more) | gateway, coordinator |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TaskStatus {
    Queued,
    Picked,
    Started,
    Complete,
    Failed,
    Cancelled,
}

impl TaskStatus {
    pub const ALL: [TaskStatus; 6] = [
        TaskStatus::Queued,
        TaskStatus::Picked,
        TaskStatus::Started,
        TaskStatus::Complete,
        TaskStatus::Failed,
        TaskStatus::Cancelled,
    ];

    /// The status as it stands in documents.
    pub fn as_str(self) -> &'static str {
        match self {
            TaskStatus::Queued => "QUEUED",
            TaskStatus::Picked => "PICKED",
            TaskStatus::Started => "STARTED",
            TaskStatus::Complete => "COMPLETE",
            TaskStatus::Failed => "FAILED",
            TaskStatus::Cancelled => "CANCELLED",
        }
    }

    /// Whether the task has ended. Only a manual retry leaves a terminal state.
    pub fn is_terminal(self) -> bool {
        matches!(self, TaskStatus::Complete | TaskStatus::Failed | TaskStatus::Cancelled)
    }
}

/// The methods an HTTP task may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    Get,
    Head,
    #[default]
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl HttpMethod {
    pub fn as_str(self) -> &'static str {
        match self {
            HttpMethod::Get => "GET",
            HttpMethod::Head => "HEAD",
            HttpMethod::Post => "POST",
            HttpMethod::Put => "PUT",
            HttpMethod::Patch => "PATCH",
            HttpMethod::Delete => "DELETE",
            HttpMethod::Options => "OPTIONS",
        }
    }
}

/// How an HTTP task's attempt ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Completion {
    /// With the answer.
    #[default]
    Answer,
    /// With the answer, unless that is 202 (Accepted): then the target says later what came of it, by the URL in
    /// `TaskMaster-Callback-Url`. Until it does, the attempt takes no slot of a worker.
    Callback,
}

impl Completion {
    fn is_answer(&self) -> bool {
        *self == Completion::Answer
    }
}

/// An HTTP request to make. A 2xx answer is success, unless `response` says otherwise; any other fails the attempt. Redirects are not
/// followed.
///
/// The request also carries `TaskMaster-Task-Id`, `TaskMaster-Attempt`; and `traceparent` (W3C Trace Context), where the request that
/// created the task did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpWork {
    /// The method; `POST` when left out.
    #[serde(default)]
    pub method: HttpMethod,
    /// An absolute `http` or `https` URL. Private and local targets are refused unless the worker allows them.
    #[schema(max_length = 8192, format = "iri", example = "https://example.com/hook")]
    pub url: String,
    /// Headers of the request, at most 100. Values of `Authorization`, `Cookie`, `Proxy-Authorization`, and of any header
    /// whose name contains `key`, `token`, `secret` or `signature`, can be written but not read back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::HeaderText>)]
    pub headers: BTreeMap<String, String>,
    /// The body as text. At most one of `body` and `body_base64`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1048576)]
    pub body: Option<String>,
    /// The body as base64 (RFC 4648, with padding), for bytes that are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1048576, content_encoding = "base64")]
    pub body_base64: Option<String>,
    /// What the status of the answer means.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub response: Option<ResponseRules>,
    /// Sign each attempt's request as webhooks are (Standard Webhooks 1.0.0), with the secret of `GET /v1/signing-secrets`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sign: bool,
    /// How an attempt ends: with the answer, or after a 202 by a callback of the target.
    #[serde(default, skip_serializing_if = "Completion::is_answer")]
    pub completion: Completion,
    /// With `completion: callback`: after its 202 the target must call back at least every so many seconds, or the attempt has failed.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 86400)]
    pub heartbeat_timeout_seconds: Option<i64>,
}

impl HttpWork {
    /// Whether only workers that know more than statuses of 2xx can do it: those with the ability `http_rules`.
    pub fn wants_rules(&self) -> bool {
        self.response.is_some() || self.completion == Completion::Callback
    }
}

/// What is to be done: exactly one of a shell command line, a program with arguments, or an HTTP request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A shell command line, run by `/bin/sh -c`.
    #[schema(value_type = bounds::Argument)]
    Command(String),
    /// A program and its arguments, run without a shell.
    #[schema(value_type = bounds::Arguments)]
    Argv(Vec<String>),
    /// An HTTP request.
    Http(HttpWork),
}

/// When to try again after a failed attempt. Either exponential (`initial_seconds`, `multiplier`, `max_seconds`,
/// `jitter`) or a list (`delays_seconds`), whose last entry repeats.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// Delay before the second attempt, in seconds.
    #[schema(minimum = 0, maximum = 604800, default = 1.0)]
    pub initial_seconds: f64,
    /// Each further delay is this many times the one before.
    #[schema(minimum = 1, maximum = 100, default = 2.0)]
    pub multiplier: f64,
    /// No delay is longer than this, in seconds.
    #[schema(minimum = 0, maximum = 604800, default = 3600.0)]
    pub max_seconds: f64,
    /// Each delay is varied at random by up to this share of itself, up or down.
    #[schema(minimum = 0, maximum = 1, default = 0.2)]
    pub jitter: f64,
    /// Explicit delays, in seconds, in place of the exponential ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 100, value_type = Option<Vec<bounds::DelaySeconds>>)]
    pub delays_seconds: Option<Vec<f64>>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { initial_seconds: 1.0, multiplier: 2.0, max_seconds: 3600.0, jitter: 0.2, delays_seconds: None }
    }
}

/// Where to send a task when it has ended: by POST, as a CloudEvent (1.0) in JSON, whose `data` is the task with its result. Sent until it is
/// taken, as webhooks are.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "https://example.com/done"}))]
pub struct Callback {
    /// An absolute `http` or `https` URL. Private and local targets are refused unless the worker allows them.
    #[schema(max_length = 8192, format = "iri", example = "https://example.com/done")]
    pub url: String,
    /// Further headers, at most 20. Sensitive values can be written but not read back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::HeaderText>)]
    pub headers: BTreeMap<String, String>,
    /// What it is signed with, as webhooks are: `whsec_` and 24 to 64 bytes in base64. Without one it is not signed. Can be written but
    /// not read back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bounds::WebhookSecret>)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for Callback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Callback").field("url", &self.url).finish_non_exhaustive()
    }
}

/// A task to create. Exactly one of `command`, `argv` and `http` is required.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"command": "echo hello"}))]
pub struct NewTask {
    /// A shell command line, run by `/bin/sh -c` on a worker that allows commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 131071, example = "echo hello")]
    pub command: Option<String>,
    /// A program and its arguments, run without a shell on a worker that allows commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1000, value_type = Option<Vec<bounds::Argument>>)]
    pub argv: Option<Vec<String>>,
    /// An HTTP request to make.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub http: Option<HttpWork>,
    /// Not before this time (RFC 3339, 1970 to 9999). Now when left out; a time that has passed means now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<DateTime<Utc>>,
    /// Not before so many seconds from now; instead of `scheduled_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 315576000)]
    pub delay_seconds: Option<f64>,
    /// The queue, `default` when left out: letters, digits, `.`, `_` and `-`. Queues exist by being used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "default")]
    pub queue: Option<String>,
    /// Labels that a worker must have to be given the task, with these values; at most 8. A task waits until there is such a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, bounds::LabelText>>)]
    pub requires: Option<BTreeMap<String, String>>,
    /// Whose task it is, for limits by key: a tenant, a host. Queues with such limits let each key have its share: `docs/queues.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\u0000]+$", example = "tenant-7")]
    pub flow_key: Option<String>,
    /// 0 to 9; higher first. Waiting raises it by one a minute, so that nothing starves.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 9, default = 0)]
    pub priority: Option<i64>,
    /// Attempts before the task is FAILED. A queue may have another default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100, default = 3)]
    pub max_attempts: Option<i64>,
    /// When to try again. A queue may have another default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub retry: Option<RetryPolicy>,
    /// Longest duration of one attempt, in seconds. A queue may have another default.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 86400, default = 300)]
    pub timeout_seconds: Option<i64>,
    /// Words to find the task by, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 20, value_type = Option<Vec<bounds::Tag>>)]
    pub tags: Option<Vec<String>>,
    /// Whom to tell when the task is COMPLETE, FAILED or CANCELLED.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub callback: Option<Callback>,
    /// Whom to tell when the task is FAILED.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub failure_callback: Option<Callback>,
}

/// What an attempt gave back: of a command, its exit and output; of an HTTP request, the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct TaskResult {
    /// The command's exit status.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = -2147483648, maximum = 2147483647)]
    pub exit_code: Option<i32>,
    /// The number of the signal that ended the command.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 255)]
    pub signal: Option<i32>,
    /// Standard output, where it is UTF-8; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65536)]
    pub stdout: Option<String>,
    /// Standard output as base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 87384, content_encoding = "base64")]
    pub stdout_base64: Option<String>,
    /// Standard output was longer than what is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdout_truncated: bool,
    /// Standard error, where it is UTF-8; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65536)]
    pub stderr: Option<String>,
    /// Standard error as base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 87384, content_encoding = "base64")]
    pub stderr_base64: Option<String>,
    /// Standard error was longer than what is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stderr_truncated: bool,
    /// The status of the HTTP answer.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 100, maximum = 999)]
    pub http_status: Option<u16>,
    /// Headers of the HTTP answer, at most 50; `Set-Cookie` is left out.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::ReceivedHeader>)]
    pub headers: BTreeMap<String, String>,
    /// Body of the HTTP answer, where it is UTF-8; at most 64 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 65536)]
    pub body: Option<String>,
    /// Body of the HTTP answer as base64, where it is not UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 87384, content_encoding = "base64")]
    pub body_base64: Option<String>,
    /// The body was longer than what is kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub body_truncated: bool,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The command ended with an exit status other than 0.
    ExitStatus,
    /// The command was ended by a signal.
    Signal,
    /// The command could not be started.
    Spawn,
    /// The HTTP target answered with a status other than 2xx.
    HttpStatus,
    /// No connection to the HTTP target.
    Connect,
    /// The HTTP target's name could not be resolved.
    Dns,
    /// The HTTP exchange broke off.
    HttpProtocol,
    /// The HTTP target lies in a network that the worker does not allow.
    TargetRefused,
    /// The worker does not do this kind of work.
    Unsupported,
    /// The attempt took longer than `timeout_seconds`.
    Timeout,
    /// The target, which had answered 202, was silent for longer than `heartbeat_timeout_seconds`.
    HeartbeatTimeout,
    /// The target, which had answered 202, said that it failed.
    TargetFailed,
    /// The worker died, or let go of the task without a word.
    WorkerLost,
    /// The attempt was stopped because a cancel was asked for.
    Cancelled,
    /// The delivery was not sent any more: its webhook was deleted, or is disabled.
    Undeliverable,
    /// Anything else that the worker could not do.
    WorkerError,
}

/// Why an attempt failed, for programs and for people.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TaskError {
    pub code: ErrorCode,
    #[schema(max_length = 1000, example = "the command ended with exit status 1")]
    pub message: String,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "status": "COMPLETE",
    "command": "echo hello",
    "queue": "default",
    "priority": 0,
    "attempt": 1,
    "max_attempts": 3,
    "retry": {"initial_seconds": 1.0, "multiplier": 2.0, "max_seconds": 3600.0, "jitter": 0.2},
    "timeout_seconds": 300,
    "tags": ["demo"],
    "worker_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e",
    "created_at": "2026-01-31T12:00:00.000000Z",
    "scheduled_at": "2026-01-31T12:00:00.000000Z",
    "run_at": "2026-01-31T12:00:00.000000Z",
    "picked_at": "2026-01-31T12:00:00.002000Z",
    "started_at": "2026-01-31T12:00:00.005000Z",
    "completed_at": "2026-01-31T12:00:00.009000Z",
    "result": {"exit_code": 0, "stdout": "hello\n", "stderr": ""},
}))]
pub struct Task {
    /// A UUIDv7: ids sort by creation.
    pub id: Uuid,
    pub status: TaskStatus,
    /// The shell command line, where that is the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 131071)]
    pub command: Option<String>,
    /// The program and its arguments, where that is the work.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 1000, value_type = Option<Vec<bounds::Argument>>)]
    pub argv: Option<Vec<String>>,
    /// The HTTP request, where that is the work; sensitive header values read `***`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpWork>,
    /// Those of the system itself begin with `$`.
    #[schema(min_length = 1, max_length = 64, pattern = "^\\$?[A-Za-z0-9._-]+$")]
    pub queue: String,
    /// Labels that its worker must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::LabelText>)]
    pub requires: BTreeMap<String, String>,
    /// Whose task it is, for limits by key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\u0000]+$")]
    pub flow_key: Option<String>,
    #[schema(minimum = 0, maximum = 9)]
    pub priority: i64,
    /// Attempts that have started, this one included.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub attempt: i64,
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: i64,
    /// The retry policy in force.
    pub retry: RetryPolicy,
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout_seconds: i64,
    #[schema(max_items = 20, value_type = Vec<bounds::Tag>)]
    pub tags: Vec<String>,
    /// The worker that holds the task, or held it last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: Option<String>,
    pub created_at: DateTime<Utc>,
    /// What was asked for; never changed.
    pub scheduled_at: DateTime<Utc>,
    /// When the next attempt is due, or the last one was.
    pub run_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picked_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub completed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_at: Option<DateTime<Utc>>,
    /// A cancel was asked for, and a worker must still let go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// What the last attempt gave back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// The schedule that made the task; `scheduled_at` is then the occurrence, with its jitter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<Uuid>,
    /// Whom to tell when the task has ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
    /// Whom to tell when the task is FAILED.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_callback: Option<Callback>,
    /// The trace that the task is part of (W3C Trace Context), as the request that created it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 55, max_length = 55, pattern = "^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
    pub traceparent: Option<String>,
    /// How far a target is that has answered 202 and not finished.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// One attempt of a task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "attempt": 1,
    "status": "FAILED",
    "worker_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e",
    "picked_at": "2026-01-31T12:00:00.002000Z",
    "started_at": "2026-01-31T12:00:00.005000Z",
    "ended_at": "2026-01-31T12:00:00.009000Z",
    "result": {"exit_code": 1, "stdout": "", "stderr": "no such file\n"},
    "error": {"code": "exit_status", "message": "the command ended with exit status 1"},
}))]
pub struct Attempt {
    /// 1 for the first.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub attempt: i64,
    /// `STARTED` while it runs, then `COMPLETE`, `FAILED` or `CANCELLED`.
    pub status: TaskStatus,
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: String,
    pub picked_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
}
