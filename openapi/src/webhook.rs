//! Outgoing webhooks: subscriptions to events, and what became of each delivery.

pub mod operations;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::bounds;
use crate::event::EventType;
use crate::task::{Attempt, RetryPolicy, TaskError, TaskStatus};

/// The system queue whose tasks are deliveries of webhooks.
pub const WEBHOOKS_QUEUE: &str = "$webhooks";
/// The system queue whose tasks are deliveries of callbacks.
pub const CALLBACKS_QUEUE: &str = "$callbacks";
/// The type of the event that a test sends.
pub const TEST_EVENT: &str = "webhook.test";

/// Headers of every delivery (Standard Webhooks 1.0.0).
pub mod headers {
    /// Names the message: the same in every attempt and replay.
    pub const ID: &str = "webhook-id";
    /// When the attempt was signed, in seconds since 1970.
    pub const TIMESTAMP: &str = "webhook-timestamp";
    /// `v1,<base64>`, one for each secret that is valid, separated by spaces.
    pub const SIGNATURE: &str = "webhook-signature";
}

/// Fewer events than all: what people want to be told, rather than what happens. Tasks with the same queue and the same tags are a
/// series, such as the runs of one nightly job; a task's outcome is compared with the one before it in its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Only {
    /// Every `task.failed`.
    Failures,
    /// The first `task.failed` of a series, and the first `task.completed` after it: each change, and not what stays as it was.
    Changes,
    /// The first `task.completed` of a series after a `task.failed`.
    Recovery,
}

impl Only {
    /// The name as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Only::Failures => "failures",
            Only::Changes => "changes",
            Only::Recovery => "recovery",
        }
    }

    /// The kind of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Only::Failures, Only::Changes, Only::Recovery].into_iter().find(|only| only.as_str() == text)
    }
}

/// A webhook to make.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"url": "http://127.0.0.1:8081/livez", "events": ["task.failed"], "queues": ["default"]}))]
pub struct NewWebhook {
    /// Where events are sent, by POST: an absolute `http` or `https` URL. Private and local targets are refused unless the workers
    /// allow them.
    #[schema(max_length = 8192, format = "iri", example = "https://example.com/taskmaster")]
    pub url: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
    pub description: Option<String>,
    /// Kinds of events; `task.completed`, `task.failed` and `task.cancelled` when left out. Not together with `only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 10)]
    pub events: Option<Vec<EventType>>,
    /// Tasks of these queues only; of all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100, value_type = Vec<bounds::QueueName>)]
    pub queues: Vec<String>,
    /// Tasks that have one of these tags only; any when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 20, value_type = Vec<bounds::Tag>)]
    pub tags: Vec<String>,
    /// Fewer events than all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    /// What deliveries are signed with: `whsec_` and 24 to 64 bytes in base64. Made here when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bounds::WebhookSecret>)]
    pub secret: Option<String>,
    /// Further headers of each delivery, at most 20. Sensitive values can be written but not read back, as those of HTTP tasks.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, bounds::HeaderText>)]
    pub headers: BTreeMap<String, String>,
    /// Whether it is sent anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(default = true)]
    pub enabled: Option<bool>,
    /// Attempts of each delivery.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    pub max_attempts: Option<i64>,
    /// When to try again; after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h when left out, each varied by a fifth.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub retry: Option<RetryPolicy>,
    /// How long the subscriber may take to answer, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 30, default = 20)]
    pub timeout_seconds: Option<i64>,
}

impl std::fmt::Debug for NewWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewWebhook").field("url", &self.url).finish_non_exhaustive()
    }
}

/// What to change of a webhook: what is left out stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"events": ["task.failed", "task.cancelled"], "enabled": true}))]
pub struct WebhookChange {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 8192, format = "iri")]
    pub url: Option<String>,
    /// `null` removes it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$", value_type = Option<String>)]
    pub description: Option<Option<String>>,
    /// Removes `only`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 10)]
    pub events: Option<Vec<EventType>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 100, value_type = Option<Vec<bounds::QueueName>>)]
    pub queues: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 20, value_type = Option<Vec<bounds::Tag>>)]
    pub tags: Option<Vec<String>>,
    /// Takes the place of `events`; `null` removes it, and leaves the kinds of events that it looked at.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "given")]
    #[schema(value_type = Option<Only>)]
    pub only: Option<Option<Only>>,
    /// All of them: those that are left out are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, bounds::HeaderText>>)]
    pub headers: Option<BTreeMap<String, String>>,
    /// `true` enables it again, and forgets how long it has failed; what happened while it was disabled is not sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub retry: Option<RetryPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 30)]
    pub timeout_seconds: Option<i64>,
}

