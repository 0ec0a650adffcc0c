//! Schedules: what makes tasks again and again.
//!
//! In reading order: [`recurrence`] (when a schedule fires: pure), `plan` (what becomes of what is due: pure), [`edit`] (what users do),
//! `fire` (what coordinators do), `ledger` (what of it is written), [`runs`] (what came of it, and what is asked for by hand).
//!
//! An occurrence has at most one row of `schedule_runs`, by its primary key, and the row is written by the statement that makes the task:
//! each fires exactly once, however many coordinators there are and whatever happens to them. Whoever writes locks the schedule first,
//! then tasks.

pub mod edit;
pub mod recurrence;
pub mod runs;

pub mod fire;
mod ledger;
mod plan;

use chrono::{DateTime, SubsecRound, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use taskmaster_openapi::schedule::{CatchUp, Overlap, Schedule, TaskTemplate};
use taskmaster_openapi::task::{RetryPolicy, Work};
use uuid::Uuid;

use crate::create::{Callbacks, TaskToCreate};
use crate::lanes::Lanes;
use crate::row::{redacted_callback, redacted_work};

use recurrence::{Recurrence, WrongRecurrence, jitter};

/// When a schedule has occurrences, as a user says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Beat {
    /// A cron expression.
    Cron(String),
    /// An interval in seconds.
    Every(i32),
}

/// When a schedule has occurrences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    pub beat: Beat,
    /// The name of an IANA time zone.
    pub time_zone: String,
    pub starts_at: Option<DateTime<Utc>>,
    pub ends_at: Option<DateTime<Utc>>,
}

impl Timing {
    /// Its occurrences, where the schedule was created at this time.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn recurrence(&self, created_at: DateTime<Utc>) -> Result<Recurrence, WrongRecurrence> {
        let recurrence = match &self.beat {
            Beat::Cron(expression) => Recurrence::cron(expression, &self.time_zone)?,
            Beat::Every(seconds) => {
                Recurrence::every(i64::from(*seconds), self.starts_at.unwrap_or(created_at.trunc_subsecs(0)))
            }
        };
        Ok(recurrence.between(self.starts_at, self.ends_at))
    }
}

/// A validated schedule. Every bound of the contract holds.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleToKeep {
    pub name: Option<String>,
    pub timing: Timing,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    pub catch_up_window_seconds: i32,
    pub jitter_seconds: i32,
    pub pause_after_failures: Option<i32>,
    /// What its tasks are like; their ids and times are their own.
    pub task: TaskToCreate,
}

/// What a schedule's row tells of its occurrences.
#[derive(Debug, Clone)]
struct Clockwork {
    id: Uuid,
    timing: Timing,
    created_at: DateTime<Utc>,
    overlap: Overlap,
    jitter_seconds: i32,
}

/// The columns that [`Clockwork`] reads.
macro_rules! clockwork_columns {
    () => {
        "id, cron, every_seconds, time_zone, starts_at, ends_at, created_at, overlap, jitter_seconds"
    };
}
use clockwork_columns;

impl Clockwork {
    fn recurrence(&self) -> Result<Recurrence, WrongRecurrence> {
        self.timing.recurrence(self.created_at)
    }

    /// When the run of an occurrence is due.
    fn run_at(&self, occurrence: DateTime<Utc>) -> DateTime<Utc> {
        occurrence + jitter(self.id, occurrence, self.jitter_seconds)
    }
}

impl<'r> FromRow<'r, PgRow> for Clockwork {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let beat = match row.try_get::<Option<String>, _>("cron")? {
            Some(cron) => Beat::Cron(cron),
            None => Beat::Every(row.try_get("every_seconds")?),
        };
        Ok(Self {
            id: row.try_get("id")?,
            timing: Timing {
                beat,
                time_zone: row.try_get("time_zone")?,
                starts_at: row.try_get("starts_at")?,
                ends_at: row.try_get("ends_at")?,
            },
            created_at: row.try_get("created_at")?,
            overlap: of_code(&Overlap::ALL, row, "overlap")?,
            jitter_seconds: row.try_get("jitter_seconds")?,
        })
    }
}

/// One of several values by its number, which the table's CHECKs keep within them.
fn of_code<T: Copy + Default>(all: &[T], row: &PgRow, column: &str) -> sqlx::Result<T> {
    Ok(all.get(row.try_get::<i16, _>(column)? as usize).copied().unwrap_or_default())
}

