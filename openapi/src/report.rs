//! What workers and coordinators tell one another about a task: which claim they speak of, and what came of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::task::{TaskError, TaskResult};

/// One claim of one task: the fence. Every claim of a task has a higher number than the ones before; a report that names an
/// older one changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub struct TaskClaim {
    pub task_id: Uuid,
    /// The claim number.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub claim: i64,
}

/// What a worker says of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ReportStatus {
    /// The attempt has begun.
    Started,
    /// The attempt succeeded. Implies STARTED; needs no STARTED before it.
    Complete,
    /// The attempt failed. Implies STARTED.
    Failed,
    /// The attempt was stopped because the coordinator said so.
    Cancelled,
    /// The task goes back without having been started; no attempt is used.
    Released,
    /// The target of an HTTP task with `completion: callback` answered 202, and will call back. The worker is done with it. Implies STARTED.
    Detached,
}

/// One item of a status report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StatusReport {
    pub task_id: Uuid,
    /// The claim number of the submission.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub claim: i64,
    pub status: ReportStatus,
    /// Milliseconds between the start of the attempt and this message. Elapsed time, because only the database's clock counts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 315576000000i64)]
    pub started_ms_ago: Option<u64>,
    /// Milliseconds between the end of the attempt and this message.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 315576000000i64)]
    pub ended_ms_ago: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<TaskResult>,
    /// With FAILED: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
    /// With FAILED: do not try again, whatever attempts are left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub permanent: bool,
    /// With FAILED and RELEASED: try again no sooner than in so many milliseconds (an HTTP target's `Retry-After`).
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 604800000)]
    pub retry_after_ms: Option<u64>,
}

/// What became of one item of a report. Every code but `not_recorded` is final: do not repeat the item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReportCode {
    /// The report changed the task.
    Recorded,
    /// An earlier report of this claim said the same, or more.
    AlreadyRecorded,
    /// The task has been claimed again since, or taken back: stop this work, its outcome does not count.
    StaleClaim,
    /// No task has this id.
    UnknownTask,
    /// The claim belongs to another worker.
    NotYourTask,
    /// The item contradicts itself; see the detail.
    InvalidReport,
    /// The item was not looked at (a fault on our side): send it again.
    NotRecorded,
}

/// The answer to one item of a report, in the order of the items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReportResult {
    pub task_id: Uuid,
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub claim: i64,
    /// As an HTTP status: 200 recorded, 404 unknown, 409 stale or not yours, 422 invalid, 503 send again.
    #[schema(minimum = 200, maximum = 599)]
    pub status: u16,
    pub code: ReportCode,
    /// The worker is to stop this work now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stop: bool,
}

impl ReportResult {
    pub fn new(claim: TaskClaim, code: ReportCode) -> Self {
        let status = match code {
            ReportCode::Recorded | ReportCode::AlreadyRecorded => 200,
            ReportCode::UnknownTask => 404,
            ReportCode::StaleClaim | ReportCode::NotYourTask => 409,
            ReportCode::InvalidReport => 422,
            ReportCode::NotRecorded => 503,
        };
        let stop = matches!(code, ReportCode::StaleClaim | ReportCode::UnknownTask | ReportCode::NotYourTask);
        Self { task_id: claim.task_id, claim: claim.claim, status, code, stop }
    }
}