/// Tells `null`, which is `Some(None)`, from what was left out.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// How to rotate a webhook's secret.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct RotateWebhookRequest {
    /// Deliveries are signed with the secret that it had as well for so many seconds, at most 30 days. A day when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 2592000, default = 86400)]
    pub overlap_seconds: Option<i64>,
    /// The new secret; made here when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<bounds::WebhookSecret>)]
    pub secret: Option<String>,
}

impl std::fmt::Debug for RotateWebhookRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotateWebhookRequest").field("overlap_seconds", &self.overlap_seconds).finish_non_exhaustive()
    }
}

/// Why a webhook is disabled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisabledReason {
    /// Somebody asked for it.
    ByRequest,
    /// The subscriber answered 410 (Gone).
    Gone,
    /// Nothing was delivered for five days, in which every attempt failed.
    Failing,
    /// More than 100,000 deliveries waited.
    Backlog,
}

impl DisabledReason {
    const ALL: [DisabledReason; 4] =
        [DisabledReason::ByRequest, DisabledReason::Gone, DisabledReason::Failing, DisabledReason::Backlog];

    /// The reason as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            DisabledReason::ByRequest => "by_request",
            DisabledReason::Gone => "gone",
            DisabledReason::Failing => "failing",
            DisabledReason::Backlog => "backlog",
        }
    }

    /// The reason of this name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// What has become of a webhook's deliveries: about a second old.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WebhookFigures {
    /// Deliveries that the subscriber has taken.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub delivered: i64,
    /// Attempts that failed.
    #[schema(minimum = 0, maximum = 9007199254740991i64)]
    pub failed_attempts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure_at: Option<DateTime<Utc>>,
    /// Every attempt since then has failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<DateTime<Utc>>,
    /// Events at this time were dropped from the log before they were looked at: no coordinator had run for longer than events are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_events_at: Option<DateTime<Utc>>,
}

/// A subscription to events.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057", "url": "https://example.com/hooks", "description": "on call", "events": ["task.failed"], "queues": [], "tags": [], "headers": {}, "max_attempts": 10, "retry": {"initial_seconds": 1.0, "multiplier": 2.0, "max_seconds": 3600.0, "jitter": 0.2, "delays_seconds": [5.0, 300.0, 1800.0]}, "timeout_seconds": 20, "enabled": true, "created_at": "2026-01-31T12:00:00Z", "version": 1, "figures": {"delivered": 0, "failed_attempts": 0}}))]
pub struct Webhook {
    pub id: Uuid,
    #[schema(max_length = 8192)]
    pub url: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub description: Option<String>,
    #[schema(max_items = 10)]
    pub events: Vec<EventType>,
    #[schema(max_items = 100, value_type = Vec<bounds::QueueName>)]
    pub queues: Vec<String>,
    #[schema(max_items = 20, value_type = Vec<bounds::Tag>)]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub only: Option<Only>,
    #[schema(value_type = BTreeMap<String, bounds::HeaderText>)]
    pub headers: BTreeMap<String, String>,
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: i64,
    /// The retry policy in force.
    pub retry: RetryPolicy,
    #[schema(minimum = 1, maximum = 30)]
    pub timeout_seconds: i64,
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_reason: Option<DisabledReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<DateTime<Utc>>,
    pub created_at: DateTime<Utc>,
    /// Raised by every change of what is set; the `ETag` is made of it.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub version: i64,
    /// Until then deliveries are signed with the secret before the last rotation as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_secret_expires_at: Option<DateTime<Utc>>,
    pub figures: WebhookFigures,
}

