//! What users do to tasks: cancel and retry.

use sqlx::types::Json;
use taskmaster_openapi::gateway::TaskFilter;
use taskmaster_openapi::limits;
use taskmaster_openapi::task::{Task, TaskStatus};
use uuid::Uuid;

use crate::database::Store;
use crate::detached;
use crate::error::StoreError;
use crate::lanes::{Kind, Labels, LaneKey};
use crate::news::news_sql;
use crate::pool::Transaction;
use crate::queues::key_lanes::{KeyedWork, Placed};

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

/// What a bulk change came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bulk {
    /// Tasks that the filter found.
    pub matched: usize,
    /// Tasks that were changed at once: CANCELLED, or QUEUED again.
    pub changed: usize,
    /// Tasks that a worker must still let go of.
    pub requested: usize,
    /// There may be more that match.
    pub more: bool,
}

/// What waits is cancelled at once; what a worker holds is marked. Both name the state they change.
pub(crate) const CANCEL: &str = "
with gone as (
    delete from tasks where id = any($1) and status = 0 returning *
), kept as (
    insert into task_history (id, finished_at, run_at, created_at, scheduled_at, claim, picked_at, started_at,
        cancel_requested_at, lane, timeout_seconds, priority, status, attempt, max_attempts, hand_backs, lost_workers,
        worker_id, work, retry, tags, result, error, schedule_id, callbacks, flow_key, trace)
    select id, now(), run_at, created_at, scheduled_at, claim, picked_at, started_at, now(), lane, timeout_seconds, priority, 5,
        attempt, max_attempts, hand_backs, lost_workers, worker_id, work, retry, tags, result, error, schedule_id, callbacks, flow_key, trace from gone
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, workers, n)
    select 6, 0, 5, array_agg(id), array_agg(lane), array_agg(attempt), array_agg(worker_id), count(*)
      from gone where lane > 0 having count(*) > 0
), marked as (
    update tasks set cancel_requested_at = coalesce(cancel_requested_at, now()) where id = any($1) and status in (1, 2) returning id
), notified as (
    select pg_notify('taskmaster_cancels', '') from marked limit 1
)
select (select count(*) from gone), (select count(*) from marked), (select count(*) from notified)";

const RETRY: &str = concat!(
    "
with gone as (
    delete from task_history where id = any($1) and status in (4, 5) returning *
), attempted as (
    insert into attempts (task_id, claim, ended_at, picked_at, started_at, attempt, status, worker_id, result, error)
    select id, claim, finished_at, picked_at, started_at, attempt, status, worker_id, result, error
      from gone
     where started_at is not null
       and not exists (select from attempts a where a.task_id = gone.id and a.claim = gone.claim)
), again as (
    insert into tasks (id, lane, priority, run_at, created_at, scheduled_at, claim, attempt, max_attempts, timeout_seconds,
                       work, retry, tags, picked_at, started_at, worker_id, result, error, schedule_id, callbacks, flow_key, trace)
    select id, coalesce((select m.lane from unnest($2::uuid[], $3::integer[]) as m(id, lane) where m.id = gone.id), lane), priority, now(), created_at, scheduled_at, claim, 0, max_attempts, timeout_seconds,
           work, retry, tags, picked_at, started_at, worker_id, result, error, schedule_id, callbacks, flow_key, trace from gone
    returning id, lane, priority, run_at
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, n)
    select 0, status, 0, array_agg(id), array_agg(lane), array_agg(0::smallint), count(*) from gone where lane > 0 group by status
), ",
    news_sql!("again", "null::bigint"),
    "
select (select count(*) from again), (select due from news)"
);

/// Pages that one bulk change looks through; what lies further is left to the next call.
const BULK_PAGES_MAX: usize = 200;
/// Rows that one statement of a bulk change touches.
const BULK_STEP: usize = 1_000;

