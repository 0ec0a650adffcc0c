//! Outgoing webhooks: who subscribes to which events, and what is sent to them.
//!
//! In reading order: [`filter`] (what a webhook wants: pure), [`secret`] (signatures: pure), `message` (what is sent: pure); here, the
//! subscriptions; [`drive`] (events of the log become deliveries), [`push`] (a delivery is signed, and what became of it is noted),
//! [`deliveries`] (the log of deliveries, tests and replays).
//!
//! A delivery is a task of a system queue, in the lane of its webhook. [`crate::claim`], [`crate::outcome`] and [`crate::rescue`] do with it
//! what they do with any.

pub mod deliveries;
pub mod drive;
pub mod filter;
mod message;
pub mod push;
pub mod secret;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};
use taskmaster_openapi::event::EventType;
use taskmaster_openapi::limits;
use taskmaster_openapi::task::RetryPolicy;
use taskmaster_openapi::webhook::{DisabledReason, Only, WEBHOOKS_QUEUE, Webhook, WebhookFigures};
use uuid::Uuid;

use crate::create::{OnceKey, to_json};
use crate::database::Store;
use crate::error::StoreError;
use crate::lanes::Kind;
use crate::row::redacted;
use filter::Filter;
pub use secret::WebhookSecret;

/// What a webhook is set to. Every bound of the contract holds.
#[derive(Debug, Clone, PartialEq)]
pub struct WebhookSettings {
    pub url: String,
    pub description: Option<String>,
    pub filter: Filter,
    pub headers: BTreeMap<String, String>,
    pub max_attempts: i16,
    /// `None` is the default policy of webhooks.
    pub retry: Option<RetryPolicy>,
    pub timeout_seconds: i32,
    pub enabled: bool,
}

/// What came of making a webhook.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    Made(Box<Webhook>),
    /// The same was asked before: this is its webhook, unless that was deleted.
    Replayed(Uuid),
    /// Something else was asked under this key.
    Mismatch,
    /// There are as many as there may be.
    TooMany,
}

/// What came of changing a webhook.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    Changed(Box<Webhook>),
    /// It has another version.
    Conflict,
    NotFound,
}

/// When a delivery is tried again, unless the webhook says otherwise: the schedule that Standard Webhooks recommends.
pub fn default_retry() -> RetryPolicy {
    let hours = |hours: f64| hours * 3_600.0;
    let delays =
        [5.0, 300.0, 1_800.0, hours(2.0), hours(5.0), hours(10.0), hours(14.0), hours(20.0), hours(24.0)].to_vec();
    RetryPolicy { delays_seconds: Some(delays), ..RetryPolicy::default() }
}

/// What [`Subscription`] is read from.
macro_rules! webhook_columns {
    () => {
        " id, lane, url, description, events, queues, tags, only_when, headers, retry, max_attempts, timeout_seconds, secret, after_event,
          disabled_reason, disabled_at, created_at, version, delivered, failed_attempts, last_success_at, last_failure_at,
          failing_since, missed_events_at,
          case when previous_secret_expires_at > now() then previous_secret_expires_at end as previous_secret_expires_at "
    };
}

use webhook_columns;

/// A webhook as it is stored; its secret is not for output.
#[derive(Clone)]
struct Subscription {
    id: Uuid,
    lane: i32,
    settings: WebhookSettings,
    secret: String,
    after_event: i64,
    disabled_reason: Option<DisabledReason>,
    disabled_at: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    version: i64,
    previous_secret_expires_at: Option<DateTime<Utc>>,
    figures: WebhookFigures,
}

