//! A delivery is signed when it is pushed to a worker, and what became of it is noted: workers neither hold secrets nor know of webhooks.

use std::collections::HashMap;

use sqlx::types::Json;
use taskmaster_openapi::limits;
use taskmaster_openapi::task::HttpWork;
use taskmaster_openapi::webhook::{DisabledReason, headers};
use uuid::Uuid;

use super::{WebhookSecret, message};
use crate::database::Store;
use crate::error::StoreError;
use crate::row::from_row;

/// Why a delivery is not sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsent {
    #[error("the webhook was deleted")]
    Deleted,
    #[error("the webhook is disabled")]
    Disabled,
}

/// What became of an attempt of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempted {
    pub id: Uuid,
    pub delivered: bool,
    /// The subscriber answered 410.
    pub gone: bool,
}

/// What a delivery is sealed with; not for output.
struct Seal {
    id: Uuid,
    message_id: String,
    timestamp: i64,
    /// Of the webhook; none of a callback.
    url: Option<String>,
    headers: Option<Json<std::collections::BTreeMap<String, String>>>,
    secrets: Vec<Option<String>>,
    is_callback: bool,
    is_disabled: bool,
}

from_row!(Seal { id, message_id, timestamp, url, headers, secrets, is_callback, is_disabled });

impl Seal {
    fn on(&self, work: HttpWork) -> Result<HttpWork, Unsent> {
        let url = match (&self.url, self.is_callback) {
            (Some(_), _) if self.is_disabled => return Err(Unsent::Disabled),
            (Some(url), _) => url.clone(),
            (None, true) => work.url,
            (None, false) => return Err(Unsent::Deleted),
        };
        let given = self.headers.as_ref().map_or(work.headers, |headers| headers.0.clone());
        let body = work.body.unwrap_or_default();
        let secrets = self.secrets.iter().flatten().filter_map(|secret| WebhookSecret::parse(secret));
        let signatures: Vec<String> =
            secrets.map(|secret| secret.sign(&self.message_id, self.timestamp, &body)).collect();
        let mut sealed = message::request(url, given, body);
        sealed.headers.insert(headers::ID.into(), self.message_id.clone());
        sealed.headers.insert(headers::TIMESTAMP.into(), self.timestamp.to_string());
        if !signatures.is_empty() {
            sealed.headers.insert(headers::SIGNATURE.into(), signatures.join(" "));
        }
        Ok(sealed)
    }
}

