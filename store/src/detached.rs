//! Attempts that no worker holds: their target has answered 202, and says later what came of it. A row of `detached` keeps each in flight
//! in the place of a worker's hold, and ends it when the target is silent for too long.
//!
//! Whoever locks locks the task first, then this row. A row that a crash leaves behind its attempt is found when it expires.

use sqlx::PgConnection;
use taskmaster_openapi::attempt::Progress;
use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskError, TaskResult, TaskStatus};
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;
use crate::outcome::{Held, Incident, WorkerReport, lock, settle};
use crate::pool::Transaction;
use crate::row::{from_row, status_code};
use crate::rules::Happening;

/// Attempts ended at once; the rest follows with the next sweep.
const EXPIRED_MAX: i64 = 5_000;

/// What the target says of its attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// It goes on.
    Running(Progress),
    Complete(Option<TaskResult>),
    Failed {
        result: Option<TaskResult>,
        message: String,
        permanent: bool,
        retry_after_ms: Option<u64>,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    Recorded,
    /// The same was said before.
    AlreadyRecorded,
    /// The attempt is over otherwise: a cancel was asked for, it was too late, or the task was claimed again.
    Over,
}

/// Started tasks that wait for their target from now on.
const DETACH: &str = "
insert into detached (task_id, claim, deadline_at, heartbeat_seconds, expires_at)
select t.id, t.claim, d.deadline_at, d.heartbeat_seconds,
       least(d.deadline_at, now() + d.heartbeat_seconds * interval '1 second')
  from unnest($1::uuid[], $2::bigint[]) as r(id, claim)
       cross join lateral (select * from tasks t where t.id = r.id and t.claim = r.claim and t.status = 2 limit 1) t
       cross join lateral (select t.started_at + t.timeout_seconds * interval '1 second' as deadline_at,
                                  (t.work -> 'http' ->> 'heartbeat_timeout_seconds')::integer as heartbeat_seconds) d
 where t.work -> 'http' ->> 'completion' = 'callback'
 order by t.id
    on conflict (task_id) do update
       set claim = excluded.claim, deadline_at = excluded.deadline_at, heartbeat_seconds = excluded.heartbeat_seconds,
           heard_at = excluded.heard_at, expires_at = excluded.expires_at, percent = null, message = null
     where detached.claim < excluded.claim
returning task_id";

/// The targets of these tasks have answered 202. What is to be cancelled ends at once: nobody is there to be told to stop. Gives back what
/// was not known before. The rows must be locked, and STARTED.
pub(crate) async fn detach(transaction: &mut Transaction, held: &[Held]) -> Result<Vec<Uuid>, StoreError> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let (cancelled, waiting): (Vec<&Held>, Vec<&Held>) = held.iter().partition(|held| held.cancel_requested);
    let (ids, claims): (Vec<Uuid>, Vec<i64>) = waiting.iter().map(|held| (held.id, held.claim)).unzip();
    let mut new: Vec<Uuid> = sqlx::query_scalar(DETACH).bind(&ids).bind(claims).fetch_all(&mut **transaction).await?;
    let known = among(transaction, &ids).await?;
    let wrongly = |held: &&&Held| !known.iter().any(|claim| claim.task_id == held.id && claim.claim == held.claim);
    let ended: Vec<Incident> = cancelled
        .into_iter()
        .map(cancel_of)
        // Nothing would end these: their work is not to call back.
        .chain(waiting.iter().filter(wrongly).map(|held| {
            let message = "the worker reported DETACHED, and the task is not one that is completed by a callback";
            incident(held, Happening::Failed { permanent: false, retry_after: None }, ErrorCode::WorkerError, message)
        }))
        .collect();
    settle(transaction, &ended).await?;
    new.extend(ended.into_iter().map(|incident| incident.held.id));
    Ok(new)
}

/// Of these tasks those whose claim is detached.
pub(crate) async fn among(connection: &mut PgConnection, ids: &[Uuid]) -> Result<Vec<TaskClaim>, StoreError> {
    let rows: Vec<(Uuid, i64)> = sqlx::query_as("select task_id, claim from detached where task_id = any($1)")
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().map(|(task_id, claim)| TaskClaim { task_id, claim }).collect())
}