impl<'r> FromRow<'r, PgRow> for Subscription {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let events: Vec<String> = row.try_get("events")?;
        let only: Option<String> = row.try_get("only_when")?;
        let reason: Option<String> = row.try_get("disabled_reason")?;
        let Json(headers): Json<BTreeMap<String, String>> = row.try_get("headers")?;
        let filter = Filter {
            events: events.iter().filter_map(|name| EventType::parse(name)).collect(),
            queues: row.try_get("queues")?,
            tags: row.try_get("tags")?,
            only: only.as_deref().and_then(Only::parse),
        };
        Ok(Self {
            id: row.try_get("id")?,
            lane: row.try_get("lane")?,
            settings: WebhookSettings {
                url: row.try_get("url")?,
                description: row.try_get("description")?,
                filter,
                headers,
                max_attempts: row.try_get("max_attempts")?,
                retry: row.try_get::<Option<Json<RetryPolicy>>, _>("retry")?.map(|json| json.0),
                timeout_seconds: row.try_get("timeout_seconds")?,
                enabled: reason.is_none(),
            },
            secret: row.try_get("secret")?,
            after_event: row.try_get("after_event")?,
            disabled_reason: reason.as_deref().and_then(DisabledReason::parse),
            disabled_at: row.try_get("disabled_at")?,
            created_at: row.try_get("created_at")?,
            version: row.try_get("version")?,
            previous_secret_expires_at: row.try_get("previous_secret_expires_at")?,
            figures: WebhookFigures {
                delivered: row.try_get("delivered")?,
                failed_attempts: row.try_get("failed_attempts")?,
                last_success_at: row.try_get("last_success_at")?,
                last_failure_at: row.try_get("last_failure_at")?,
                failing_since: row.try_get("failing_since")?,
                missed_events_at: row.try_get("missed_events_at")?,
            },
        })
    }
}

impl From<Subscription> for Webhook {
    /// What readers see.
    fn from(stored: Subscription) -> Self {
        let WebhookSettings { url, description, filter, headers, max_attempts, retry, timeout_seconds, enabled } =
            stored.settings;
        Webhook {
            id: stored.id,
            url,
            description,
            events: filter.events,
            queues: filter.queues,
            tags: filter.tags,
            only: filter.only,
            headers: redacted(headers),
            max_attempts: max_attempts.into(),
            retry: retry.unwrap_or_else(default_retry),
            timeout_seconds: timeout_seconds.into(),
            enabled,
            disabled_reason: stored.disabled_reason,
            disabled_at: stored.disabled_at,
            created_at: stored.created_at,
            version: stored.version,
            previous_secret_expires_at: stored.previous_secret_expires_at,
            figures: stored.figures,
        }
    }
}

/// So that of two that make webhooks at once one sees what the other made. Ends with the transaction.
const LOCK: &str = "select pg_advisory_xact_lock(hashtext('taskmaster_webhooks'))";