impl Store {
    /// Cancels a task, and says how that left it.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn cancel(&self, id: Uuid) -> Result<Cancel, StoreError> {
        let (mut transaction, _) = self.begin_cancel(&[id]).await?;
        let task = self.get_on(&mut transaction, id).await?;
        self.commit_change(transaction).await?;
        Ok(match task {
            None => Cancel::NotFound,
            Some(task) if task.status == TaskStatus::Cancelled => Cancel::Cancelled(task),
            Some(task) if task.status.is_terminal() => Cancel::Ended(task),
            Some(task) => Cancel::Requested(task),
        })
    }

    /// Moves a FAILED or CANCELLED task back among the live ones, due now, with all its attempts before it, and says how that left it:
    /// QUEUED, though a coordinator may claim it in the next moment.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn retry(&self, id: Uuid) -> Result<Retry, StoreError> {
        let (mut transaction, moved) = self.begin_retry(&[id]).await?;
        let task = self.get_on(&mut transaction, id).await?;
        self.commit_change(transaction).await?;
        Ok(match task {
            None => Retry::NotFound,
            Some(task) if moved == 0 => Retry::WrongState(task),
            Some(task) => Retry::Queued(task),
        })
    }

    /// Cancels the live tasks that match, up to `max` of them. `dry_run` only counts them.
    ///
    /// # Errors
    /// When the database is not available: what was cancelled before stays so.
    pub async fn cancel_matching(&self, filter: &TaskFilter, max: usize, dry_run: bool) -> Result<Bulk, StoreError> {
        let mut bulk = Bulk::default();
        let live = [TaskStatus::Queued, TaskStatus::Picked, TaskStatus::Started];
        let ids = self.matching(filter, &live, max, &mut bulk).await?;
        for step in ids.chunks(BULK_STEP).filter(|_| !dry_run) {
            let (cancelled, requested) = self.cancel_each(step).await?;
            bulk.changed += cancelled;
            bulk.requested += requested;
        }
        Ok(bulk)
    }

    /// Retries the FAILED or CANCELLED tasks that match, up to `max` of them. `dry_run` only counts them.
    ///
    /// # Errors
    /// When the database is not available: what was retried before stays so.
    pub async fn retry_matching(&self, filter: &TaskFilter, max: usize, dry_run: bool) -> Result<Bulk, StoreError> {
        let mut bulk = Bulk::default();
        let ended = [TaskStatus::Failed, TaskStatus::Cancelled];
        let ids = self.matching(filter, &ended, max, &mut bulk).await?;
        for step in ids.chunks(BULK_STEP).filter(|_| !dry_run) {
            bulk.changed += self.retry_each(step).await?;
        }
        Ok(bulk)
    }

    pub(crate) async fn cancel_each(&self, ids: &[Uuid]) -> Result<(usize, usize), StoreError> {
        let (transaction, counts) = self.begin_cancel(ids).await?;
        self.commit_change(transaction).await?;
        Ok(counts)
    }

    /// Cancels these, once the transaction is committed: how many are cancelled, and of how many it is requested.
    async fn begin_cancel(&self, ids: &[Uuid]) -> Result<(Transaction, (usize, usize)), StoreError> {
        let mut transaction = self.begin().await?;
        // The rows' locks first: a claim that is under way decides which of the two ways it is.
        sqlx::query("select from tasks where id = any($1) order by id for update")
            .bind(ids)
            .execute(&mut *transaction)
            .await?;
        let (cancelled, requested, _): (i64, i64, i64) =
            sqlx::query_as(CANCEL).bind(ids).fetch_one(&mut *transaction).await?;
        // No worker has these: nobody must let go of them.
        let detached = if requested > 0 { detached::cancel(&mut transaction, ids).await? } else { 0 };
        Ok((transaction, (cancelled as usize + detached, requested as usize - detached)))
    }

    async fn retry_each(&self, ids: &[Uuid]) -> Result<usize, StoreError> {
        let (transaction, moved) = self.begin_retry(ids).await?;
        self.commit_change(transaction).await?;
        Ok(moved)
    }

    /// Moves those of these that are FAILED or CANCELLED back, once the transaction is committed: how many.
    async fn begin_retry(&self, ids: &[Uuid]) -> Result<(Transaction, usize), StoreError> {
        let (mut transaction, (keyed, lanes)) = self.place_again(ids).await?;
        let (moved, due): (i64, Option<String>) =
            sqlx::query_as(RETRY).bind(ids).bind(keyed).bind(lanes).fetch_one(&mut *transaction).await?;
        transaction.due(due.as_deref());
        Ok((transaction, moved as usize))
    }

    async fn commit_change(&self, transaction: Transaction) -> Result<(), StoreError> {
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(())
    }

    /// The lanes of those of these ended tasks that have flow keys, held by the transaction: those that they were in may be others' now.
    async fn place_again(&self, ids: &[Uuid]) -> Result<(Transaction, (Vec<Uuid>, Vec<i32>)), StoreError> {
        let rows: Vec<(Uuid, String, i16, Json<Labels>, String)> = sqlx::query_as(
            "select h.id, l.queue, l.kind, l.requires, h.flow_key from task_history h cross join lateral (select * from lanes where id = h.lane limit 1) l
              where h.id = any($1) and h.flow_key is not null and h.status in (4, 5)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        if rows.is_empty() {
            return Ok((self.begin().await?, Default::default()));
        }
        let work = |(id, queue, kind, Json(requires), key): (_, String, _, _, _)| {
            let lane = LaneKey { queue: queue.into(), kind: Kind::from_code(kind), requires };
            (id, KeyedWork { lane, key })
        };
        let works: Vec<(Uuid, KeyedWork)> = rows.into_iter().map(work).collect();
        let Placed { transaction, lanes } =
            self.begin_placed(works.iter().map(|(_, work)| work.clone()).collect()).await?;
        let mut placed = Vec::with_capacity(works.len());
        for (id, work) in &works {
            let lane = match lanes.get(work) {
                Some(lane) => *lane,
                // The queue has no limits by key any more.
                None => self.lanes.id_of(&self.pool, &work.lane).await?,
            };
            placed.push((*id, lane));
        }
        Ok((transaction, placed.into_iter().unzip()))
    }

    /// Ids that match the filter and are in one of these states.
    async fn matching(
        &self,
        filter: &TaskFilter,
        states: &[TaskStatus],
        max: usize,
        bulk: &mut Bulk,
    ) -> Result<Vec<Uuid>, StoreError> {
        let mut ids = Vec::new();
        let mut pages_left = BULK_PAGES_MAX;
        for status in states.iter().filter(|status| filter.status.is_none_or(|wanted| wanted == **status)) {
            let filter = TaskFilter { status: Some(*status), ..filter.clone() };
            let mut before = None;
            loop {
                let page = self.list(&filter, before, limits::PAGE_SIZE_MAX).await?;
                ids.extend(page.tasks.into_iter().map(|task| task.id));
                before = page.next;
                pages_left -= 1;
                if before.is_none() || ids.len() > max || pages_left == 0 {
                    break;
                }
            }
            bulk.more |= before.is_some();
            if ids.len() > max || pages_left == 0 {
                break;
            }
        }
        bulk.more |= ids.len() > max;
        ids.truncate(max);
        // In the order in which statements lock rows.
        ids.sort_unstable();
        bulk.matched = ids.len();
        Ok(ids)
    }
}
