//! What became of occurrences, and runs that are asked for by hand.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use taskmaster_openapi::limits;
use taskmaster_openapi::schedule::{Occurrence, Run, RunState, RunTrigger};
use uuid::Uuid;

use crate::create::{Known, OnceKey, take_key};
use crate::database::Store;
use crate::error::StoreError;
use crate::row::status_from;

use super::edit::lock;
use super::ledger::{Runs, Trigger};
use super::recurrence::{Recurrence, local_time, zone};
use super::{Clockwork, clockwork_columns};

/// What a trigger came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Triggered {
    /// This task was made.
    Created(Uuid),
    /// The key was taken before.
    Known(Known),
    NotFound,
}

/// What a backfill came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backfilled {
    Done {
        /// Occurrences in the range.
        occurrences: usize,
        /// Those that had no run.
        runs: i64,
    },
    /// The range has more occurrences than one backfill may run.
    TooMany,
    /// The range goes beyond now.
    InFuture,
    NotFound,
}

/// Where a page of runs goes on: after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunKey {
    pub occurrence: DateTime<Utc>,
    pub kind: i16,
}

/// Runs that one statement of a backfill makes.
const BACKFILL_STEP: usize = 1_000;

impl Store {
    /// Runs a schedule's task now, whatever else runs, and also while it is paused.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn trigger_schedule(&self, id: Uuid, once: Option<&OnceKey>) -> Result<Triggered, StoreError> {
        let task_id = Uuid::now_v7();
        let mut transaction = self.begin().await?;
        if let Some(key) = once
            && !take_key(&mut transaction, key, &[task_id]).await?
        {
            transaction.rollback().await?;
            return self.known_once(key).await.map(Triggered::Known);
        }
        let now: Option<DateTime<Utc>> = sqlx::query_scalar("select clock_timestamp() from schedules where id = $1")
            .bind(id)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(now) = now else { return Ok(Triggered::NotFound) };
        let mut runs = Runs::default();
        runs.fire(id, now, Trigger::Manual, now, task_id);
        if runs.keep(&mut transaction).await? == 0 {
            // Another trigger within the same microsecond, or the schedule has just been deleted.
            return Err(StoreError::Unavailable(sqlx::Error::RowNotFound));
        }
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(Triggered::Created(task_id))
    }

    /// Runs the occurrences in `[from, to)` that have no run now; `dry_run` only counts them.
    ///
    /// # Errors
    /// When the database is not available: nothing was run.
    pub async fn backfill_schedule(
        &self,
        id: Uuid,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        dry_run: bool,
    ) -> Result<Backfilled, StoreError> {
        let mut transaction = self.begin().await?;
        let Some(locked) = lock(&mut transaction, id).await? else { return Ok(Backfilled::NotFound) };
        if to > locked.now {
            return Ok(Backfilled::InFuture);
        }
        let recurrence = readable(&locked.clockwork)?;
        let instant = TimeDelta::microseconds(1);
        let occurrences = recurrence.within(from - instant, to - instant);
        let times: Vec<DateTime<Utc>> = occurrences.take(limits::BACKFILL_MAX + 1).collect();
        if times.len() > limits::BACKFILL_MAX {
            return Ok(Backfilled::TooMany);
        }
        if dry_run {
            let known: i64 = sqlx::query_scalar(
                "select count(*) from unnest($2::timestamptz[]) as o(at) join schedule_runs r
                     on r.schedule_id = $1 and r.fire_at = o.at and r.kind = 0 and r.state <> 2",
            )
            .bind(id)
            .bind(&times)
            .fetch_one(&mut *transaction)
            .await?;
            return Ok(Backfilled::Done { occurrences: times.len(), runs: times.len() as i64 - known });
        }
        let mut added = 0;
        for step in times.chunks(BACKFILL_STEP) {
            let mut runs = Runs::default();
            step.iter().for_each(|time| runs.fire(id, *time, Trigger::Backfill, *time, Uuid::now_v7()));
            added += runs.keep(&mut transaction).await?;
        }
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(Backfilled::Done { occurrences: times.len(), runs: added })
    }

    /// The next occurrences of a schedule after a time, or from now; paused or not.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn preview_schedule(
        &self,
        id: Uuid,
        after: Option<DateTime<Utc>>,
        count: usize,
    ) -> Result<Option<Vec<Occurrence>>, StoreError> {
        let sql = concat!("select ", clockwork_columns!(), ", now() as now from schedules where id = $1");
        let Some(row) = sqlx::query(sql).bind(id).fetch_optional(&self.pool).await? else { return Ok(None) };
        let (clockwork, now) = (Clockwork::from_row(&row)?, row.try_get("now")?);
        let recurrence = readable(&clockwork)?;
        let zone = zone(&clockwork.timing.time_zone).unwrap_or_default();
        let occurrences = recurrence.after(after.unwrap_or(now)).take(count).map(|at| Occurrence {
            occurrence_at: at,
            local_time: local_time(at, zone),
            run_at: clockwork.run_at(at),
        });
        Ok(Some(occurrences.collect()))
    }

    /// What became of a schedule's occurrences, the latest first; `None` when there is no such schedule.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn schedule_runs(
        &self,
        id: Uuid,
        after: Option<RunKey>,
        count: i64,
    ) -> Result<Option<Vec<(Run, RunKey)>>, StoreError> {
        let there: bool = sqlx::query_scalar("select exists (select from schedules where id = $1)")
            .bind(id)
            .fetch_one(&self.pool)
            .await?;
        if !there {
            return Ok(None);
        }
        let newest = RunKey { occurrence: LATEST, kind: 0 };
        let key = after.unwrap_or(newest);
        let rows: Vec<RunRow> =
            sqlx::query_as(RUNS).bind(id).bind(key.occurrence).bind(key.kind).bind(count).fetch_all(&self.pool).await?;
        Ok(Some(rows.into_iter().map(|RunRow(run, key)| (run, key)).collect()))
    }
}

