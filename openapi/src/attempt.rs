//! What the target of an HTTP task says of an attempt that it has accepted by 202: that it goes on, and in the end what came of it.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use crate::gateway::paths;
use crate::problem::Problem;

/// How far an attempt is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Progress {
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub percent: Option<f64>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000)]
    pub message: Option<String>,
    /// When the target was heard last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heard_at: Option<DateTime<Utc>>,
}

/// What the target says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum AttemptStatus {
    /// It goes on: a heartbeat, with or without progress.
    Running,
    /// It succeeded.
    Complete,
    /// It failed.
    Failed,
}

/// What the target of a task says of an attempt that it has answered with 202.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "COMPLETE", "result": {"pages": 12}}))]
pub struct AttemptReport {
    pub status: AttemptStatus,
    /// With RUNNING: how far it is, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 100)]
    pub percent: Option<f64>,
    /// With RUNNING: how far it is. With FAILED: why. For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 1000, pattern = "^[^\\u0000]*$")]
    pub message: Option<String>,
    /// With COMPLETE and FAILED: any object, at most 64 KiB of JSON, which becomes the `body` of the task's `result`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Map<String, Value>>,
    /// With FAILED: do not try again, whatever attempts are left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// With FAILED: try again no sooner than in so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 604800)]
    pub retry_after_seconds: Option<f64>,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    Recorded,
    /// An earlier report said the same.
    AlreadyRecorded,
}

/// The answer to a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"outcome": "recorded"}))]
pub struct AttemptAnswer {
    pub outcome: AttemptOutcome,
}

/// Whose attempt it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttemptToken {
    /// From `TaskMaster-Callback-Url`, of which it is a part. It is all that is needed, and good for this attempt alone.
    #[param(
        min_length = 1,
        max_length = 200,
        pattern = "^[0-9a-z.]+$",
        example = "01890a5dac96774bbcceb302099a8057.4711.0f"
    )]
    pub token: String,
}

/// Say what becomes of an attempt that was answered with 202. Sent by the target of an HTTP task with `completion: callback`, to the
/// URL in its `TaskMaster-Callback-Url`, which is this operation's with its token: no API key is needed.
///
/// RUNNING is a heartbeat; COMPLETE and FAILED end the attempt, once. Repeating what was said is harmless. 410 says that the attempt is
/// over (cancelled, too late, or the task runs elsewhere by now): stop.
#[utoipa::path(
    post, path = paths::ATTEMPTS, operation_id = "reportAttempt", tag = "tasks",
    params(AttemptToken),
    request_body = AttemptReport,
    responses(
        (status = 200, description = "It is recorded, now or before", body = AttemptAnswer),
        (status = 410, description = "The attempt is over: stop", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was recorded; `code` says why", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now: send it again", body = Problem, content_type = "application/problem+json"),
    ),
    security(("attempt_token" = []))
)]
pub fn report_attempt() {}
