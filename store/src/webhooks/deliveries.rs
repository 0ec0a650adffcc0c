//! The log of deliveries, tests and replays.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use taskmaster_openapi::limits;
use taskmaster_openapi::task::{HttpWork, TaskError, TaskStatus};
use taskmaster_openapi::webhook::{Delivery, DeliveryDetail, DeliveryRequest, TEST_EVENT};
use uuid::Uuid;

use super::Subscription;
use super::drive::{NewDelivery, insert};
use super::message;
use crate::create::to_json;
use crate::database::Store;
use crate::error::StoreError;
use crate::read::first_id;
use crate::row::{status_code, status_from};

/// A page of deliveries, and where the next one begins.
#[derive(Debug, Clone)]
pub struct DeliveryPage {
    pub deliveries: Vec<Delivery>,
    /// The next page has ids below this; `None` is the end.
    pub next: Option<Uuid>,
}

/// Which deliveries to send once more.
#[derive(Debug, Clone, PartialEq)]
pub struct Range {
    pub status: TaskStatus,
    pub created_after: Option<DateTime<Utc>>,
    pub created_before: Option<DateTime<Utc>>,
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Replay {
    pub matched: usize,
    pub replayed: usize,
    /// There may be more, made at this time or later.
    pub more_after: Option<DateTime<Utc>>,
}

/// What came of asking for a delivery by hand.
#[derive(Debug, Clone, PartialEq)]
pub enum Asked<T> {
    Done(T),
    /// The webhook is disabled.
    Disabled,
    /// There is no such webhook.
    NoWebhook,
    /// It has no such delivery.
    NoDelivery,
}

/// Rows that one page with a filter looks at.
const SCANNED_MAX: i64 = 1_000;
/// Deliveries that one statement of a replay looks at.
const STEP: i64 = 1_000;
/// Such statements of one replay.
const STEPS_MAX: usize = 100;
/// Clocks of coordinators, which make the ids, may differ from the database's by so much.
const CLOCK_SLACK: TimeDelta = TimeDelta::minutes(5);

/// A delivery with what its task says of it.
macro_rules! delivery_columns {
    () => {
        " d.id, d.webhook_id, d.message_id, d.event_type, d.event_id, d.task_id, d.replay, d.created_at, t.status, t.attempt, t.max_attempts,
          t.run_at, t.finished_at, t.http_status, t.error "
    };
}

/// The task of a delivery `d`, live or finished.
macro_rules! task_of_delivery {
    () => {
        " cross join lateral (
            select status, attempt, max_attempts, run_at, null::timestamptz as finished_at, (result ->> 'http_status')::integer as http_status,
                   error, id, lane from tasks where id = d.id
             union all
            select status, attempt, max_attempts, run_at, finished_at, (result ->> 'http_status')::integer, error, id, lane
              from task_history where id = d.id limit 1) t "
    };
}

/// A window of ids, newest first, then the filter: the cost of a page is bounded whatever the filter matches.
const LIST: &str = concat!(
    "with scanned as materialized (
        select * from webhook_deliveries where webhook_id = $1 and id < $2 order by id desc limit $3
     ), edge as (
        select case when count(*) = $3 then (array_agg(id order by id))[1] end as id from scanned
     )
     select",
    delivery_columns!(),
    ", (select id from edge) as edge from scanned d",
    task_of_delivery!(),
    "where ($4::smallint is null or t.status = $4) order by d.id desc limit $5 + 1"
);

const ONE: &str = concat!(
    "select",
    delivery_columns!(),
    "from webhook_deliveries d",
    task_of_delivery!(),
    "where d.webhook_id = $1 and d.id = $2"
);

/// Deliveries of a window, the oldest first.
const RANGE: &str = concat!(
    "select d.id, d.created_at, t.status from (
        select * from webhook_deliveries
         where webhook_id = $1 and id > $2 and id < $3 and (not replay or $5) order by id limit $4) d",
    task_of_delivery!(),
    "order by d.id"
);

/// New deliveries with the messages of old ones.
const AGAIN: &str = "
    with source as (
        select a.new, d.*, h.work from unnest($1::uuid[], $2::uuid[]) a(old, new)
          join webhook_deliveries d on d.id = a.old
         cross join lateral (select work from task_history where id = a.old limit 1) h
     ), logged as (
        insert into webhook_deliveries (id, webhook_id, message_id, event_type, event_id, task_id, replay)
        select new, webhook_id, message_id, event_type, event_id, task_id, true from source
     ), made as (
        insert into tasks (lane, id, priority, run_at, created_at, scheduled_at, max_attempts, timeout_seconds, work, retry, tags)
        select w.lane, s.new, 0, now(), now(), now(), w.max_attempts, w.timeout_seconds, s.work, coalesce(w.retry, $3::json),
               to_jsonb(array [w.id])
          from source s join webhooks w on w.id = s.webhook_id returning lane
     ), notified as (
        select pg_notify('taskmaster_due', string_agg(distinct lane || ':0', ',')) from made having count(*) > 0
     )
     select (select count(*) from made), (select count(*) from notified)";

