//! Queues: whether they are paused, their limits, and what their tasks are like when they do not say.
//!
//! In reading order: [`edit`] (what users do), [`book`] (what is known of all queues), [`deal`] (who has how much of what room there is:
//! pure), `limited` (claims within limits), `key_lanes` (a lane for each flow key), [`purge`].
//!
//! Limits hold whatever dies. What is in flight is counted where claims are kept, and never kept itself: it cannot drift. Tokens and turns are
//! rows. Who claims from a queue with limits has locked the queue's row, looks afterwards, and spends in the same transaction. Every other
//! claim names the version of all settings that it knows, and takes nothing when there is a newer one: so pauses and new limits hold for each
//! claim that begins once they are committed, and queues without limits cost what they did.

pub mod book;
pub mod deal;
pub mod edit;
pub mod purge;

pub(crate) mod key_lanes;
pub(crate) mod limited;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use taskmaster_openapi::gateway::StatusCounts;
use taskmaster_openapi::queue::{Queue, QueueSettings, Rate};
use taskmaster_openapi::task::RetryPolicy;

/// The columns of `queues` that [`SetRow`] reads.
macro_rules! queue_columns {
    () => {
        "q.queue, q.revision, q.changed_at, q.paused_at, q.pause_reason, q.concurrency, q.key_concurrency, q.rate_count, q.rate_seconds,
         q.key_rate_count, q.key_rate_seconds, q.max_attempts, q.timeout_seconds, q.retry"
    };
}
pub(crate) use queue_columns;

/// What is set of a queue.
#[derive(Debug, Clone)]
pub(crate) struct SetRow {
    pub queue: String,
    pub revision: i64,
    pub changed_at: DateTime<Utc>,
    pub paused_at: Option<DateTime<Utc>>,
    pub pause_reason: Option<String>,
    pub settings: QueueSettings,
}

impl<'r> FromRow<'r, PgRow> for SetRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let whole = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i32>, _>(name)?.map(i64::from));
        let rate = |count: &str, seconds: &str| {
            let (count, seconds) = (whole(count)?, whole(seconds)?);
            Ok::<_, sqlx::Error>(count.zip(seconds).map(|(count, period_seconds)| Rate { count, period_seconds }))
        };
        Ok(Self {
            queue: row.try_get("queue")?,
            revision: row.try_get("revision")?,
            changed_at: row.try_get("changed_at")?,
            paused_at: row.try_get("paused_at")?,
            pause_reason: row.try_get("pause_reason")?,
            settings: QueueSettings {
                concurrency: whole("concurrency")?,
                concurrency_by_key: whole("key_concurrency")?,
                rate: rate("rate_count", "rate_seconds")?,
                rate_by_key: rate("key_rate_count", "key_rate_seconds")?,
                max_attempts: row.try_get::<Option<i16>, _>("max_attempts")?.map(i64::from),
                retry: row.try_get::<Option<Json<RetryPolicy>>, _>("retry")?.map(|json| json.0),
                timeout_seconds: whole("timeout_seconds")?,
            },
        })
    }
}

impl SetRow {
    fn shown(self, tasks: StatusCounts) -> Queue {
        let settings = self.settings;
        Queue {
            queue: self.queue,
            paused: self.paused_at.is_some(),
            paused_at: self.paused_at,
            pause_reason: self.pause_reason,
            concurrency: settings.concurrency,
            concurrency_by_key: settings.concurrency_by_key,
            rate: settings.rate,
            rate_by_key: settings.rate_by_key,
            max_attempts: settings.max_attempts,
            retry: settings.retry,
            timeout_seconds: settings.timeout_seconds,
            changed_at: Some(self.changed_at),
            tasks,
            revision: self.revision,
        }
    }
}

/// A queue of which nothing is set.
fn unset(queue: String, tasks: StatusCounts) -> Queue {
    Queue {
        queue,
        paused: false,
        paused_at: None,
        pause_reason: None,
        concurrency: None,
        concurrency_by_key: None,
        rate: None,
        rate_by_key: None,
        max_attempts: None,
        retry: None,
        timeout_seconds: None,
        changed_at: None,
        tasks,
        revision: 0,
    }
}