impl Store {
    /// Keeps a new webhook, unless that was done before under the same key. What is recorded from now on is its.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn create_webhook(
        &self,
        id: Uuid,
        settings: &WebhookSettings,
        secret: &WebhookSecret,
        key: Option<&OnceKey>,
    ) -> Result<Made, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query(LOCK).execute(&mut *transaction).await?;
        if let Some(key) = key
            && let Some(before) = made_before(&mut transaction, id, key).await?
        {
            return Ok(before);
        }
        let count: i64 = sqlx::query_scalar("select count(*) from webhooks").fetch_one(&mut *transaction).await?;
        if count >= limits::WEBHOOKS_MAX {
            return Ok(Made::TooMany);
        }
        let lane = free_lane(&mut transaction, WEBHOOKS_QUEUE).await?;
        let stored: Subscription = sqlx::query_as(concat!(
            "insert into webhooks (id, lane, url, description, events, queues, tags, only_when, headers, retry, max_attempts,
                                   timeout_seconds, secret, after_event, disabled_reason, disabled_at)
             select $1, $2, $3, $4, $5, $6, $7, $8, $9::json, $10::json, $11, $12, $13, taskmaster_newest_event(),
                    case when $14 then null else 'by_request' end, case when $14 then null else now() end
             returning",
            webhook_columns!()
        ))
        .bind(id)
        .bind(lane)
        .bind(&settings.url)
        .bind(&settings.description)
        .bind(names(&settings.filter))
        .bind(&settings.filter.queues)
        .bind(&settings.filter.tags)
        .bind(settings.filter.only.map(Only::as_str))
        .bind(to_json(&settings.headers)?)
        .bind(settings.retry.as_ref().map(to_json).transpose()?)
        .bind(settings.max_attempts)
        .bind(settings.timeout_seconds)
        .bind(secret.expose())
        .bind(settings.enabled)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        self.lanes.load(&self.pool).await?;
        Ok(Made::Made(Box::new(stored.into())))
    }

    /// Every webhook, the oldest first.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn webhooks(&self) -> Result<Vec<Webhook>, StoreError> {
        let stored: Vec<Subscription> =
            sqlx::query_as(concat!("select", webhook_columns!(), "from webhooks order by id"))
                .fetch_all(&self.pool)
                .await?;
        Ok(stored.into_iter().map(Webhook::from).collect())
    }

    /// One webhook.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn webhook(&self, id: Uuid) -> Result<Option<Webhook>, StoreError> {
        Ok(self.subscription(id).await?.map(Webhook::from))
    }

    /// One webhook and its secret.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn webhook_and_secret(&self, id: Uuid) -> Result<Option<(Webhook, String)>, StoreError> {
        Ok(self.subscription(id).await?.map(|stored| (stored.clone().into(), stored.secret)))
    }

    async fn subscription(&self, id: Uuid) -> Result<Option<Subscription>, StoreError> {
        let sql = concat!("select", webhook_columns!(), "from webhooks where id = $1");
        Ok(sqlx::query_as(sql).bind(id).fetch_optional(&self.pool).await?)
    }

    /// Changes what a webhook is set to, if it has one of the wanted versions. Enabled again, it is sent what is recorded from now on.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn change_webhook(
        &self,
        id: Uuid,
        wanted: Option<&[i64]>,
        change: impl FnOnce(&mut WebhookSettings),
    ) -> Result<Change, StoreError> {
        // What was recorded before is in the log, below where it begins.
        self.advance_events().await?;
        let mut transaction = self.begin().await?;
        let found: Option<Subscription> =
            sqlx::query_as(concat!("select", webhook_columns!(), "from webhooks where id = $1 for no key update"))
                .bind(id)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(found) = found else { return Ok(Change::NotFound) };
        if wanted.is_some_and(|wanted| !wanted.contains(&found.version)) {
            return Ok(Change::Conflict);
        }
        let mut settings = found.settings;
        change(&mut settings);
        let changed: Subscription = sqlx::query_as(concat!(
            "update webhooks w
                set url = $2, description = $3, events = $4, queues = $5, tags = $6, only_when = $7, headers = $8::json, retry = $9::json,
                    max_attempts = $10, timeout_seconds = $11, version = version + 1,
                    disabled_reason = case when not $12 then coalesce(disabled_reason, 'by_request') end,
                    disabled_at = case when not $12 then coalesce(disabled_at, now()) end,
                    failing_since = case when $12 and disabled_reason is not null then null else failing_since end,
                    after_event = case when $12 and disabled_reason is not null
                                       then greatest(after_event, taskmaster_newest_event()) else after_event end
              where id = $1 returning",
            webhook_columns!()
        ))
        .bind(id)
        .bind(&settings.url)
        .bind(&settings.description)
        .bind(names(&settings.filter))
        .bind(&settings.filter.queues)
        .bind(&settings.filter.tags)
        .bind(settings.filter.only.map(Only::as_str))
        .bind(to_json(&settings.headers)?)
        .bind(settings.retry.as_ref().map(to_json).transpose()?)
        .bind(settings.max_attempts)
        .bind(settings.timeout_seconds)
        .bind(settings.enabled)
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Change::Changed(Box::new(changed.into())))
    }

    /// Gives a webhook a new secret; deliveries are signed with the old one as well for so long.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn rotate_webhook(
        &self,
        id: Uuid,
        secret: &WebhookSecret,
        overlap: Duration,
    ) -> Result<Option<Webhook>, StoreError> {
        let rotated: Option<Subscription> = sqlx::query_as(concat!(
            "update webhooks set previous_secret = secret, previous_secret_expires_at = now() + $3 * interval '1 second', secret = $2,
                                 version = version + 1
              where id = $1 returning",
            webhook_columns!()
        ))
        .bind(id)
        .bind(secret.expose())
        .bind(overlap.as_secs_f64())
        .fetch_optional(&self.pool)
        .await?;
        Ok(rotated.map(Webhook::from))
    }

    /// Removes a webhook; `false` when there was none. Deliveries that wait are cancelled, as many as a few statements reach: what is
    /// left ends as FAILED when it comes due.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn delete_webhook(&self, id: Uuid) -> Result<bool, StoreError> {
        let lane: Option<i32> = sqlx::query_scalar("delete from webhooks where id = $1 returning lane")
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        let Some(lane) = lane else { return Ok(false) };
        for _ in 0..CANCELLED_STEPS {
            let waiting: Vec<Uuid> = sqlx::query_scalar(
                "select t.id from (select id from tasks where lane = $1 and priority = 0 and status = 0 limit $3) t
                   join webhook_deliveries d on d.id = t.id and d.webhook_id = $2 order by t.id",
            )
            .bind(lane)
            .bind(id)
            .bind(CANCELLED_STEP)
            .fetch_all(&self.pool)
            .await?;
            if waiting.is_empty() {
                break;
            }
            self.cancel_each(&waiting).await?;
        }
        Ok(true)
    }
}