/// A webhook with its secret, as it is shown when that is new.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8057", "url": "https://example.com/hooks", "description": "on call", "events": ["task.failed"], "queues": [], "tags": [], "headers": {}, "max_attempts": 10, "retry": {"initial_seconds": 1.0, "multiplier": 2.0, "max_seconds": 3600.0, "jitter": 0.2, "delays_seconds": [5.0, 300.0, 1800.0]}, "timeout_seconds": 20, "enabled": true, "created_at": "2026-01-31T12:00:00Z", "version": 1, "figures": {"delivered": 0, "failed_attempts": 0}, "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}))]
pub struct IssuedWebhook {
    #[serde(flatten)]
    pub webhook: Webhook,
    /// What the subscriber verifies with.
    #[schema(value_type = bounds::WebhookSecret)]
    pub secret: String,
}

impl std::fmt::Debug for IssuedWebhook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedWebhook").field("webhook", &self.webhook).finish_non_exhaustive()
    }
}

/// Every webhook, the oldest first: there are 200 at most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"webhooks": [{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "url": "https://example.com/hooks", "description": "on call", "events": ["task.failed"], "queues": [], "tags": [], "headers": {}, "max_attempts": 10, "retry": {"initial_seconds": 1.0, "multiplier": 2.0, "max_seconds": 3600.0, "jitter": 0.2, "delays_seconds": [5.0, 300.0, 1800.0]}, "timeout_seconds": 20, "enabled": true, "created_at": "2026-01-31T12:00:00Z", "version": 1, "figures": {"delivered": 0, "failed_attempts": 0}}]}))]
pub struct WebhookList {
    #[schema(max_items = 200)]
    pub webhooks: Vec<Webhook>,
}

/// A message to a subscriber, and what became of it. It is a task of the queue `$webhooks`, with the same id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8058", "webhook_id": "01890a5d-ac96-774b-bcce-b302099a8057", "message_id": "msg_01890a5dac96774bbcceb302099a8057_7", "event_type": "task.failed", "event_id": 7, "task_id": "01890a5d-ac96-774b-bcce-b302099a8059", "replay": false, "status": "COMPLETE", "attempt": 1, "max_attempts": 10, "created_at": "2026-01-31T12:00:00Z", "ended_at": "2026-01-31T12:00:01Z", "http_status": 200}))]
pub struct Delivery {
    pub id: Uuid,
    pub webhook_id: Uuid,
    /// The header `webhook-id`: the same in every attempt and replay.
    #[schema(max_length = 200)]
    pub message_id: String,
    /// The event's kind, or `webhook.test`.
    #[schema(max_length = 50, example = "task.failed")]
    pub event_type: String,
    /// The event's number; none of a test.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub event_id: Option<i64>,
    /// The task that the event speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    /// Somebody asked for it to be sent once more.
    pub replay: bool,
    /// `COMPLETE` is delivered; `QUEUED` waits for its next attempt.
    pub status: TaskStatus,
    /// Attempts that have started.
    #[schema(minimum = 0, maximum = 100)]
    pub attempt: i64,
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: i64,
    pub created_at: DateTime<Utc>,
    /// When the next attempt is due.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_attempt_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// What the subscriber answered to the last attempt that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 100, maximum = 999)]
    pub http_status: Option<u16>,
    /// Why that attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<TaskError>,
}

/// What a subscriber is sent. `webhook-timestamp` and `webhook-signature` are new in each attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeliveryRequest {
    #[schema(max_length = 8192)]
    pub url: String,
    #[schema(value_type = BTreeMap<String, bounds::HeaderText>)]
    pub headers: BTreeMap<String, String>,
    /// A CloudEvent (1.0) in JSON.
    #[schema(max_length = 1048576)]
    pub body: String,
}

