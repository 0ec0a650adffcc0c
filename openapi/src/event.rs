//! The events of `GET /v1/events`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// The kinds of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
pub enum EventType {
    /// The task was accepted, or retried by hand.
    #[serde(rename = "task.scheduled")]
    TaskScheduled,
    /// The task was claimed for a worker.
    #[serde(rename = "task.picked")]
    TaskPicked,
    /// An attempt began.
    #[serde(rename = "task.started")]
    TaskStarted,
    /// The task succeeded.
    #[serde(rename = "task.completed")]
    TaskCompleted,
    /// The task is QUEUED again: an attempt failed and another will follow, or a claim was handed back unstarted.
    #[serde(rename = "task.retrying")]
    TaskRetrying,
    /// The task is FAILED for good.
    #[serde(rename = "task.failed")]
    TaskFailed,
    /// The task is CANCELLED.
    #[serde(rename = "task.cancelled")]
    TaskCancelled,
    /// A worker is there.
    #[serde(rename = "worker.joined")]
    WorkerJoined,
    /// A worker left, or was given up.
    #[serde(rename = "worker.lost")]
    WorkerLost,
    /// Occurrences of the schedule were not run in time, nor caught up on.
    #[serde(rename = "schedule.missed")]
    ScheduleMissed,
    /// An occurrence of the schedule was left out, because of the one before.
    #[serde(rename = "schedule.skipped")]
    ScheduleSkipped,
    /// The schedule is paused: by hand, or after failures.
    #[serde(rename = "schedule.paused")]
    SchedulePaused,
    /// The schedule goes on.
    #[serde(rename = "schedule.resumed")]
    ScheduleResumed,
    /// A webhook was disabled, because its subscriber is gone, has failed for long, or is too slow.
    #[serde(rename = "webhook.disabled")]
    WebhookDisabled,
}

impl EventType {
    pub const ALL: [EventType; 14] = [
        EventType::TaskScheduled,
        EventType::TaskPicked,
        EventType::TaskStarted,
        EventType::TaskCompleted,
        EventType::TaskRetrying,
        EventType::TaskFailed,
        EventType::TaskCancelled,
        EventType::WorkerJoined,
        EventType::WorkerLost,
        EventType::ScheduleMissed,
        EventType::ScheduleSkipped,
        EventType::SchedulePaused,
        EventType::ScheduleResumed,
        EventType::WebhookDisabled,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            EventType::TaskScheduled => "task.scheduled",
            EventType::TaskPicked => "task.picked",
            EventType::TaskStarted => "task.started",
            EventType::TaskCompleted => "task.completed",
            EventType::TaskRetrying => "task.retrying",
            EventType::TaskFailed => "task.failed",
            EventType::TaskCancelled => "task.cancelled",
            EventType::WorkerJoined => "worker.joined",
            EventType::WorkerLost => "worker.lost",
            EventType::ScheduleMissed => "schedule.missed",
            EventType::ScheduleSkipped => "schedule.skipped",
            EventType::SchedulePaused => "schedule.paused",
            EventType::ScheduleResumed => "schedule.resumed",
            EventType::WebhookDisabled => "webhook.disabled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.as_str() == text)
    }
}

/// One event, the `data` of a server-sent event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": 8,
    "type": "task.completed",
    "at": "2026-01-31T12:00:00.009000Z",
    "task_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "queue": "default",
    "attempt": 1,
    "worker_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e",
}))]
pub struct Event {
    /// The event's place in the log: rising, without gaps. Also the `id` of the server-sent event.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub id: i64,
    #[serde(rename = "type")]
    pub event_type: EventType,
    /// When it was recorded, by the database's clock.
    pub at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub queue: Option<String>,
    /// The attempt the event speaks of; 0 before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub attempt: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._-]+$")]
    pub worker_id: Option<String>,
    /// The schedule, where the event is one of a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook_id: Option<Uuid>,
}

/// One message of the stream (HTML standard, "Server-sent events").
#[derive(Debug, ToSchema)]
#[schema(example = json!({
    "id": "8",
    "event": "task.completed",
    "data": "{\"id\":8,\"type\":\"task.completed\",\"at\":\"2026-01-31T12:00:00.009000Z\",\"attempt\":1}",
}))]
pub struct ServerSentEvent {
    /// The event's number: what `Last-Event-ID` and `after` take.
    #[schema(min_length = 1, max_length = 16, pattern = "^[0-9]+$")]
    pub id: String,
    /// The kind of event. `log.truncated` comes first when what the client missed is no longer kept.
    #[schema(max_length = 50, pattern = "^[a-z]+\\.[a-z]+$")]
    pub event: String,
    /// The event as JSON.
    #[schema(max_length = 10000, content_media_type = "application/json")]
    pub data: String,
}

/// What a client has missed is no longer kept: look at the tasks themselves.
#[derive(Debug, ToSchema)]
#[schema(example = json!({"type": "log.truncated", "after": 3, "resumes_after": 7000}))]
pub struct LogTruncated {
    /// `log.truncated`
    #[schema(max_length = 13, pattern = "^log\\.truncated$")]
    pub r#type: String,
    /// The last event that the client had seen.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub after: i64,
    /// The stream goes on after this one.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub resumes_after: i64,
}