/// Later than any occurrence: the beginning of the year 10,000.
const LATEST: DateTime<Utc> = match DateTime::from_timestamp(253_402_300_800, 0) {
    Some(latest) => latest,
    None => DateTime::<Utc>::MAX_UTC,
};

const RUNS: &str = "
select fire_at, kind, state, trigger, run_at, task_id, reason, last_at, n,
       coalesce((select t.status from tasks t where t.id = r.task_id),
                (select h.status from task_history h where h.id = r.task_id limit 1)) as status
  from schedule_runs r
 where schedule_id = $1 and (fire_at, kind) < ($2, $3) order by fire_at desc, kind desc limit $4";

struct RunRow(Run, RunKey);

impl<'r> FromRow<'r, PgRow> for RunRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let (occurrence, kind): (DateTime<Utc>, i16) = (row.try_get("fire_at")?, row.try_get("kind")?);
        let state = row.try_get::<i16, _>("state")? as usize;
        let trigger = row.try_get::<i16, _>("trigger")? as usize;
        let run = Run {
            occurrence_at: occurrence,
            state: RunState::ALL.get(state).copied().unwrap_or(RunState::Fired),
            trigger: RunTrigger::ALL.get(trigger).copied().unwrap_or(RunTrigger::Schedule),
            run_at: row.try_get("run_at")?,
            task_id: row.try_get("task_id")?,
            task_status: row.try_get::<Option<i16>, _>("status")?.map(status_from),
            reason: row.try_get("reason")?,
            missed_until: row.try_get("last_at")?,
            missed: row.try_get::<Option<i32>, _>("n")?.map(i64::from),
        };
        Ok(RunRow(run, RunKey { occurrence, kind }))
    }
}

/// What coordinators have paused because this version cannot read it has no occurrences.
fn readable(clockwork: &Clockwork) -> Result<Recurrence, StoreError> {
    clockwork.recurrence().map_err(|error| StoreError::Defect(sqlx::Error::Decode(error.into())))
}
