//! Accepting tasks.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use taskmaster_openapi::task::{Callback, RetryPolicy, Task, TaskStatus, Work};
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;
use crate::lanes::{Labels, LaneKey};
use crate::news::Untold;
use crate::pool::Transaction;
use crate::queues::key_lanes::{KeyedWork, Placed};
use crate::row::{show_callbacks, show_work};
use crate::trace;

/// When a task is due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Due {
    Now,
    /// Not before this time; now when it has passed.
    At(DateTime<Utc>),
    /// Not before so long after the insertion.
    After(Duration),
}

/// A validated task. Every bound of the contract holds.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskToCreate {
    /// A UUIDv7, made by the caller.
    pub id: Uuid,
    pub work: Work,
    pub due: Due,
    pub queue: String,
    /// Labels that its worker must have.
    pub requires: Labels,
    /// Whose it is, for limits by key.
    pub flow_key: Option<String>,
    pub priority: i16,
    pub max_attempts: i16,
    /// `None` is the default policy.
    pub retry: Option<RetryPolicy>,
    pub timeout_seconds: i32,
    pub tags: Vec<String>,
    /// `None` where nobody is to be told of its end.
    pub callbacks: Option<Callbacks>,
    /// The trace it is part of: `traceparent`, and after a blank `tracestate` where there is one.
    pub trace: Option<String>,
}

/// Whom to tell when a task has ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Callbacks {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callback: Option<Callback>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_callback: Option<Callback>,
}

/// A key under which a request creates its tasks once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnceKey {
    /// Whose key it is: keys of different principals do not meet.
    pub principal: String,
    /// 1 to 255 characters.
    pub key: String,
    /// A digest of what the request asks for.
    pub payload_hash: Vec<u8>,
    /// The key is remembered for at least so long.
    pub kept: Duration,
}

/// What came of creating tasks under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Once {
    /// The key was new: the tasks are stored.
    Created(Vec<Task>),
    /// The same was asked before: these are its tasks.
    Replayed(Vec<Uuid>),
    /// Something else was asked under this key.
    Mismatch,
    /// Somebody is storing under this key at this moment.
    InFlight,
}

/// What is known under a key that was taken before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// The same was asked before: this was made.
    Replayed(Vec<Uuid>),
    /// Something else was asked under this key.
    Mismatch,
    /// Somebody is storing under this key at this moment.
    InFlight,
}