impl Store {
    /// Signs deliveries for an attempt that begins now: each as it is to be sent, where the webhook leads at this moment, or why it is not
    /// to be sent.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn seal(
        &self,
        deliveries: Vec<(Uuid, HttpWork)>,
    ) -> Result<HashMap<Uuid, Result<HttpWork, Unsent>>, StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|(id, _)| *id).collect();
        let seals: Vec<Seal> = sqlx::query_as(
            "select d.id, d.message_id, floor(extract(epoch from clock_timestamp()))::bigint as timestamp, w.url, w.headers,
                    array [coalesce(w.secret, d.secret), case when w.previous_secret_expires_at > now() then w.previous_secret end] as secrets,
                    d.webhook_id is null as is_callback, w.disabled_reason is not null as is_disabled
               from webhook_deliveries d left join webhooks w on w.id = d.webhook_id
              where d.id = any($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let seals: HashMap<Uuid, Seal> = seals.into_iter().map(|seal| (seal.id, seal)).collect();
        let sealed = |(id, work)| (id, seals.get(&id).map_or(Err(Unsent::Deleted), |seal: &Seal| seal.on(work)));
        Ok(deliveries.into_iter().map(sealed).collect())
    }

    /// Notes what became of attempts on their webhooks. One whose subscriber is gone, or has failed for days, is disabled; which ones were,
    /// and why, is given back, and is an event.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn note_deliveries(&self, attempted: &[Attempted]) -> Result<Vec<(Uuid, DisabledReason)>, StoreError> {
        if attempted.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<(Uuid, String)> = sqlx::query_as(NOTE)
            .bind(attempted.iter().map(|a| a.id).collect::<Vec<_>>())
            .bind(attempted.iter().map(|a| a.delivered).collect::<Vec<_>>())
            .bind(attempted.iter().map(|a| a.gone).collect::<Vec<_>>())
            .bind(limits::WEBHOOK_FAILING_DAYS as f64)
            .fetch_all(&self.pool)
            .await?;
        Ok(self.disabled(rows))
    }

    /// Disables webhooks for which too much waits. Gives back which ones it disabled.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn disable_overdue_webhooks(&self) -> Result<Vec<(Uuid, DisabledReason)>, StoreError> {
        let rows: Vec<(Uuid, String)> =
            sqlx::query_as(OVERDUE).bind(limits::WEBHOOK_WAITING_MAX).fetch_all(&self.pool).await?;
        Ok(self.disabled(rows))
    }

    fn disabled(&self, rows: Vec<(Uuid, String)>) -> Vec<(Uuid, DisabledReason)> {
        if !rows.is_empty() {
            self.events_waiting.notify_one();
        }
        rows.into_iter().filter_map(|(id, reason)| Some((id, DisabledReason::parse(&reason)?))).collect()
    }

    /// Forgets deliveries that were made so many days ago, and series that have failed for as long as a month.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn trim_deliveries(&self, kept_days: i32) -> Result<(), StoreError> {
        sqlx::query(
            "delete from webhook_deliveries where id in
                (select id from webhook_deliveries where created_at < now() - make_interval(days => $1) order by created_at limit 10000)",
        )
        .bind(kept_days)
        .execute(&self.pool)
        .await?;
        sqlx::query("delete from webhook_series where failed_at < now() - interval '30 days'")
            .execute(&self.pool)
            .await?;
        Ok(())
    }
}

/// In the order of their ids, so that two that note at once do not wait for one another in a circle.
const NOTE: &str = "
with each as (
    select d.webhook_id, count(*) filter (where a.delivered) as delivered, count(*) filter (where not a.delivered) as failed,
           bool_or(a.gone) as gone
      from unnest($1::uuid[], $2::boolean[], $3::boolean[]) a(id, delivered, gone) join webhook_deliveries d on d.id = a.id
     where d.webhook_id is not null group by d.webhook_id
), before as materialized (
    select w.id, e.delivered, e.failed,
           case when w.disabled_reason is not null then null
                when e.gone then 'gone'
                when e.delivered = 0 and w.failing_since < now() - $4 * interval '1 day' then 'failing' end as reason
      from webhooks w join each e on e.webhook_id = w.id order by w.id for no key update of w
), noted as (
    update webhooks w
       set delivered = w.delivered + b.delivered, failed_attempts = w.failed_attempts + b.failed,
           last_success_at = case when b.delivered > 0 then now() else w.last_success_at end,
           last_failure_at = case when b.failed > 0 then now() else w.last_failure_at end,
           failing_since = case when b.delivered = 0 then coalesce(w.failing_since, now()) end,
           disabled_reason = coalesce(w.disabled_reason, b.reason),
           disabled_at = case when b.reason is not null then now() else w.disabled_at end,
           version = w.version + (b.reason is not null)::int
      from before b where w.id = b.id
    returning w.id, b.reason
), told as (
    insert into event_inbox (type, workers, n)
    select 13, array_agg(id::text), count(*) from noted where reason is not null having count(*) > 0
)
select id, reason from noted where reason is not null";

const OVERDUE: &str = "
with overdue as (
    update webhooks w set disabled_reason = 'backlog', disabled_at = now(), version = version + 1
     where disabled_reason is null
       and (select count(*) from (select from tasks t where t.lane = w.lane and t.priority = 0 and t.status = 0 limit $1 + 1) t) > $1
    returning id, disabled_reason
), told as (
    insert into event_inbox (type, workers, n) select 13, array_agg(id::text), count(*) from overdue having count(*) > 0
)
select id, disabled_reason from overdue";