const HURRY: &str = "
with due as (
    update tasks set run_at = now() where id = any($1) and status = 0 and lane = $2 and run_at > now() returning lane
), notified as (
    select pg_notify('taskmaster_due', string_agg(distinct lane || ':0', ',')) from due having count(*) > 0
)
select (select count(*) from due), (select count(*) from notified)";

#[derive(Debug)]
struct DeliveryRow(Delivery);

impl<'r> FromRow<'r, PgRow> for DeliveryRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let status = status_from(row.try_get("status")?);
        let run_at: DateTime<Utc> = row.try_get("run_at")?;
        let http_status: Option<i32> = row.try_get("http_status")?;
        Ok(Self(Delivery {
            id: row.try_get("id")?,
            webhook_id: row.try_get("webhook_id")?,
            message_id: row.try_get("message_id")?,
            event_type: row.try_get("event_type")?,
            event_id: row.try_get("event_id")?,
            task_id: row.try_get("task_id")?,
            replay: row.try_get("replay")?,
            status,
            attempt: row.try_get::<i16, _>("attempt")?.into(),
            max_attempts: row.try_get::<i16, _>("max_attempts")?.into(),
            created_at: row.try_get("created_at")?,
            next_attempt_at: Some(run_at).filter(|_| status == TaskStatus::Queued),
            ended_at: row.try_get("finished_at")?,
            http_status: http_status.and_then(|status| u16::try_from(status).ok()),
            error: row.try_get::<Option<Json<TaskError>>, _>("error")?.map(|json| json.0),
        }))
    }
}

