//! What users do to tasks: cancel and retry.

use taskmaster_openapi::task::{Task, TaskStatus};
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;

/// What a cancel came to.
#[derive(Debug, Clone)]
pub enum Cancel {
    /// The task is CANCELLED, now or before: it never starts, or never again.
    Cancelled(Task),
    /// A worker must still let go.
    Requested(Task),
    /// The task had ended otherwise.
    Ended(Task),
    NotFound,
}

/// What a manual retry came to.
#[derive(Debug, Clone)]
pub enum Retry {
    /// The task is QUEUED again.
    Queued(Task),
    /// Only FAILED and CANCELLED tasks can be retried.
    WrongState(Task),
    NotFound,
}

/// What waits is cancelled at once; what a worker holds is marked. Both name the state they change.
const CANCEL: &str = "
with gone as (
    delete from tasks where id = $1 and status = 0 returning *
), kept as (
    insert into task_history (id, finished_at, run_at, created_at, scheduled_at, claim, picked_at, started_at,
        cancel_requested_at, lane, timeout_seconds, priority, status, attempt, max_attempts, hand_backs, lost_workers,
        worker_id, work, retry, tags, result, error)
    select id, now(), run_at, created_at, scheduled_at, claim, picked_at, started_at, now(), lane, timeout_seconds, priority, 5,
        attempt, max_attempts, hand_backs, lost_workers, worker_id, work, retry, tags, result, error from gone
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, workers, n)
    select 6, 0, 5, array[id], array[lane], array[attempt], array[worker_id], 1 from gone
), marked as (
    update tasks set cancel_requested_at = coalesce(cancel_requested_at, now()) where id = $1 and status in (1, 2) returning id
)
select count(*) from (select pg_notify('taskmaster_cancels', '') from marked) as notified";

const RETRY: &str = "
with gone as (
    delete from task_history where id = $1 and status in (4, 5) returning *
), attempted as (
    insert into attempts (task_id, claim, ended_at, picked_at, started_at, attempt, status, worker_id, result, error)
    select id, claim, finished_at, picked_at, started_at, attempt, status, worker_id, result, error
      from gone where started_at is not null
), again as (
    insert into tasks (id, lane, priority, run_at, created_at, scheduled_at, claim, attempt, max_attempts, timeout_seconds,
                       work, retry, tags, picked_at, started_at, worker_id, result, error)
    select id, lane, priority, now(), created_at, scheduled_at, claim, 0, max_attempts, timeout_seconds,
           work, retry, tags, picked_at, started_at, worker_id, result, error from gone
    returning id, lane, priority
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, n)
    select 0, g.status, 0, array[g.id], array[g.lane], array[0::smallint], 1 from gone g
)
select pg_notify('taskmaster_due', lane || ':' || priority) from again";

impl Store {
    /// Cancels a task.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn cancel(&self, id: Uuid) -> Result<Cancel, StoreError> {
        let mut transaction = self.pool.begin().await?;
        // The row's lock first: a claim that is under way decides which of the two ways it is.
        sqlx::query("select from tasks where id = $1 for update").bind(id).execute(&mut *transaction).await?;
        sqlx::query(CANCEL).bind(id).fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(match self.get(id).await? {
            None => Cancel::NotFound,
            Some(task) if task.status == TaskStatus::Cancelled => Cancel::Cancelled(task),
            Some(task) if task.status.is_terminal() => Cancel::Ended(task),
            Some(task) => Cancel::Requested(task),
        })
    }

    /// Moves a FAILED or CANCELLED task back among the live ones, due now, with all its attempts before it.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn retry(&self, id: Uuid) -> Result<Retry, StoreError> {
        let moved = sqlx::query(RETRY).bind(id).fetch_all(&self.pool).await?;
        self.events_waiting.notify_one();
        Ok(match self.get(id).await? {
            None => Retry::NotFound,
            Some(task) if moved.is_empty() => Retry::WrongState(task),
            Some(task) => Retry::Queued(task),
        })
    }
}