/// Ends those of these tasks that are detached and whose cancel was asked for. Gives back how many.
pub(crate) async fn cancel(transaction: &mut Transaction, ids: &[Uuid]) -> Result<usize, StoreError> {
    let detached = among(transaction, ids).await?;
    if detached.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = detached.iter().map(|claim| claim.task_id).collect();
    let held = lock(transaction, &ids).await?;
    let is_to_end = |held: &&Held| held.cancel_requested && held.is_started();
    let incidents: Vec<Incident> = current(&detached, &held).filter(is_to_end).map(cancel_of).collect();
    settle(transaction, &incidents).await?;
    forget(transaction, &detached).await?;
    Ok(incidents.len())
}

/// Of these claims the ones that the rows still have.
fn current<'a>(
    claims: &'a [TaskClaim],
    held: &'a std::collections::HashMap<Uuid, Held>,
) -> impl Iterator<Item = &'a Held> {
    claims.iter().filter_map(|claim| held.get(&claim.task_id).filter(|held| held.claim == claim.claim))
}

fn cancel_of(held: &Held) -> Incident {
    let message = "the attempt was given up because a cancel was asked for; the target may go on until it calls back";
    incident(held, Happening::Stopped, ErrorCode::Cancelled, message)
}

fn incident(held: &Held, happening: Happening, code: ErrorCode, message: &str) -> Incident {
    Incident {
        held: held.clone(),
        happening,
        started_ms: None,
        ended_ms: None,
        result: None,
        error: Some(TaskError { code, message: message.into() }),
    }
}

async fn forget(connection: &mut PgConnection, claims: &[TaskClaim]) -> Result<(), StoreError> {
    let (ids, numbers): (Vec<Uuid>, Vec<i64>) = claims.iter().map(|c| (c.task_id, c.claim)).unzip();
    sqlx::query(
        "delete from detached d using unnest($1::uuid[], $2::bigint[]) as gone(id, claim)
          where d.task_id = gone.id and d.claim = gone.claim",
    )
    .bind(ids)
    .bind(numbers)
    .execute(connection)
    .await?;
    Ok(())
}

/// A claim in flight.
struct InFlight {
    worker_id: String,
    cancel_requested: bool,
}

from_row!(InFlight { worker_id, cancel_requested });

const HEARTBEAT: &str = "
update detached
   set heard_at = now(), expires_at = least(deadline_at, now() + heartbeat_seconds * interval '1 second'),
       percent = coalesce($3, percent), message = coalesce($4, message)
 where task_id = $1 and claim = $2";

impl Store {
    /// Records what a target says of its attempt, once. A 202 that the worker has not reported yet is implied.
    ///
    /// # Errors
    /// When the database is not available: nothing was recorded, or the answer to the commit was lost; say it again.
    pub async fn hear(&self, of: TaskClaim, word: Word) -> Result<Heard, StoreError> {
        let in_flight: Option<InFlight> = sqlx::query_as(
            "select worker_id, cancel_requested_at is not null as cancel_requested from tasks
              where id = $1 and claim = $2 and status in (1, 2)",
        )
        .bind(of.task_id)
        .bind(of.claim)
        .fetch_optional(&self.pool)
        .await?;
        let Some(InFlight { worker_id, cancel_requested }) = in_flight else {
            return self.said_before(of, &word).await;
        };
        let report = report(of, &word);
        let said = WorkerReport { worker_id, report };
        if let Word::Running(progress) = &word {
            if cancel_requested {
                return Ok(Heard::Over);
            }
            if !self.beat_of(of, progress).await? {
                self.record(std::slice::from_ref(&said)).await?;
                if !self.beat_of(of, progress).await? {
                    return Ok(Heard::Over);
                }
            }
            return Ok(Heard::Recorded);
        }
        let recorded = self.record(std::slice::from_ref(&said)).await?;
        match recorded.results.first().map(|result| result.code) {
            Some(ReportCode::Recorded) => {
                // Were this lost, the row would be found when it expires.
                forget(&mut *self.pool.acquire().await?, &[of]).await?;
                Ok(Heard::Recorded)
            }
            _ => self.said_before(of, &word).await,
        }
    }

