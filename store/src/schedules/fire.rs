//! What coordinators do: fire what is due, start what has waited, pause what keeps failing, and see to what a fault has disturbed.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, Row};
use taskmaster_openapi::schedule::CatchUp;
use uuid::Uuid;

use crate::change::CANCEL;
use crate::create::stored_sql;
use crate::database::Store;
use crate::detached;
use crate::error::StoreError;
use crate::pool::Transaction;
use crate::row::from_row;

use super::edit::pause;
use super::ledger::{Advances, Runs};
use super::plan::{Due, Plan, plan, wake_at};
use super::recurrence::WrongRecurrence;
use super::{Clockwork, clockwork_columns, of_code};

/// Schedules that are fired together.
const FIRED_TOGETHER: i64 = 200;
/// Failures that are looked at together.
const JUDGED_TOGETHER: i64 = 500;
/// Runs of a schedule that are looked through for the last that ended.
const LOOKED_THROUGH: i64 = 1_000;
/// Runs that are forgotten at once.
const FORGOTTEN_TOGETHER: i64 = 20_000;

/// What a look at what is due came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fired {
    /// Schedules that were looked at.
    pub schedules: usize,
    /// There may be more that are due.
    pub more: bool,
}

/// Whether there is any of what coordinators tend to besides what is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untended {
    /// An occurrence can start that has waited for the run before: see [`Store::start_waiting`].
    pub waiting: bool,
    /// Runs have FAILED: see [`Store::pause_failing_schedules`].
    pub failing: bool,
}

from_row!(Untended { waiting, failing });

/// Of schedules: their occurrence that waits can start.
macro_rules! can_start {
    () => {
        "waiting_fire_at is not null and paused_at is null and not exists (select from tasks t where t.id = any(array[s.last_task_id]))"
    };
}

/// A schedule that is locked, and to be looked at.
struct DueRow {
    clockwork: Clockwork,
    next: Option<DateTime<Utc>>,
    last_fire_at: Option<DateTime<Utc>>,
    last_task_id: Option<Uuid>,
    now: DateTime<Utc>,
    catch_up: CatchUp,
    catch_up_window_seconds: i32,
    is_live: bool,
    is_waiting: bool,
}

macro_rules! due_sql {
    ($which:literal) => {
        concat!(
            "select ",
            clockwork_columns!(),
            ", next_fire_at, last_fire_at, last_task_id, now() as now, catch_up, catch_up_window_seconds,
             overlap <> 0 and exists (select from tasks t where t.id = any(array[schedules.last_task_id])) as is_live,
             waiting_fire_at is not null as is_waiting
        from schedules where paused_at is null and ",
            $which,
            " limit $1 for update skip locked"
        )
    };
}

impl<'r> FromRow<'r, PgRow> for DueRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        Ok(Self {
            clockwork: Clockwork::from_row(row)?,
            next: row.try_get("next_fire_at")?,
            last_fire_at: row.try_get("last_fire_at")?,
            last_task_id: row.try_get("last_task_id")?,
            now: row.try_get("now")?,
            catch_up: of_code(&CatchUp::ALL, row, "catch_up")?,
            catch_up_window_seconds: row.try_get("catch_up_window_seconds")?,
            is_live: row.try_get("is_live")?,
            is_waiting: row.try_get("is_waiting")?,
        })
    }
}

impl DueRow {
    fn plan(&self) -> Result<Plan, WrongRecurrence> {
        let recurrence = self.clockwork.recurrence()?;
        // Where a fault has taken the place in the line away, it goes on after what was fired last.
        let after = self.last_fire_at.unwrap_or(self.clockwork.created_at);
        let Some(next) = self.next.or_else(|| recurrence.next(after)) else { return Ok(Plan::default()) };
        Ok(plan(&Due {
            recurrence,
            next,
            now: self.now,
            overlap: self.clockwork.overlap,
            catch_up: self.catch_up,
            catch_up_window: TimeDelta::seconds(self.catch_up_window_seconds.into()),
            is_live: self.is_live,
            is_waiting: self.is_waiting,
        }))
    }
}