/// A delivery with its request, and with the answer to each attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"id": "01890a5d-ac96-774b-bcce-b302099a8058", "webhook_id": "01890a5d-ac96-774b-bcce-b302099a8057", "message_id": "msg_01890a5dac96774bbcceb302099a8057_7", "event_type": "task.failed", "event_id": 7, "task_id": "01890a5d-ac96-774b-bcce-b302099a8059", "replay": false, "status": "COMPLETE", "attempt": 1, "max_attempts": 10, "created_at": "2026-01-31T12:00:00Z", "ended_at": "2026-01-31T12:00:01Z", "http_status": 200, "request": {"url": "https://example.com/hooks", "headers": {"content-type": "application/cloudevents+json; charset=utf-8", "webhook-id": "msg_01890a5dac96774bbcceb302099a8057_7"}, "body": "{\"specversion\":\"1.0\"}"}, "attempts": [{"attempt": 1, "status": "COMPLETE", "worker_id": "worker-1", "picked_at": "2026-01-31T12:00:00Z", "started_at": "2026-01-31T12:00:00Z", "ended_at": "2026-01-31T12:00:01Z", "result": {"http_status": 200, "body": "ok"}}]}))]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub delivery: Delivery,
    pub request: DeliveryRequest,
    /// The first one first: status, headers and body of the answer, or why there was none.
    #[schema(max_items = 1000)]
    pub attempts: Vec<Attempt>,
}

/// A page of deliveries, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"deliveries": [{"id": "01890a5d-ac96-774b-bcce-b302099a8058", "webhook_id": "01890a5d-ac96-774b-bcce-b302099a8057", "message_id": "msg_01890a5dac96774bbcceb302099a8057_7", "event_type": "task.failed", "event_id": 7, "task_id": "01890a5d-ac96-774b-bcce-b302099a8059", "replay": false, "status": "COMPLETE", "attempt": 1, "max_attempts": 10, "created_at": "2026-01-31T12:00:00Z", "ended_at": "2026-01-31T12:00:01Z", "http_status": 200}], "next_page_token": ""}))]
pub struct DeliveryList {
    #[schema(max_items = 500)]
    pub deliveries: Vec<Delivery>,
    /// Asks for the next page; empty at the end, and only there. A page may be short, even empty, and still carry a token.
    #[schema(max_length = 500)]
    pub next_page_token: String,
}

/// Which deliveries to list. All filters must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeliveryFilter {
    /// Deliveries in this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
}

/// Which deliveries to send once more.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"status": "FAILED", "dry_run": true}))]
pub struct ReplayRequest {
    /// Deliveries in this state, `FAILED` when left out. `QUEUED` ones, which wait for their next attempt, are tried now; of those that
    /// have ended (`FAILED`, `COMPLETE`, `CANCELLED`) a new delivery is made, with the same message id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TaskStatus>,
    /// Made at this time or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<DateTime<Utc>>,
    /// Only count what would be sent.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dry_run": true, "matched": 2, "replayed": 0, "more": false}))]
pub struct ReplayResponse {
    /// Nothing was sent.
    pub dry_run: bool,
    /// Deliveries that were found, at most 10,000 a call, the oldest first. A replay is not replayed itself.
    #[schema(minimum = 0, maximum = 10000)]
    pub matched: i64,
    /// Deliveries that are sent once more.
    #[schema(minimum = 0, maximum = 10000)]
    pub replayed: i64,
    /// More may match: call again with `created_after` set to `next_created_after`.
    pub more: bool,
    /// Where the next call begins, when there may be more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_created_after: Option<DateTime<Utc>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_tells_null_from_what_is_left_out() {
        let change = |text: &str| serde_json::from_str::<WebhookChange>(text).unwrap();
        assert_eq!(change("{}").only, None);
        assert_eq!(change(r#"{"only":null}"#).only, Some(None));
        assert_eq!(change(r#"{"only":"failures"}"#).only, Some(Some(Only::Failures)));
    }

    #[test]
    fn secrets_are_not_in_debug_output() {
        let new = NewWebhook { secret: Some("whsec_hunter2".into()), ..NewWebhook::default() };
        let rotate = RotateWebhookRequest { secret: new.secret.clone(), overlap_seconds: None };
        assert!(!format!("{new:?} {rotate:?}").contains("hunter2"));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for only in [Only::Failures, Only::Changes, Only::Recovery] {
            assert_eq!(Only::parse(only.as_str()), Some(only));
            assert_eq!(serde_json::to_value(only).unwrap(), only.as_str());
        }
        for reason in DisabledReason::ALL {
            assert_eq!(DisabledReason::parse(reason.as_str()), Some(reason));
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
