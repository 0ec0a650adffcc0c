//! Incoming webhooks: who may send what, what it becomes, and what came of the last deliveries.
//!
//! A delivery becomes a task as any request does, by [`Store::create_once`]: what the sender calls it is the key under which its task is made
//! once, for [`limits::HOOK_DELIVERY_KEPT_DAYS`]. [`verify`] says whether it is believed (pure).

pub mod verify;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::hook::{Hook, HookDelivery, HookOutcome, HookVerification};
use taskmaster_openapi::limits;
use taskmaster_openapi::schedule::TaskTemplate;
use uuid::Uuid;

use crate::create::{Known, OnceKey, take_key, to_json};
use crate::database::Store;
use crate::error::StoreError;
use crate::row::{redacted_callback, redacted_work};
pub use verify::{Doubt, HookSecret, Presented};

/// What a hook is set to. Every bound of the contract holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HookSettings {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// In lower case, as the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_id_header: Option<String>,
    pub pass_body: bool,
    pub pass_headers: Vec<String>,
    pub task: TaskTemplate,
    pub enabled: bool,
}

/// What came of making a hook.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    Created(Box<Hook>),
    /// The key was taken before.
    Known(Known),
    /// There are as many as there may be.
    TooMany,
}

/// What came of changing or deleting a hook.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed<T> {
    Done(T),
    /// It has another revision.
    Conflict,
    NotFound,
}

/// A hook as it is stored; what is secret in it is not for output.
#[derive(Clone)]
pub struct StoredHook {
    pub id: Uuid,
    pub revision: i64,
    pub verification: HookVerification,
    pub settings: HookSettings,
    /// The secret, and the one before while that is taken.
    secrets: Vec<Vec<u8>>,
    created_at: DateTime<Utc>,
    previous_secret_expires_at: Option<DateTime<Utc>>,
    /// By the database's clock, when this was read.
    now: DateTime<Utc>,
}

/// The columns that [`StoredHook`] reads.
macro_rules! hook_columns {
    () => {
        " id, revision, verification, settings, secret, created_at, clock_timestamp() as now,
          case when previous_secret_expires_at > now() then previous_secret end as previous_secret,
          case when previous_secret_expires_at > now() then previous_secret_expires_at end as previous_secret_expires_at "
    };
}

impl<'r> FromRow<'r, PgRow> for StoredHook {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let verification: &str = row.try_get("verification")?;
        let Json(settings): Json<HookSettings> = row.try_get("settings")?;
        let previous: Option<Vec<u8>> = row.try_get("previous_secret")?;
        Ok(Self {
            id: row.try_get("id")?,
            revision: row.try_get("revision")?,
            verification: HookVerification::parse(verification)
                .ok_or_else(|| sqlx::Error::ColumnNotFound("verification".into()))?,
            settings,
            secrets: std::iter::once(row.try_get("secret")?).chain(previous).collect(),
            created_at: row.try_get("created_at")?,
            previous_secret_expires_at: row.try_get("previous_secret_expires_at")?,
            now: row.try_get("now")?,
        })
    }
}

impl StoredHook {
    /// Whether a delivery is believed, and what the sender calls it.
    ///
    /// # Errors
    /// Why not.
    pub fn verify(&self, presented: &Presented<'_>) -> Result<Option<String>, Doubt> {
        let HookSettings { secret_header, delivery_id_header, .. } = &self.settings;
        let secret_header = secret_header.as_deref().unwrap_or(SECRET_HEADER);
        let now_seconds = self.now.timestamp();
        verify::verify(
            self.verification,
            &self.secrets,
            secret_header,
            delivery_id_header.as_deref(),
            presented,
            now_seconds,
        )
    }

    /// The key under which a delivery of this name makes its task once. What else is in a delivery does not matter: Stripe counts in
    /// it what is still pending.
    pub fn once_key(&self, delivery_id: &str) -> OnceKey {
        let key = match delivery_id.chars().count() <= limits::HOOK_DELIVERY_ID_CHARS_MAX {
            true => delivery_id.to_owned(),
            false => verify::digest(&[delivery_id.as_bytes()]),
        };
        let kept = Duration::from_secs(limits::HOOK_DELIVERY_KEPT_DAYS * 86_400);
        OnceKey { principal: format!("hook {}", self.id), key, payload_hash: Vec::new(), kept }
    }