impl Store {
    /// Deliveries of a webhook with ids below `before`, newest first. A page may be short, even empty, and still not be the last.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn deliveries_of(
        &self,
        webhook_id: Uuid,
        status: Option<TaskStatus>,
        before: Option<Uuid>,
        page_size: i64,
    ) -> Result<DeliveryPage, StoreError> {
        let scanned_max = if status.is_some() { SCANNED_MAX } else { page_size + 1 };
        let before = before.unwrap_or(Uuid::max());
        let list = |status: Option<i16>, page_size: i64| {
            sqlx::query(LIST)
                .bind(webhook_id)
                .bind(before)
                .bind(scanned_max)
                .bind(status)
                .bind(page_size)
                .fetch_all(&self.pool)
        };
        let rows = list(status.map(status_code), page_size).await?;
        let edge: Option<Uuid> = match rows.first() {
            Some(row) => row.try_get("edge")?,
            // Nothing that was looked at matched: where the look ended is found by looking without the filter.
            None => list(None, 0).await?.first().map(|row| row.try_get("edge")).transpose()?.flatten(),
        };
        let mut deliveries = Vec::with_capacity(rows.len());
        for row in &rows {
            deliveries.push(DeliveryRow::from_row(row)?.0);
        }
        let more = deliveries.len() as i64 > page_size;
        deliveries.truncate(page_size as usize);
        let next = if more { deliveries.last().map(|delivery| delivery.id) } else { edge };
        Ok(DeliveryPage { deliveries, next })
    }

    /// One delivery of a webhook, with its request and its attempts.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn delivery(&self, webhook_id: Uuid, id: Uuid) -> Result<Option<DeliveryDetail>, StoreError> {
        let row: Option<DeliveryRow> = sqlx::query_as(ONE).bind(webhook_id).bind(id).fetch_optional(&self.pool).await?;
        let Some(DeliveryRow(delivery)) = row else { return Ok(None) };
        let Some(task) = self.get(id).await? else { return Ok(None) };
        let attempts = self.attempts(id).await?.unwrap_or_default();
        let HttpWork { url, headers, body, .. } = match task.http {
            Some(http) => http,
            None => return Ok(None),
        };
        let mut request = DeliveryRequest { url, headers, body: body.unwrap_or_default() };
        request.headers.insert(taskmaster_openapi::webhook::headers::ID.into(), delivery.message_id.clone());
        Ok(Some(DeliveryDetail { delivery, request, attempts }))
    }

    async fn brief(&self, webhook_id: Uuid, id: Uuid) -> Result<Asked<Delivery>, StoreError> {
        let row: Option<DeliveryRow> = sqlx::query_as(ONE).bind(webhook_id).bind(id).fetch_optional(&self.pool).await?;
        Ok(row.map_or(Asked::NoDelivery, |DeliveryRow(delivery)| Asked::Done(delivery)))
    }

    /// Leaves a test event for a webhook.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn test_webhook(&self, webhook_id: Uuid) -> Result<Asked<Delivery>, StoreError> {
        let webhook = match self.enabled(webhook_id).await? {
            Asked::Done(webhook) => webhook,
            Asked::Disabled => return Ok(Asked::Disabled),
            Asked::NoWebhook | Asked::NoDelivery => return Ok(Asked::NoWebhook),
        };
        let id = Uuid::now_v7();
        let mut transaction = self.begin().await?;
        let at: DateTime<Utc> = sqlx::query_scalar("select now()").fetch_one(&mut *transaction).await?;
        let body = message::of_test(webhook_id, id, at)?;
        let message_id = message::webhook_message_id(webhook_id, format!("test_{}", id.simple()));
        insert(&mut transaction, &[NewDelivery::of(&webhook, id, message_id, TEST_EVENT, body)]).await?;
        transaction.commit().await?;
        self.brief(webhook_id, id).await
    }

    /// Sends a delivery once more: a new one, or the same one now when it waits for its next attempt.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn replay_delivery(&self, webhook_id: Uuid, id: Uuid) -> Result<Asked<Delivery>, StoreError> {
        let webhook = match self.enabled(webhook_id).await? {
            Asked::Done(webhook) => webhook,
            Asked::Disabled => return Ok(Asked::Disabled),
            Asked::NoWebhook | Asked::NoDelivery => return Ok(Asked::NoWebhook),
        };
        let Asked::Done(delivery) = self.brief(webhook_id, id).await? else { return Ok(Asked::NoDelivery) };
        if !delivery.status.is_terminal() {
            self.hurry(&webhook, &[id]).await?;
            return self.brief(webhook_id, id).await;
        }
        let new = self.again(&[id]).await?;
        match new.first() {
            Some(new) => self.brief(webhook_id, *new).await,
            None => Ok(Asked::NoDelivery),
        }
    }

    /// Sends the deliveries of a range once more, the oldest first, at most [`limits::REPLAY_MAX`] of them. `dry_run` only counts them.
    ///
    /// # Errors
    /// When the database is not available: what was found before is sent.
    pub async fn replay(&self, webhook_id: Uuid, range: &Range, dry_run: bool) -> Result<Asked<Replay>, StoreError> {
        let webhook = match self.enabled(webhook_id).await? {
            Asked::Done(webhook) => webhook,
            Asked::Disabled => return Ok(Asked::Disabled),
            Asked::NoWebhook | Asked::NoDelivery => return Ok(Asked::NoWebhook),
        };
        let mut replay = Replay::default();
        // What is made here lies above.
        let end = Uuid::now_v7();
        let above = range.created_before.map_or(end, |at| first_id(at + CLOCK_SLACK).min(end));
        let mut from = range.created_after.map_or(Uuid::nil(), |at| first_id(at - CLOCK_SLACK));
        for _ in 0..STEPS_MAX {
            let rows: Vec<(Uuid, DateTime<Utc>, i16)> = sqlx::query_as(RANGE)
                .bind(webhook_id)
                .bind(from)
                .bind(above)
                .bind(STEP)
                .bind(range.status == TaskStatus::Queued)
                .fetch_all(&self.pool)
                .await?;
            let Some((last, last_at, _)) = rows.last().copied() else {
                replay.more_after = None;
                break;
            };
            let matches = |(_, at, status): &&(Uuid, DateTime<Utc>, i16)| {
                *status == status_code(range.status)
                    && range.created_after.is_none_or(|after| *at >= after)
                    && range.created_before.is_none_or(|before| *at < before)
            };
            let left = limits::REPLAY_MAX as usize - replay.matched;
            let found: Vec<&(Uuid, DateTime<Utc>, i16)> = rows.iter().filter(matches).take(left + 1).collect();
            let ids: Vec<Uuid> = found.iter().take(left).map(|(id, ..)| *id).collect();
            replay.matched += ids.len();
            if !dry_run && !ids.is_empty() {
                replay.replayed += match range.status {
                    TaskStatus::Queued => self.hurry(&webhook, &ids).await?,
                    _ => self.again(&ids).await?.len(),
                };
            }
            if let Some((_, at, _)) = found.get(left) {
                replay.more_after = Some(*at);
                return Ok(Asked::Done(replay));
            }
            from = last;
            replay.more_after = Some(last_at);
            if (rows.len() as i64) < STEP {
                replay.more_after = None;
                break;
            }
        }
        Ok(Asked::Done(replay))
    }

    /// The webhook, if it is enabled.
    async fn enabled(&self, id: Uuid) -> Result<Asked<Subscription>, StoreError> {
        Ok(match self.subscription(id).await? {
            None => Asked::NoWebhook,
            Some(webhook) if webhook.settings.enabled => Asked::Done(webhook),
            Some(_) => Asked::Disabled,
        })
    }

    /// New deliveries of ended ones. Gives back as many ids as were made: of one, its own.
    async fn again(&self, old: &[Uuid]) -> Result<Vec<Uuid>, StoreError> {
        let new: Vec<Uuid> = old.iter().map(|_| Uuid::now_v7()).collect();
        let (made, _): (i64, i64) = sqlx::query_as(AGAIN)
            .bind(old)
            .bind(&new)
            .bind(to_json(&super::default_retry())?)
            .fetch_one(&self.pool)
            .await?;
        Ok(new.into_iter().take(made as usize).collect())
    }

    /// Deliveries that wait for their next attempt are due now. Gives back how many.
    async fn hurry(&self, webhook: &Subscription, ids: &[Uuid]) -> Result<usize, StoreError> {
        let (hurried, _): (i64, i64) = sqlx::query_as(HURRY).bind(ids).bind(webhook.lane).fetch_one(&self.pool).await?;
        Ok(hurried as usize)
    }
}