    async fn beat_of(&self, of: TaskClaim, progress: &Progress) -> Result<bool, StoreError> {
        let done = sqlx::query(HEARTBEAT)
            .bind(of.task_id)
            .bind(of.claim)
            .bind(progress.percent)
            .bind(&progress.message)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Whether an attempt that is over ended as the target says.
    async fn said_before(&self, of: TaskClaim, word: &Word) -> Result<Heard, StoreError> {
        let status: Option<i16> = sqlx::query_scalar(
            "select status from tasks where id = $1 and claim = $2
          union all select status from task_history where id = $1 and claim = $2 limit 1",
        )
        .bind(of.task_id)
        .bind(of.claim)
        .fetch_optional(&self.pool)
        .await?;
        let is = |wanted: &[TaskStatus]| status.is_some_and(|status| wanted.iter().any(|w| status_code(*w) == status));
        let same = match word {
            Word::Running(_) => false,
            Word::Complete(_) => is(&[TaskStatus::Complete]),
            // FAILED, or QUEUED again until somebody claims it.
            Word::Failed { .. } => is(&[TaskStatus::Failed, TaskStatus::Queued]),
        };
        Ok(if same { Heard::AlreadyRecorded } else { Heard::Over })
    }

    /// Ends attempts whose target was silent for too long. Harmless when several do it at once. Gives back how many tasks it moved.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn expire_detached(&self) -> Result<usize, StoreError> {
        let ids: Vec<Uuid> =
            sqlx::query_scalar("select task_id from detached where expires_at <= now() order by expires_at limit $1")
                .bind(EXPIRED_MAX)
                .fetch_all(&self.pool)
                .await?;
        if ids.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.begin().await?;
        let held = lock(&mut transaction, &ids).await?;
        // Those that were heard meanwhile stay.
        let expired: Vec<(Uuid, i64, bool)> = sqlx::query_as(
            "delete from detached where task_id = any($1) and expires_at <= now() returning task_id, claim, deadline_at <= now()",
        )
        .bind(&ids)
        .fetch_all(&mut *transaction)
        .await?;
        let failed = Happening::Failed { permanent: false, retry_after: None };
        let of = |(task_id, claim, is_over): &(Uuid, i64, bool)| {
            let held = held.get(task_id).filter(|held| held.claim == *claim)?;
            Some(match is_over {
                true => incident(held, failed, ErrorCode::Timeout, "the target did not call back within the time-out"),
                false => incident(held, failed, ErrorCode::HeartbeatTimeout, "the target's heartbeats stopped"),
            })
        };
        let incidents: Vec<Incident> = expired.iter().filter_map(of).collect();
        settle(&mut transaction, &incidents).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(incidents.len())
    }
}

/// How far a detached attempt is.
pub(crate) async fn progress(connection: &mut PgConnection, of: TaskClaim) -> Result<Option<Progress>, StoreError> {
    let row: Option<ProgressRow> =
        sqlx::query_as("select percent, message, heard_at from detached where task_id = $1 and claim = $2")
            .bind(of.task_id)
            .bind(of.claim)
            .fetch_optional(connection)
            .await?;
    Ok(row.map(|ProgressRow { percent, message, heard_at }| Progress { percent, message, heard_at: Some(heard_at) }))
}

struct ProgressRow {
    percent: Option<f64>,
    message: Option<String>,
    heard_at: chrono::DateTime<chrono::Utc>,
}

from_row!(ProgressRow { percent, message, heard_at });

/// What the target says, in the words of a worker.
fn report(of: TaskClaim, word: &Word) -> StatusReport {
    let report = StatusReport {
        task_id: of.task_id,
        claim: of.claim,
        status: ReportStatus::Detached,
        started_ms_ago: None,
        ended_ms_ago: None,
        result: None,
        error: None,
        permanent: false,
        retry_after_ms: None,
    };
    match word.clone() {
        Word::Running(_) => report,
        Word::Complete(result) => StatusReport { status: ReportStatus::Complete, result, ..report },
        Word::Failed { result, message, permanent, retry_after_ms } => StatusReport {
            status: ReportStatus::Failed,
            result,
            error: Some(TaskError { code: ErrorCode::TargetFailed, message }),
            permanent,
            retry_after_ms,
            ..report
        },
    }
}