/// A whole row.
struct ScheduleRow {
    schedule: Schedule,
    lane: i32,
}

/// The columns that [`ScheduleRow`] reads.
macro_rules! schedule_columns {
    () => {
        concat!(
            crate::schedules::clockwork_columns!(),
            ", revision, name, catch_up, catch_up_window_seconds, pause_after_failures, lane, timeout_seconds, priority, max_attempts,
             work, retry, tags, callbacks, flow_key, changed_at, paused_at, pause_reason, now() as now,
             case when last_fire_at <= now() then last_fire_at
                  else (select r.fire_at from schedule_runs r
                         where r.schedule_id = schedules.id and r.fire_at <= now() and r.kind = 0 and r.state = 0
                         order by r.fire_at desc limit 1) end as last_occurrence_at"
        )
    };
}
use schedule_columns;

impl<'r> FromRow<'r, PgRow> for ScheduleRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let clockwork = Clockwork::from_row(row)?;
        let paused_at: Option<DateTime<Utc>> = row.try_get("paused_at")?;
        // What this version cannot read has been paused by a coordinator, or is about to be.
        let recurrence = clockwork.recurrence().ok().filter(|_| paused_at.is_none());
        let now = row.try_get("now")?;
        let next = recurrence.and_then(|recurrence| recurrence.next(now));
        let Json(work): Json<Work> = row.try_get("work")?;
        let mut task = TaskTemplate {
            flow_key: row.try_get("flow_key")?,
            priority: Some(row.try_get::<i16, _>("priority")?.into()),
            max_attempts: Some(row.try_get::<i16, _>("max_attempts")?.into()),
            retry: row.try_get::<Option<Json<RetryPolicy>>, _>("retry")?.map(|json| json.0),
            timeout_seconds: Some(row.try_get::<i32, _>("timeout_seconds")?.into()),
            tags: row.try_get::<Option<Json<Vec<String>>>, _>("tags")?.map(|json| json.0),
            ..TaskTemplate::default()
        };
        if let Some(Json(callbacks)) = row.try_get::<Option<Json<Callbacks>>, _>("callbacks")? {
            (task.callback, task.failure_callback) = (callbacks.callback, callbacks.failure_callback);
        }
        match work {
            Work::Command(command) => task.command = Some(command),
            Work::Argv(argv) => task.argv = Some(argv),
            Work::Http(http) => task.http = Some(http),
        }
        let next_run_at = next.map(|next| clockwork.run_at(next));
        let Clockwork { id, timing, created_at, overlap, jitter_seconds } = clockwork;
        let (cron, every_seconds) = match timing.beat {
            Beat::Cron(cron) => (Some(cron), None),
            Beat::Every(seconds) => (None, Some(seconds.into())),
        };
        let schedule = Schedule {
            id,
            revision: row.try_get("revision")?,
            name: row.try_get("name")?,
            cron,
            every_seconds,
            time_zone: timing.time_zone,
            task,
            overlap,
            catch_up: of_code(&CatchUp::ALL, row, "catch_up")?,
            catch_up_window_seconds: row.try_get::<i32, _>("catch_up_window_seconds")?.into(),
            jitter_seconds: jitter_seconds.into(),
            starts_at: timing.starts_at,
            ends_at: timing.ends_at,
            pause_after_failures: row.try_get::<Option<i32>, _>("pause_after_failures")?.map(i64::from),
            created_at,
            changed_at: row.try_get("changed_at")?,
            paused_at,
            pause_reason: row.try_get("pause_reason")?,
            next_occurrence_at: next,
            next_run_at,
            last_occurrence_at: row.try_get("last_occurrence_at")?,
        };
        Ok(ScheduleRow { schedule, lane: row.try_get("lane")? })
    }
}

impl ScheduleRow {
    /// With everything that can be written, also what cannot be read back.
    fn whole(self, lanes: &Lanes) -> Schedule {
        let mut schedule = self.schedule;
        let (queue, requires) = lanes.shown(self.lane);
        schedule.task.queue = Some(queue);
        schedule.task.requires = Some(requires).filter(|requires| !requires.is_empty());
        schedule
    }

    fn shown(self, lanes: &Lanes) -> Schedule {
        let mut schedule = self.whole(lanes);
        let task = &mut schedule.task;
        task.http = task.http.take().map(redacted_work);
        task.callback = task.callback.take().map(redacted_callback);
        task.failure_callback = task.failure_callback.take().map(redacted_callback);
        schedule
    }
}