    /// What readers see.
    pub fn shown(self) -> Hook {
        let HookSettings { name, secret_header, delivery_id_header, pass_body, pass_headers, mut task, enabled } =
            self.settings;
        task.http = task.http.map(redacted_work);
        task.callback = task.callback.map(redacted_callback);
        task.failure_callback = task.failure_callback.map(redacted_callback);
        Hook {
            id: self.id,
            revision: self.revision,
            name,
            verification: self.verification,
            secret_header,
            delivery_id_header,
            pass_body,
            pass_headers,
            task,
            enabled,
            receive_path: paths::HOOK_RECEIVE.replace("{id}", &self.id.to_string()),
            created_at: self.created_at,
            previous_secret_expires_at: self.previous_secret_expires_at,
        }
    }
}

/// Where a shared secret stands unless the hook says otherwise.
pub const SECRET_HEADER: &str = "authorization";

/// So that of two that make hooks at once one sees what the other made. Ends with the transaction.
const LOCK: &str = "select pg_advisory_xact_lock(hashtext('taskmaster_hooks'))";

impl Store {
    /// Keeps a new hook, unless that was done before under the same key, or there are [`limits::HOOKS_MAX`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn create_hook(
        &self,
        id: Uuid,
        verification: HookVerification,
        settings: &HookSettings,
        secret: &HookSecret,
        once: Option<&OnceKey>,
    ) -> Result<Made, StoreError> {
        let mut transaction = self.begin().await?;
        if let Some(key) = once
            && !take_key(&mut transaction, key, &[id]).await?
        {
            transaction.rollback().await?;
            return self.known_once(key).await.map(Made::Known);
        }
        sqlx::query(LOCK).execute(&mut *transaction).await?;
        let count: i64 = sqlx::query_scalar("select count(*) from hooks").fetch_one(&mut *transaction).await?;
        if count >= limits::HOOKS_MAX {
            return Ok(Made::TooMany);
        }
        let stored: StoredHook = sqlx::query_as(concat!(
            "insert into hooks (id, verification, settings, secret) values ($1, $2, $3::json, $4) returning",
            hook_columns!()
        ))
        .bind(id)
        .bind(verification.as_str())
        .bind(to_json(settings)?)
        .bind(secret.kept(verification))
        .fetch_one(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(Made::Created(Box::new(stored.shown())))
    }

    /// Hooks with ids below this, newest first.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn hooks(&self, before: Option<Uuid>, count: i64) -> Result<Vec<Hook>, StoreError> {
        let stored: Vec<StoredHook> =
            sqlx::query_as(concat!("select", hook_columns!(), "from hooks where id < $1 order by id desc limit $2"))
                .bind(before.unwrap_or(Uuid::max()))
                .bind(count)
                .fetch_all(&self.pool)
                .await?;
        Ok(stored.into_iter().map(StoredHook::shown).collect())
    }

    /// One hook with all that is known of it: to verify, and to be changed, not to be shown.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn stored_hook(&self, id: Uuid) -> Result<Option<StoredHook>, StoreError> {
        let stored = sqlx::query_as(concat!("select", hook_columns!(), "from hooks where id = $1"))
            .bind(id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(stored)
    }

    /// Changes a hook whose revision is still this one.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn change_hook(
        &self,
        id: Uuid,
        revision: i64,
        settings: &HookSettings,
    ) -> Result<Changed<Box<Hook>>, StoreError> {
        let changed: Option<StoredHook> = sqlx::query_as(concat!(
            "update hooks set settings = $3::json, revision = revision + 1 where id = $1 and revision = $2 returning",
            hook_columns!()
        ))
        .bind(id)
        .bind(revision)
        .bind(to_json(settings)?)
        .fetch_optional(&self.pool)
        .await?;
        match changed {
            Some(hook) => Ok(Changed::Done(Box::new(hook.shown()))),
            None => self.not_changed(id).await,
        }
    }

    /// Gives a hook a new secret; the one that it had is taken as well for so long.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn rotate_hook(
        &self,
        id: Uuid,
        verification: HookVerification,
        secret: &HookSecret,
        overlap: Duration,
    ) -> Result<Option<Hook>, StoreError> {
        let rotated: Option<StoredHook> = sqlx::query_as(concat!(
            "update hooks set previous_secret = secret, previous_secret_expires_at = now() + $3 * interval '1 second', secret = $2,
                              revision = revision + 1
              where id = $1 and verification = $4 returning",
            hook_columns!()
        ))
        .bind(id)
        .bind(secret.kept(verification))
        .bind(overlap.as_secs_f64())
        .bind(verification.as_str())
        .fetch_optional(&self.pool)
        .await?;
        Ok(rotated.map(StoredHook::shown))
    }

    /// Deletes a hook whose revision is still this one, where one is given. Its tasks stay.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn delete_hook(&self, id: Uuid, revisions: Option<&[i64]>) -> Result<Changed<()>, StoreError> {
        let done = sqlx::query("delete from hooks where id = $1 and ($2::bigint[] is null or revision = any($2))")
            .bind(id)
            .bind(revisions)
            .execute(&self.pool)
            .await?;
        match done.rows_affected() {
            0 => self.not_changed(id).await,
            _ => Ok(Changed::Done(())),
        }
    }

    async fn not_changed<T>(&self, id: Uuid) -> Result<Changed<T>, StoreError> {
        let is_there: bool = sqlx::query_scalar("select exists (select from hooks where id = $1)")
            .bind(id)
            .fetch_one(&self.pool)
            .await?;
        Ok(if is_there { Changed::Conflict } else { Changed::NotFound })
    }

    /// Notes what came of a delivery, and forgets what is too many. Of those who are not verified one is noted a second: strangers decide
    /// how often there is something to write. For people to look at: what was accepted does not depend on it.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn note_hook_delivery(
        &self,
        hook_id: Uuid,
        outcome: HookOutcome,
        delivery_id: Option<&str>,
        task_id: Option<Uuid>,
    ) -> Result<(), StoreError> {
        let verified = outcome != HookOutcome::Unverified;
        let kept = if verified { limits::HOOK_DELIVERIES_KEPT } else { limits::HOOK_STRANGERS_KEPT };
        let delivery_id: Option<String> =
            delivery_id.map(|id| id.chars().take(limits::HOOK_DELIVERY_ID_CHARS_MAX).collect());
        sqlx::query(
            "with last as (
                select received_at from hook_deliveries where hook_id = $1 and verified = $5 order by id desc limit 1
             ), added as (
                insert into hook_deliveries (hook_id, outcome, delivery_id, task_id, verified)
                select id, $2, $3, $4, $5 from hooks
                 where id = $1 and ($5 or not exists (select from last where received_at > now() - interval '1 second'))
                returning id
             )
             delete from hook_deliveries using (
                select d.id
                  from (select id from hook_deliveries where hook_id = $1 and verified = $5 and exists (select from added)
                         order by id desc offset $6 limit 100) many
                       join hook_deliveries d on d.id = many.id
                 order by d.id for update of d skip locked
             ) old where hook_deliveries.id = old.id",
        )
        .bind(hook_id)
        .bind(outcome.as_str())
        .bind(delivery_id)
        .bind(task_id)
        .bind(verified)
        // The one that is being added is not seen yet.
        .bind(kept - 1)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// What came of the last deliveries, newest first; `None` when there is no such hook.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn hook_deliveries(&self, hook_id: Uuid) -> Result<Option<Vec<HookDelivery>>, StoreError> {
        // Some that are too many may not have been forgotten yet.
        let rows: Vec<DeliveryRow> = sqlx::query_as(
            "(select id, received_at, outcome, delivery_id, task_id from hook_deliveries
               where hook_id = $1 and verified order by id desc limit $2)
             union all
             (select id, received_at, outcome, delivery_id, task_id from hook_deliveries
               where hook_id = $1 and not verified order by id desc limit $3)
             order by id desc",
        )
        .bind(hook_id)
        .bind(limits::HOOK_DELIVERIES_KEPT)
        .bind(limits::HOOK_STRANGERS_KEPT)
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() && self.stored_hook(hook_id).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(rows.into_iter().map(|DeliveryRow(delivery)| delivery).collect()))
    }
}

struct DeliveryRow(HookDelivery);

impl<'r> FromRow<'r, PgRow> for DeliveryRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let outcome: &str = row.try_get("outcome")?;
        Ok(Self(HookDelivery {
            received_at: row.try_get("received_at")?,
            outcome: HookOutcome::parse(outcome).ok_or_else(|| sqlx::Error::ColumnNotFound("outcome".into()))?,
            delivery_id: row.try_get("delivery_id")?,
            task_id: row.try_get("task_id")?,
        }))
    }
}
