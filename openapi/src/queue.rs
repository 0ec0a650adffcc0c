//! Queues: what lets their tasks through, how many at once and how often, and what their tasks are like when they do not say.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::gateway::StatusCounts;
use crate::task::RetryPolicy;

/// So many tasks in so many seconds: a bucket that holds `count` tokens and is filled again within `period_seconds`. A queue that was
/// idle may begin `count` tasks at once, and then one in every `period_seconds / count`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"count": 100, "period_seconds": 60}))]
pub struct Rate {
    /// Tasks.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 1000000)]
    pub count: i64,
    /// In so many seconds.
    #[serde(deserialize_with = "crate::whole::number")]
    #[schema(minimum = 1, maximum = 86400)]
    pub period_seconds: i64,
}

/// What can be set of a queue. To change it, a JSON merge patch (RFC 7396): what is left out stays, `null` takes away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"concurrency": 3, "concurrency_by_key": 1, "rate": {"count": 100, "period_seconds": 60}, "max_attempts": 5}))]
pub struct QueueSettings {
    /// Tasks that workers may have at once, in the whole installation.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100000)]
    pub concurrency: Option<i64>,
    /// … of each `flow_key`. Keys take turns.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100000)]
    pub concurrency_by_key: Option<i64>,
    /// How often tasks may begin. Each attempt counts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub rate: Option<Rate>,
    /// … those of each `flow_key`. Keys take turns.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub rate_by_key: Option<Rate>,
    /// Attempts of tasks that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<i64>,
    /// When tasks that do not say are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub retry: Option<RetryPolicy>,
    /// Longest duration of one attempt of tasks that do not say, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout_seconds: Option<i64>,
}

impl QueueSettings {
    /// Whether claims must be counted.
    pub fn has_limits(&self) -> bool {
        self.concurrency.is_some() || self.rate.is_some() || self.has_limits_by_key()
    }

    /// Whether tasks are told apart by their flow keys.
    pub fn has_limits_by_key(&self) -> bool {
        self.concurrency_by_key.is_some() || self.rate_by_key.is_some()
    }
}

/// A queue: what is set of it, and how many tasks it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "queue": "mail",
    "paused": false,
    "concurrency": 3,
    "rate": {"count": 100, "period_seconds": 60},
    "changed_at": "2026-01-31T12:00:00.000000Z",
    "tasks": {"queued": 12, "picked": 1, "started": 2, "complete": 1031, "failed": 2, "cancelled": 0},
}))]
pub struct Queue {
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$")]
    pub queue: String,
    /// None of its tasks is given to a worker until it is resumed.
    pub paused: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub pause_reason: Option<String>,
    /// Tasks that workers may have at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100000)]
    pub concurrency: Option<i64>,
    /// … of each `flow_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100000)]
    pub concurrency_by_key: Option<i64>,
    /// How often tasks may begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// … those of each `flow_key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_by_key: Option<Rate>,
    /// Attempts of tasks that do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub max_attempts: Option<i64>,
    /// When tasks that do not say are tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryPolicy>,
    /// Longest duration of one attempt of tasks that do not say, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 86400)]
    pub timeout_seconds: Option<i64>,
    /// When any of this was set last; left out where nothing ever was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<DateTime<Utc>>,
    /// At most a second old. Ended tasks stay counted after their history is dropped.
    pub tasks: StatusCounts,
    /// Raised by every change; not part of the body: the `ETag` begins with it.
    #[serde(skip)]
    #[schema(ignore)]
    pub revision: i64,
}

impl Queue {
    /// What of it a user can set.
    pub fn settings(&self) -> QueueSettings {
        QueueSettings {
            concurrency: self.concurrency,
            concurrency_by_key: self.concurrency_by_key,
            rate: self.rate,
            rate_by_key: self.rate_by_key,
            max_attempts: self.max_attempts,
            retry: self.retry.clone(),
            timeout_seconds: self.timeout_seconds,
        }
    }
}

/// A page of queues, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "queues": [{
        "queue": "default",
        "paused": false,
        "tasks": {"queued": 0, "picked": 0, "started": 0, "complete": 7, "failed": 0, "cancelled": 0},
    }],
    "next_page_token": "",
}))]
pub struct QueueList {
    #[schema(max_items = 500)]
    pub queues: Vec<Queue>,
    /// Asks for the next page; empty at the end, and only there.
    #[schema(max_length = 500, pattern = "^[A-Za-z0-9_-]*$")]
    pub next_page_token: String,
}

/// What to take out of a queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"dry_run": true}))]
pub struct PurgeRequest {
    /// Only count what would be cancelled.
    #[serde(default)]
    pub dry_run: bool,
    /// Only tasks that were created before this time (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_before: Option<DateTime<Utc>>,
}

/// What was taken out of a queue.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dry_run": true, "matched": 12, "cancelled": 0, "more": false}))]
pub struct PurgeResponse {
    /// Nothing was changed.
    pub dry_run: bool,
    /// QUEUED tasks that were found, at most 10,000 a call.
    #[schema(minimum = 0, maximum = 10000)]
    pub matched: i64,
    /// Tasks that are CANCELLED now.
    #[schema(minimum = 0, maximum = 10000)]
    pub cancelled: i64,
    /// There are more: call again.
    pub more: bool,
}