/// Deliveries of a deleted webhook that one statement cancels, and such statements.
const CANCELLED_STEP: i64 = 1_000;
const CANCELLED_STEPS: usize = 20;

fn names(filter: &Filter) -> Vec<&'static str> {
    filter.events.iter().map(|kind| kind.as_str()).collect()
}

/// What was made under the key before; `None` when it is new, and now kept.
async fn made_before(connection: &mut PgConnection, id: Uuid, key: &OnceKey) -> Result<Option<Made>, StoreError> {
    let new = sqlx::query(
        "insert into idempotency_keys (principal, key, payload_hash, task_ids, expires_at)
         values ($1, $2, $3, array [$4::uuid], now() + $5 * interval '1 second') on conflict do nothing",
    )
    .bind(&key.principal)
    .bind(&key.key)
    .bind(&key.payload_hash)
    .bind(id)
    .bind(key.kept.as_secs_f64())
    .execute(&mut *connection)
    .await?;
    if new.rows_affected() > 0 {
        return Ok(None);
    }
    let (hash, ids): (Vec<u8>, Vec<Uuid>) =
        sqlx::query_as("select payload_hash, task_ids from idempotency_keys where principal = $1 and key = $2")
            .bind(&key.principal)
            .bind(&key.key)
            .fetch_one(connection)
            .await?;
    let same = ids.first().filter(|_| hash == key.payload_hash);
    Ok(Some(same.map_or(Made::Mismatch, |id| Made::Replayed(*id))))
}

/// A lane of this system queue that no webhook has, made when there is none. Coordinators are told of it.
async fn free_lane(connection: &mut PgConnection, queue: &str) -> Result<i32, StoreError> {
    let free: Option<i32> = sqlx::query_scalar(
        "select id from lanes where queue = $1 and not exists (select from webhooks where lane = lanes.id) order by id desc limit 1",
    )
    .bind(queue)
    .fetch_optional(&mut *connection)
    .await?;
    match free {
        Some(lane) => Ok(lane),
        None => add_lane(connection, queue).await,
    }
}

/// One more lane of a system queue. The caller holds [`LOCK`].
async fn add_lane(connection: &mut PgConnection, queue: &str) -> Result<i32, StoreError> {
    let (lane, _): (i32, String) = sqlx::query_as(
        "with made as (
            insert into lanes (id, queue, kind, flow) overriding system value
            select least(min(id), 0) - 1, $1, $2, (least(min(id), 0) - 1)::text from lanes returning id
         ) select id, pg_notify('taskmaster_due', '*')::text from made",
    )
    .bind(queue)
    .bind(Kind::Http as i16)
    .fetch_one(connection)
    .await?;
    Ok(lane)
}
