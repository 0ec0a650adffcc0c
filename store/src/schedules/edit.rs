//! What users do to schedules.
//!
//! Tasks are made a little ahead of their time. When a schedule is changed, paused or deleted, those that are not due yet and that no
//! worker has are withdrawn: what happens from then on is what the schedule says from then on.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use taskmaster_openapi::schedule::Schedule;
use uuid::Uuid;

use crate::change::CANCEL;
use crate::create::{Known, OnceKey, TaskToCreate, take_key, to_json};
use crate::database::Store;
use crate::error::StoreError;
use crate::lanes::LaneKey;
use crate::pool::Transaction;
use crate::queues::key_lanes::KeyedWork;

use super::plan::wake_at;
use super::{Beat, Clockwork, ScheduleRow, ScheduleToKeep, clockwork_columns, schedule_columns};

/// What creating a schedule came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Made {
    Created(Box<Schedule>),
    /// The key was taken before.
    Known(Known),
    Refused(Refusal),
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    Done(Box<Schedule>),
    Refused(Refusal),
}

/// Why a schedule was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    NotFound,
    /// Somebody has changed it meanwhile.
    WrongRevision,
    /// Another schedule has this name.
    NameTaken,
    /// There are as many as there may be.
    TooMany,
    /// It has no occurrence, now or later.
    NeverFires,
}

const INSERT: &str = "
insert into schedules (id, name, cron, every_seconds, time_zone, starts_at, ends_at, jitter_seconds, overlap, catch_up,
    catch_up_window_seconds, pause_after_failures, lane, timeout_seconds, priority, max_attempts, work, retry, tags, next_fire_at, wake_at, callbacks, flow_key)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17::json, $18::json, $19::jsonb, $20, $21, $22::json, $23)";

const UPDATE: &str = "
update schedules
   set name = $2, cron = $3, every_seconds = $4, time_zone = $5, starts_at = $6, ends_at = $7, jitter_seconds = $8, overlap = $9,
       catch_up = $10, catch_up_window_seconds = $11, pause_after_failures = $12, lane = $13, timeout_seconds = $14, priority = $15,
       max_attempts = $16, work = $17::json, retry = $18::json, tags = $19::jsonb, next_fire_at = $20, wake_at = $21,
       callbacks = $22::json, flow_key = $23,
       is_over = false, revision = revision + 1, changed_at = now()
 where id = $1";

/// Coordinators are told of what is to be looked at before they would look by themselves.
const NOTIFY: &str = "select pg_notify('taskmaster_schedules', '')";

impl Store {
    /// Keeps a new schedule, unless that was done before under the same key, or there are `max` schedules.
    ///
    /// # Errors
    /// When the database is not available, or there are too many queues or combinations of labels.
    pub async fn create_schedule(
        &self,
        id: Uuid,
        schedule: &ScheduleToKeep,
        max: i64,
        once: Option<&OnceKey>,
    ) -> Result<Made, StoreError> {
        if schedule.task.callbacks.is_some() {
            self.expect_callbacks().await?;
        }
        let (mut transaction, lane) = self.begin_in_lane(&schedule.task).await?;
        if let Some(key) = once
            && !take_key(&mut transaction, key, &[id]).await?
        {
            transaction.rollback().await?;
            return self.known_once(key).await.map(Made::Known);
        }
        let (now, count): (DateTime<Utc>, i64) =
            sqlx::query_as("select now(), (select count(*) from (select from schedules limit $1) counted)")
                .bind(max)
                .fetch_one(&mut *transaction)
                .await?;
        if count >= max {
            return Ok(Made::Refused(Refusal::TooMany));
        }
        let Some(next) = schedule.timing.recurrence(now).ok().and_then(|recurrence| recurrence.next(now)) else {
            return Ok(Made::Refused(Refusal::NeverFires));
        };
        if !write(&mut transaction, INSERT, id, schedule, lane, next).await? {
            return Ok(Made::Refused(Refusal::NameTaken));
        }
        sqlx::query(NOTIFY).execute(&mut *transaction).await?;
        let made = self.schedule_on(&mut transaction, id).await?;
        transaction.commit().await?;
        Ok(made.map_or(Made::Refused(Refusal::NotFound), |row| Made::Created(Box::new(row.shown(&self.lanes)))))
    }