/// Takes a key for what has these ids, until the transaction ends. `false` when it is taken, or being taken.
pub(crate) async fn take_key(connection: &mut PgConnection, key: &OnceKey, ids: &[Uuid]) -> Result<bool, StoreError> {
    let taken = sqlx::query(
        "insert into idempotency_keys (principal, key, payload_hash, task_ids, expires_at)
         select $1, $2, $3, $4, now() + $5 * interval '1 second'
          where pg_try_advisory_xact_lock(hashtextextended($1 || ' ' || $2, 0)) on conflict do nothing",
    )
    .bind(&key.principal)
    .bind(&key.key)
    .bind(&key.payload_hash)
    .bind(ids)
    .bind(key.kept.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(taken.rows_affected() > 0)
}

/// What is to be stored, from `input` on: the rows, the event, and what coordinators are to be told when something is due
/// before their next poll, as [`news_sql`]. `$more` names further columns of the input that are stored.
macro_rules! stored_sql {
    ($more:literal, $condition:literal, $answer:literal) => {
        concat!("
), added as (
    insert into tasks (id, lane, priority, run_at, created_at, scheduled_at, max_attempts, timeout_seconds, work, retry, tags", $more, ")
    select id, lane, priority, greatest(now(), asked.at), now(), asked.at, max_attempts, timeout_seconds,
           work::json, retry::json, tags::jsonb", $more, "
      from input, lateral (select coalesce(at, now() + coalesce(delay_seconds, 0) * interval '1 second') as at) asked
", $condition, "
    returning id, lane, priority, run_at, scheduled_at
), noted as (
    insert into event_inbox (type, to_status, task_ids, lanes, attempts, n)
    select 0, 0, array_agg(id), array_agg(lane), array_agg(0::smallint), count(*) from added having count(*) > 0
), ", $crate::news::news_sql!("added", "count(*) filter (where run_at <= now())"), "
", $answer)
    };
}
pub(crate) use stored_sql;

/// One statement, whatever the number of tasks.
macro_rules! insert_sql {
    ($answer:literal) => {
        insert_sql!("with input as (", "", $answer)
    };
    ($begin:literal, $condition:literal, $answer:literal) => {
        concat!(
            $begin,
            "
    select * from unnest($1::uuid[], $2::integer[], $3::smallint[], $4::timestamptz[], $5::float8[], $6::smallint[],
                         $7::integer[], $8::text[], $9::text[], $10::text[], $11::text[]::json[], $12::text[], $13::text[])
      as i(id, lane, priority, at, delay_seconds, max_attempts, timeout_seconds, work, retry, tags, callbacks, flow_key, trace)",
            stored_sql!(", callbacks, flow_key, trace", $condition, $answer)
        )
    };
}

const INSERT_AND_READ: &str =
    insert_sql!("select id, run_at, scheduled_at, now() as created_at, (select due from news) from added");
/// With a key: nothing is stored unless the key is new, and nobody is storing under it at this moment.
const INSERT_ONCE_AND_READ: &str = insert_sql!(
    "
with once as materialized (
    insert into idempotency_keys (principal, key, payload_hash, task_ids, expires_at)
    select $14, $15, $16, $1, now() + $17 * interval '1 second'
     where pg_try_advisory_xact_lock(hashtextextended($14 || ' ' || $15, 0))
    on conflict do nothing returning true
), input as (",
    "where exists (select from once)",
    "select id, run_at, scheduled_at, now() as created_at, (select due from news) from added"
);
const INSERT: &str = insert_sql!("select due from news");

impl Store {
    /// Stores the tasks, all or none, and gives them back as they are stored, in order.
    ///
    /// # Errors
    /// When the database is not available, or there are too many queues or combinations of labels.
    pub async fn create(&self, tasks: &[TaskToCreate]) -> Result<Vec<Task>, StoreError> {
        let rows = self.insert(tasks, INSERT_AND_READ, None).await?;
        read_back(tasks, rows)
    }

    /// Stores the tasks, all or none, unless that was done before under the same key.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub async fn create_once(&self, tasks: &[TaskToCreate], key: &OnceKey) -> Result<Once, StoreError> {
        let rows = self.insert(tasks, INSERT_ONCE_AND_READ, Some(key)).await?;
        if !rows.is_empty() {
            return read_back(tasks, rows).map(Once::Created);
        }
        Ok(match self.known_once(key).await? {
            Known::InFlight => Once::InFlight,
            Known::Replayed(task_ids) => Once::Replayed(task_ids),
            Known::Mismatch => Once::Mismatch,
        })
    }

    /// What is known under a key that could not be taken.
    pub(crate) async fn known_once(&self, key: &OnceKey) -> Result<Known, StoreError> {
        let known: Option<(Vec<u8>, Vec<Uuid>)> =
            sqlx::query_as("select payload_hash, task_ids from idempotency_keys where principal = $1 and key = $2")
                .bind(&key.principal)
                .bind(&key.key)
                .fetch_optional(&self.pool)
                .await?;
        Ok(match known {
            None => Known::InFlight,
            Some((hash, ids)) if hash == key.payload_hash => Known::Replayed(ids),
            Some(_) => Known::Mismatch,
        })
    }

    /// Forgets keys whose time is over.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn trim_idempotency_keys(&self) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "delete from idempotency_keys k using
                (select principal, key from idempotency_keys where expires_at < now() order by expires_at limit 10000) old
              where k.principal = old.principal and k.key = old.key",
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Stores the tasks, all or none. Their ids are the caller's.
    ///
    /// # Errors
    /// As [`Store::create`].
    pub async fn create_ids(&self, tasks: &[TaskToCreate]) -> Result<(), StoreError> {
        self.insert(tasks, INSERT, None).await.map(drop)
    }

    async fn insert(
        &self,
        tasks: &[TaskToCreate],
        sql: &'static str,
        key: Option<&OnceKey>,
    ) -> Result<Vec<PgRow>, StoreError> {
        let mut columns = self.columns(tasks).await?;
        let placed = self.place(tasks, &mut columns).await?;
        let mut query = sqlx::query(sql)
            .bind(columns.id)
            .bind(columns.lane)
            .bind(columns.priority)
            .bind(columns.at)
            .bind(columns.delay_seconds)
            .bind(columns.max_attempts)
            .bind(columns.timeout_seconds)
            .bind(columns.work)
            .bind(columns.retry)
            .bind(columns.tags)
            .bind(columns.callbacks)
            .bind(columns.flow_key)
            .bind(columns.trace);
        if let Some(key) = key {
            query = query.bind(&key.principal).bind(&key.key).bind(&key.payload_hash).bind(key.kept.as_secs_f64());
        }
        let rows = match placed {
            None => {
                let storing = self.news.storing();
                let rows = query.fetch_all(&self.pool).await?;
                storing.stored(&Untold::of(news_of(&rows)?));
                rows
            }
            Some(mut transaction) => {
                let rows = query.fetch_all(&mut *transaction).await?;
                transaction.due(news_of(&rows)?);
                transaction.commit().await?;
                rows
            }
        };
        self.events_waiting.notify_one();
        Ok(rows)
    }

    /// Tasks with flow keys go where those of their key are, in queues with limits by key: the transaction holds their lanes.
    async fn place(&self, tasks: &[TaskToCreate], columns: &mut Columns) -> Result<Option<Transaction>, StoreError> {
        let wanted: BTreeSet<KeyedWork> = tasks.iter().filter_map(KeyedWork::of).collect();
        if wanted.is_empty() {
            return Ok(None);
        }
        let Placed { transaction, lanes } = self.begin_placed(wanted).await?;
        for (task, lane) in tasks.iter().zip(&mut columns.lane) {
            if let Some(of_key) = KeyedWork::of(task).and_then(|work| lanes.get(&work)) {
                *lane = *of_key;
            }
        }
        Ok(Some(transaction))
    }

    async fn columns(&self, tasks: &[TaskToCreate]) -> Result<Columns, StoreError> {
        let mut columns = Columns::default();
        if tasks.iter().any(|task| task.callbacks.is_some()) {
            self.expect_callbacks().await?;
        }
        for task in tasks {
            let (at, delay) = match task.due {
                Due::Now => (None, None),
                Due::At(at) => (Some(at), None),
                Due::After(delay) => (None, Some(delay.as_secs_f64())),
            };
            columns.id.push(task.id);
            columns.lane.push(self.lanes.id_of(&self.pool, &LaneKey::of(task)).await?);
            columns.priority.push(task.priority);
            columns.at.push(at);
            columns.delay_seconds.push(delay);
            columns.max_attempts.push(task.max_attempts);
            columns.timeout_seconds.push(task.timeout_seconds);
            columns.work.push(to_json(&task.work)?);
            columns.retry.push(task.retry.as_ref().map(to_json).transpose()?);
            columns.tags.push((!task.tags.is_empty()).then(|| to_json(&task.tags)).transpose()?);
            columns.callbacks.push(task.callbacks.as_ref().map(to_json).transpose()?);
            columns.flow_key.push(task.flow_key.clone());
            columns.trace.push(task.trace.clone());
        }
        Ok(columns)
    }
}

/// What there is to tell of rows that were stored: each says it of all.
fn news_of(rows: &[PgRow]) -> Result<Option<&str>, StoreError> {
    Ok(rows.first().map(|row| row.try_get("due")).transpose()?.flatten())
}

/// The tasks by column, as the statement takes them.
#[derive(Debug, Default)]
struct Columns {
    id: Vec<Uuid>,
    lane: Vec<i32>,
    priority: Vec<i16>,
    at: Vec<Option<DateTime<Utc>>>,
    delay_seconds: Vec<Option<f64>>,
    max_attempts: Vec<i16>,
    timeout_seconds: Vec<i32>,
    work: Vec<String>,
    retry: Vec<Option<String>>,
    tags: Vec<Option<String>>,
    callbacks: Vec<Option<String>>,
    flow_key: Vec<Option<String>>,
    trace: Vec<Option<String>>,
}

pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Defect(sqlx::Error::Encode(error.into())))
}