impl Store {
    /// Fires what is due of some schedules: runs, tasks, and what comes next, in one transaction. Any number of coordinators may do it
    /// at once.
    ///
    /// # Errors
    /// When the database is not available: nothing was fired, or the answer to the commit was lost.
    pub async fn fire_schedules(&self) -> Result<Fired, StoreError> {
        self.look_at(due_sql!("wake_at <= now() order by wake_at")).await
    }

    /// Sees to schedules that nobody would look at: what a fault has left without a time.
    ///
    /// # Errors
    /// As [`Self::fire_schedules`].
    pub async fn rearm_schedules(&self) -> Result<Fired, StoreError> {
        self.look_at(due_sql!("wake_at is null and not is_over order by id")).await
    }

    async fn look_at(&self, sql: &'static str) -> Result<Fired, StoreError> {
        let mut transaction = self.begin().await?;
        let due: Vec<DueRow> = sqlx::query_as(sql).bind(FIRED_TOGETHER).fetch_all(&mut *transaction).await?;
        if due.is_empty() {
            transaction.rollback().await?;
            return Ok(Fired::default());
        }
        let (mut runs, mut advances, mut cancelled) = (Runs::default(), Advances::default(), Vec::new());
        let mut more = due.len() as i64 == FIRED_TOGETHER;
        for row in &due {
            let plan = match row.plan() {
                Ok(plan) => plan,
                Err(error) => {
                    let reason = format!("this version cannot read it any more: {error}");
                    tracing::error!(schedule_id = %row.clockwork.id, reason, "a schedule is paused");
                    pause(&mut transaction, row.clockwork.id, Some(&reason)).await?;
                    continue;
                }
            };
            more |= plan.next.is_some_and(|next| wake_at(next, row.clockwork.overlap) <= row.now);
            cancelled.extend(row.last_task_id.filter(|_| plan.cancels_old));
            let newest = runs.push(&row.clockwork, &plan);
            advances.push(&row.clockwork, &plan, newest);
        }
        cancel(&mut transaction, &mut cancelled).await?;
        runs.keep(&mut transaction).await?;
        advances.keep(&mut transaction).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(Fired { schedules: due.len(), more })
    }

    /// Milliseconds until a schedule is to be looked at, below 0 when it is late; `None` when there is none.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn next_schedule_ms(&self) -> Result<Option<f64>, StoreError> {
        Ok(sqlx::query_scalar(
            "select (extract(epoch from min(wake_at) - clock_timestamp()) * 1000)::float8
               from schedules where paused_at is null and wake_at is not null",
        )
        .fetch_one(&self.pool)
        .await?)
    }

    /// Whether there is anything to tend: one statement, since every coordinator asks it every second.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn untended_schedules(&self) -> Result<Untended, StoreError> {
        const SQL: &str = concat!(
            "select exists (select from schedules s where ",
            can_start!(),
            ") as waiting, exists (select from schedule_failures) as failing"
        );
        Ok(sqlx::query_as(SQL).fetch_one(&self.pool).await?)
    }

    /// Starts what has waited for the run before, where that has ended. Gives back whether there may be more.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn start_waiting(&self) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let rows: Vec<(Uuid, DateTime<Utc>)> = sqlx::query_as(concat!(
            "select id, waiting_fire_at from schedules s where ",
            can_start!(),
            " order by id limit $1 for update skip locked"
        ))
        .bind(FIRED_TOGETHER)
        .fetch_all(&mut *transaction)
        .await?;
        if rows.is_empty() {
            transaction.rollback().await?;
            return Ok(false);
        }
        let (ids, times): (Vec<Uuid>, Vec<DateTime<Utc>>) = rows.into_iter().unzip();
        let tasks: Vec<Uuid> = ids.iter().map(|_| Uuid::now_v7()).collect();
        sqlx::query(
            "update schedules s set waiting_fire_at = null, last_fire_at = w.fire_at, last_task_id = w.task_id
               from unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) as w(id, fire_at, task_id) where s.id = w.id",
        )
        .bind(&ids)
        .bind(&times)
        .bind(&tasks)
        .execute(&mut *transaction)
        .await?;
        let started = sqlx::query_as(START_WAITING).bind(&ids).bind(&times).bind(&tasks);
        let (due, _): (Option<String>, i64) = started.fetch_one(&mut *transaction).await?;
        transaction.due(due.as_deref());
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(ids.len() as i64 == FIRED_TOGETHER)
    }

    /// Pauses schedules whose runs have failed as often in a row as they want to be paused after. Gives back whether there may be more.
    ///
    /// Only failures leave anything to look at: a success costs nothing, and ends a row of failures by being among the last runs.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn pause_failing_schedules(&self) -> Result<bool, StoreError> {
        let mut transaction = self.begin().await?;
        let failed: Vec<Uuid> = sqlx::query_scalar(
            "delete from schedule_failures
              where id in (select id from schedule_failures order by id limit $1 for update skip locked) returning schedule_id",
        )
        .bind(JUDGED_TOGETHER)
        .fetch_all(&mut *transaction)
        .await?;
        if failed.is_empty() {
            transaction.rollback().await?;
            return Ok(false);
        }
        let failing: Vec<(Uuid, i32)> =
            sqlx::query_as(FAILING).bind(&failed).bind(LOOKED_THROUGH).fetch_all(&mut *transaction).await?;
        for (id, count) in failing {
            tracing::warn!(schedule_id = %id, count, "a schedule is paused after failures");
            let reason = match count {
                1 => "its last run FAILED".to_owned(),
                count => format!("its last {count} runs FAILED"),
            };
            pause(&mut transaction, id, Some(&reason)).await?;
        }
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(failed.len() as i64 == JUDGED_TOGETHER)
    }

    /// Forgets what became of occurrences that are older than so many days. What a backfill writes at this moment is left for later: each
    /// would wait for the other.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn trim_schedule_runs(&self, kept_days: i32) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "delete from schedule_runs where (schedule_id, fire_at, kind) in
                (select schedule_id, fire_at, kind from schedule_runs where fire_at < now() - make_interval(days => $1)
                  order by fire_at limit $2 for update skip locked)",
        )
        .bind(kept_days)
        .bind(FORGOTTEN_TOGETHER)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