    /// One schedule.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn schedule(&self, id: Uuid) -> Result<Option<Schedule>, StoreError> {
        let row = self.pool.ask(async |connection| self.schedule_on(connection, id).await).await?;
        Ok(row.map(|row| row.shown(&self.lanes)))
    }

    /// One schedule with everything that can be written, also what users cannot read back: to be changed, not to be shown.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn whole_schedule(&self, id: Uuid) -> Result<Option<Schedule>, StoreError> {
        let row = self.pool.ask(async |connection| self.schedule_on(connection, id).await).await?;
        Ok(row.map(|row| row.whole(&self.lanes)))
    }

    /// Schedules with ids below this, newest first; of this name, where one is given.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn schedules(
        &self,
        before: Option<Uuid>,
        name: Option<&str>,
        count: i64,
    ) -> Result<Vec<Schedule>, StoreError> {
        let rows: Vec<ScheduleRow> = match name {
            Some(name) => {
                let sql =
                    concat!("select ", schedule_columns!(), " from schedules where name = $1 and id < $2 limit $3");
                sqlx::query_as(sql).bind(name)
            }
            None => {
                let sql = concat!(
                    "select ",
                    schedule_columns!(),
                    " from schedules where $1::text is null and id < $2 order by id desc limit $3"
                );
                sqlx::query_as(sql).bind(None::<&str>)
            }
        }
        .bind(before.unwrap_or(Uuid::max()))
        .bind(count)
        .fetch_all(&self.pool)
        .await?;
        self.lanes.ensure(&self.pool, rows.iter().map(|row| row.lane)).await?;
        Ok(rows.into_iter().map(|row| row.shown(&self.lanes)).collect())
    }

    /// Changes a schedule whose revision is still this one. It goes on from now.
    ///
    /// # Errors
    /// When the database is not available, or there are too many queues or combinations of labels.
    pub async fn change_schedule(
        &self,
        id: Uuid,
        revision: i64,
        schedule: &ScheduleToKeep,
    ) -> Result<Changed, StoreError> {
        if schedule.task.callbacks.is_some() {
            self.expect_callbacks().await?;
        }
        let (mut transaction, lane) = self.begin_in_lane(&schedule.task).await?;
        let Some(locked) = lock(&mut transaction, id).await? else { return Ok(Changed::Refused(Refusal::NotFound)) };
        if locked.revision != revision {
            return Ok(Changed::Refused(Refusal::WrongRevision));
        }
        let recurrence = schedule.timing.recurrence(locked.clockwork.created_at).ok();
        let Some(next) = recurrence.and_then(|recurrence| recurrence.next(locked.now)) else {
            return Ok(Changed::Refused(Refusal::NeverFires));
        };
        withdraw(&mut transaction, id).await?;
        if !write(&mut transaction, UPDATE, id, schedule, lane, next).await? {
            return Ok(Changed::Refused(Refusal::NameTaken));
        }
        self.finish_change(transaction, id).await
    }

    /// Pauses a schedule. What waits for the run before is left out. Pausing it again changes nothing.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn pause_schedule(&self, id: Uuid, reason: Option<&str>) -> Result<Changed, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(locked) = lock(&mut transaction, id).await? else { return Ok(Changed::Refused(Refusal::NotFound)) };
        if !locked.is_paused {
            pause(&mut transaction, id, reason).await?;
        }
        self.finish_change(transaction, id).await
    }

    /// Lets a schedule go on from now. What would have occurred while it was paused did not.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn resume_schedule(&self, id: Uuid) -> Result<Changed, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(locked) = lock(&mut transaction, id).await? else { return Ok(Changed::Refused(Refusal::NotFound)) };
        if locked.is_paused {
            let next = locked.clockwork.recurrence().ok().and_then(|recurrence| recurrence.next(locked.now));
            sqlx::query(
                "with resumed as (
                    update schedules
                       set paused_at = null, pause_reason = null, failures_count_from = now(), next_fire_at = $2, wake_at = $3,
                           is_over = $2 is null, revision = revision + 1, changed_at = now()
                     where id = $1 returning id
                 ) insert into event_inbox (type, schedules, n) select 12, array [id], 1 from resumed",
            )
            .bind(id)
            .bind(next)
            .bind(next.map(|next| wake_at(next, locked.clockwork.overlap)))
            .execute(&mut *transaction)
            .await?;
        }
        self.finish_change(transaction, id).await
    }

    /// Deletes a schedule whose revision is still this one, where one is given. Tasks that are due go on; what became of occurrences is
    /// kept for as long as tasks are, though nobody can ask for it any more.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn delete_schedule(&self, id: Uuid, revision: Option<i64>) -> Result<Option<Refusal>, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(locked) = lock(&mut transaction, id).await? else { return Ok(Some(Refusal::NotFound)) };
        if revision.is_some_and(|revision| revision != locked.revision) {
            return Ok(Some(Refusal::WrongRevision));
        }
        withdraw(&mut transaction, id).await?;
        sqlx::query("delete from schedules where id = $1").bind(id).execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(None)
    }

    /// Begins a transaction, with the lane of the schedule's tasks. One of a flow key stays the key's for as long as the schedule has it.
    async fn begin_in_lane(&self, task: &TaskToCreate) -> Result<(Transaction, i32), StoreError> {
        let lane = self.lanes.id_of(&self.pool, &LaneKey::of(task)).await?;
        let Some(work) = KeyedWork::of(task) else { return Ok((self.begin().await?, lane)) };
        let placed = self.begin_placed(BTreeSet::from([work.clone()])).await?;
        let lane = placed.lanes.get(&work).copied().unwrap_or(lane);
        Ok((placed.transaction, lane))
    }

    async fn finish_change(&self, mut transaction: Transaction, id: Uuid) -> Result<Changed, StoreError> {
        sqlx::query(NOTIFY).execute(&mut *transaction).await?;
        let row = self.schedule_on(&mut transaction, id).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(row.map_or(Changed::Refused(Refusal::NotFound), |row| Changed::Done(Box::new(row.shown(&self.lanes)))))
    }

    async fn schedule_on(&self, connection: &mut PgConnection, id: Uuid) -> Result<Option<ScheduleRow>, StoreError> {
        let row: Option<ScheduleRow> =
            sqlx::query_as(concat!("select ", schedule_columns!(), " from schedules where id = $1"))
                .bind(id)
                .fetch_optional(&mut *connection)
                .await?;
        self.lanes.ensure(connection, row.iter().map(|row| row.lane)).await?;
        Ok(row)
    }
}