/// The tasks as they were stored, in order.
fn read_back(tasks: &[TaskToCreate], rows: Vec<PgRow>) -> Result<Vec<Task>, StoreError> {
    let mut stored = HashMap::with_capacity(rows.len());
    for row in rows {
        let times: Times = (row.try_get("run_at")?, row.try_get("scheduled_at")?, row.try_get("created_at")?);
        stored.insert(row.try_get::<Uuid, _>("id")?, times);
    }
    let missing = || StoreError::Defect(sqlx::Error::RowNotFound);
    tasks.iter().map(|task| stored.get(&task.id).map(|times| shown(task, *times)).ok_or_else(missing)).collect()
}

/// `run_at`, `scheduled_at`, `created_at`.
type Times = (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>);

/// A task that was just stored.
fn shown(
    task: &TaskToCreate,
    (run_at, scheduled_at, created_at): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>),
) -> Task {
    let mut stored = Task {
        id: task.id,
        status: TaskStatus::Queued,
        command: None,
        argv: None,
        http: None,
        queue: task.queue.clone(),
        requires: task.requires.clone(),
        flow_key: task.flow_key.clone(),
        priority: task.priority.into(),
        attempt: 0,
        max_attempts: task.max_attempts.into(),
        retry: task.retry.clone().unwrap_or_default(),
        timeout_seconds: task.timeout_seconds.into(),
        tags: task.tags.clone(),
        worker_id: None,
        created_at,
        scheduled_at,
        run_at,
        picked_at: None,
        started_at: None,
        completed_at: None,
        failed_at: None,
        cancelled_at: None,
        cancel_requested_at: None,
        result: None,
        error: None,
        schedule_id: None,
        callback: None,
        failure_callback: None,
        traceparent: task.trace.as_deref().map(|kept| trace::parts(kept).0.to_owned()),
        progress: None,
    };
    show_work(&mut stored, task.work.clone());
    show_callbacks(&mut stored, task.callbacks.clone());
    stored
}