/// The tasks of runs that have waited.
const START_WAITING: &str = concat!(
    "
with runs as (
    update schedule_runs r set state = 0, task_id = w.task_id, run_at = now()
      from unnest($1::uuid[], $2::timestamptz[], $3::uuid[]) as w(id, fire_at, task_id)
     where r.schedule_id = w.id and r.fire_at = w.fire_at and r.kind = 0 and r.state = 1
    returning r.schedule_id, r.fire_at, r.task_id
), input as (
    select r.task_id as id, s.lane, s.priority, r.fire_at as at, null::float8 as delay_seconds, s.max_attempts, s.timeout_seconds,
           s.work, s.retry, s.tags, r.schedule_id, s.callbacks, s.flow_key
      from runs r cross join lateral (select * from schedules s where s.id = r.schedule_id limit 1) s",
    stored_sql!(", schedule_id, callbacks, flow_key", "", "select (select due from news), count(*) from added")
);

/// Schedules whose last runs have all FAILED, as many as they want to be paused after. Runs that have not ended do not count, nor do
/// those of before the last pause.
const FAILING: &str = "
select s.id, s.pause_after_failures
  from schedules s
 where s.id in (select id from unnest($1::uuid[]) as f(id)) and s.paused_at is null and s.pause_after_failures is not null
   and (select count(*) from (
            select h.status
              from (select task_id from schedule_runs r
                     where r.schedule_id = s.id and r.fire_at >= s.failures_count_from and r.kind = 0 and r.state = 0
                     order by r.fire_at desc limit $2) r
                   cross join lateral (select status from task_history h where h.id = r.task_id limit 1) h
             limit s.pause_after_failures) ended
         where status = 4) = s.pause_after_failures
 order by s.id for update of s";

/// Cancels the tasks of runs before.
async fn cancel(transaction: &mut Transaction, tasks: &mut Vec<Uuid>) -> Result<(), StoreError> {
    if tasks.is_empty() {
        return Ok(());
    }
    tasks.sort_unstable();
    sqlx::query("select from tasks where id = any($1) order by id for update")
        .bind(&*tasks)
        .execute(&mut **transaction)
        .await?;
    sqlx::query(CANCEL).bind(&*tasks).execute(&mut **transaction).await?;
    detached::cancel(transaction, tasks).await?;
    Ok(())
}