/// A schedule that nobody else changes or fires until the transaction ends.
pub(super) struct Locked {
    pub clockwork: Clockwork,
    pub revision: i64,
    pub is_paused: bool,
    pub now: DateTime<Utc>,
}

pub(super) async fn lock(connection: &mut PgConnection, id: Uuid) -> Result<Option<Locked>, StoreError> {
    // By the clock as it is once the lock is there: whoever had it may have fired what has come meanwhile.
    let sql = concat!(
        "select ",
        clockwork_columns!(),
        ", revision, paused_at is not null as is_paused from schedules where id = $1 for update"
    );
    let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&mut *connection).await? else { return Ok(None) };
    let now = sqlx::query_scalar("select clock_timestamp()").fetch_one(connection).await?;
    let clockwork = sqlx::FromRow::from_row(&row)?;
    Ok(Some(Locked { clockwork, revision: row.try_get("revision")?, is_paused: row.try_get("is_paused")?, now }))
}

/// Pauses a schedule that is locked and goes on.
pub(super) async fn pause(connection: &mut PgConnection, id: Uuid, reason: Option<&str>) -> Result<(), StoreError> {
    withdraw(connection, id).await?;
    sqlx::query(
        "with paused as (
            update schedules
               set paused_at = now(), pause_reason = $2, next_fire_at = null, wake_at = null, waiting_fire_at = null,
                   revision = revision + 1, changed_at = now()
             where id = $1 returning id
         ), left_out as (
            update schedule_runs r set state = 2, reason = 'the schedule was paused'
              from schedules s where s.id = $1 and r.schedule_id = s.id and r.fire_at = s.waiting_fire_at and r.kind = 0 and r.state = 1
         ) insert into event_inbox (type, schedules, n) select 11, array [id], 1 from paused",
    )
    .bind(id)
    .bind(reason)
    .execute(connection)
    .await?;
    Ok(())
}

/// Takes back the tasks of a locked schedule that were made ahead of their time, as far as no worker has them.
async fn withdraw(connection: &mut PgConnection, id: Uuid) -> Result<(), StoreError> {
    let tasks: Vec<Uuid> = sqlx::query_scalar(
        "select t.id from schedule_runs r join tasks t on t.id = any(array[r.task_id])
          where r.schedule_id = $1 and r.fire_at > clock_timestamp() and r.kind = 0 and r.state = 0 and t.status = 0
          order by t.id for update of t",
    )
    .bind(id)
    .fetch_all(&mut *connection)
    .await?;
    if tasks.is_empty() {
        return Ok(());
    }
    sqlx::query(CANCEL).bind(&tasks).execute(&mut *connection).await?;
    sqlx::query("delete from schedule_runs where schedule_id = $1 and fire_at > now() - interval '1 minute' and task_id = any($2)")
        .bind(id)
        .bind(&tasks)
        .execute(connection)
        .await?;
    Ok(())
}

/// Writes a row by this statement; `false` when another schedule has the name.
async fn write(
    connection: &mut PgConnection,
    sql: &'static str,
    id: Uuid,
    schedule: &ScheduleToKeep,
    lane: i32,
    next: DateTime<Utc>,
) -> Result<bool, StoreError> {
    let ScheduleToKeep { timing, task, .. } = schedule;
    let (cron, every) = match &timing.beat {
        Beat::Cron(cron) => (Some(cron), None),
        Beat::Every(seconds) => (None, Some(*seconds)),
    };
    let written = sqlx::query(sql)
        .bind(id)
        .bind(&schedule.name)
        .bind(cron)
        .bind(every)
        .bind(&timing.time_zone)
        .bind(timing.starts_at)
        .bind(timing.ends_at)
        .bind(schedule.jitter_seconds)
        .bind(schedule.overlap as i16)
        .bind(schedule.catch_up as i16)
        .bind(schedule.catch_up_window_seconds)
        .bind(schedule.pause_after_failures)
        .bind(lane)
        .bind(task.timeout_seconds)
        .bind(task.priority)
        .bind(task.max_attempts)
        .bind(to_json(&task.work)?)
        .bind(task.retry.as_ref().map(to_json).transpose()?)
        .bind((!task.tags.is_empty()).then_some(Json(&task.tags)))
        .bind(next)
        .bind(wake_at(next, schedule.overlap))
        .bind(task.callbacks.as_ref().map(to_json).transpose()?)
        .bind(&task.flow_key)
        .execute(connection)
        .await;
    match written {
        Ok(_) => Ok(true),
        Err(error) if error.as_database_error().is_some_and(|error| error.is_unique_violation()) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
