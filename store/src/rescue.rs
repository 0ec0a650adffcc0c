//! Nothing stays stuck: what is in flight and whose worker, coordinator or time is gone goes on.

use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::{ErrorCode, TaskError};
use uuid::Uuid;

use crate::database::Store;
use crate::detached;
use crate::error::StoreError;
use crate::outcome::{Held, Incident, lock, settle};
use crate::row::from_row;
use crate::rules::Happening;

/// The limits of what may stay in flight.
#[derive(Debug, Clone, Copy)]
pub struct RescueLimits {
    /// A coordinator that was not seen for so long is dead.
    pub coordinator_lease_seconds: f64,
    /// A claim that a live coordinator has not turned into a start for so long is taken back.
    pub unstarted_seconds: f64,
    /// How long after its time-out an attempt may still be reported by its worker.
    pub timeout_margin_seconds: f64,
    /// Younger claims are not looked at: nothing strands them but the loss of a worker.
    pub claimed_seconds_ago: f64,
    /// Claims of this coordinator, those of dead ones, and those that should have been started long ago are looked at; everybody's when
    /// there is none.
    pub of: Option<Uuid>,
}

/// Tasks rescued at once; the rest follows with the next sweep.
const RESCUED_MAX: i64 = 5_000;

/// In-flight tasks are found by the claims: few rows, whatever the backlog, and fewer where most claims end young. Each is looked up
/// by its id: `limit` keeps the planner from walking over all tasks instead, when it takes the claims for more than they are.
const STRANDED: &str = "
with looked_at as materialized (
    select c.id, c.task_ids, c.claimed_at, o.id is null as is_left
      from claims c left join coordinators o on o.id = c.coordinator_id and o.seen_at > now() - $1 * interval '1 second'
     where c.claimed_at <= now() - $5 * interval '1 second'
       and ($6::uuid is null or c.coordinator_id = $6 or o.id is null or c.claimed_at < now() - $2 * interval '1 second')
)
select t.id, t.claim,
       case when w.id is null then 0
            when t.status = 1 then 1
            else 2 end as reason
  from looked_at c
       cross join lateral unnest(c.task_ids) as x(id)
       cross join lateral (select * from tasks t
                            where t.id = x.id and t.claim = c.id and t.status in (1, 2) limit 1) t
       left join workers w on w.id = t.worker_id
 where (w.id is null
    or (t.status = 1 and c.is_left and c.claimed_at < now() - $1 * interval '1 second')
    or (t.status = 1 and c.claimed_at < now() - $2 * interval '1 second')
    or (t.status = 2 and t.started_at < now() - (t.timeout_seconds + $3) * interval '1 second'))
   and not exists (select from detached d where d.task_id = t.id and d.claim = t.claim)
 limit $4";

#[derive(Debug)]
struct Stranded {
    id: Uuid,
    claim: i64,
    reason: i32,
}

from_row!(Stranded { id, claim, reason });

impl Store {
    /// Finds what is stranded, and moves it on. Harmless when several do it at once. Gives back how many tasks it moved.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn rescue(&self, limits: &RescueLimits) -> Result<usize, StoreError> {
        let stranded: Vec<Stranded> = sqlx::query_as(STRANDED)
            .bind(limits.coordinator_lease_seconds)
            .bind(limits.unstarted_seconds)
            .bind(limits.timeout_margin_seconds)
            .bind(RESCUED_MAX)
            .bind(limits.claimed_seconds_ago)
            .bind(limits.of)
            .fetch_all(&self.pool)
            .await?;
        let mut rescued = 0;
        for (reason, happening, error) in reasons() {
            let claims: Vec<TaskClaim> = stranded
                .iter()
                .filter(|s| s.reason == reason)
                .map(|s| TaskClaim { task_id: s.id, claim: s.claim })
                .collect();
            rescued += self.move_on(&claims, happening, error).await?;
        }
        Ok(rescued)
    }

    /// Takes back claims that were not started: nobody took the task, or the worker gave it back. What was started meanwhile is
    /// left alone.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn hand_back(&self, claims: &[TaskClaim]) -> Result<usize, StoreError> {
        self.move_on(claims, Happening::HandedBack, None).await
    }

    /// Takes back what a coordinator claimed in the last two minutes without hearing of it: every unstarted claim of its but those
    /// with these numbers.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn hand_back_unheard(&self, coordinator_id: Uuid, heard: &[i64]) -> Result<usize, StoreError> {
        let rows: Vec<(Uuid, i64)> = sqlx::query_as(
            "select t.id, t.claim
               from claims c cross join lateral unnest(c.task_ids) as x(id)
                    cross join lateral (select * from tasks t
                                         where t.id = x.id and t.claim = c.id and t.status = 1 limit 1) t
              where c.coordinator_id = $1 and c.claimed_at > now() - interval '2 minutes' and c.id <> all($2) limit $3",
        )
        .bind(coordinator_id)
        .bind(heard)
        .bind(RESCUED_MAX)
        .fetch_all(&self.pool)
        .await?;
        let claims: Vec<TaskClaim> = rows.into_iter().map(|(task_id, claim)| TaskClaim { task_id, claim }).collect();
        self.hand_back(&claims).await
    }

    /// Takes back claims of a worker that is there, and no longer holds them.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn lose(&self, claims: &[TaskClaim]) -> Result<usize, StoreError> {
        let [(_, happening, error), ..] = reasons();
        self.move_on(claims, happening, error).await
    }

    async fn move_on(
        &self,
        claims: &[TaskClaim],
        happening: Happening,
        error: Option<TaskError>,
    ) -> Result<usize, StoreError> {
        if claims.is_empty() {
            return Ok(0);
        }
        let ids: Vec<Uuid> = claims.iter().map(|c| c.task_id).collect();
        let mut transaction = self.begin().await?;
        let held = lock(&mut transaction, &ids).await?;
        // What has moved since it was looked at is left alone.
        let detached = match happening {
            Happening::HandedBack => Vec::new(),
            _ => detached::among(&mut transaction, &ids).await?,
        };
        let is_held = |claim: &&TaskClaim| !detached.contains(claim);
        let as_it_was = |held: &&Held| happening != Happening::HandedBack || !held.is_started();
        let current =
            claims.iter().filter(is_held).filter_map(|c| held.get(&c.task_id).filter(|held| held.claim == c.claim));
        let current = current.filter(as_it_was);
        let incidents: Vec<Incident> = current
            .map(|held| Incident {
                held: held.clone(),
                happening,
                started_ms: None,
                ended_ms: None,
                result: None,
                error: error.clone(),
            })
            .collect();
        settle(&mut transaction, &incidents).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(incidents.len())
    }

    /// Removes claims of which no worker has anything any more, and which nobody removed.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn sweep_claims(&self) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "delete from claims c
              where c.id in (select id from claims where claimed_at < now() - interval '30 seconds' order by id limit 5000)
                and not exists (select from unnest(c.task_ids) as x(id), lateral (select from tasks t
                                 where t.id = x.id and t.claim = c.id and t.status in (1, 2)
                                   and not exists (select from detached d where d.task_id = t.id and d.claim = t.claim) limit 1) t)",
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    /// Of these claims, the ones that are no longer their worker's, or whose cancel was asked for: what the worker is to stop.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn to_stop(&self, worker_id: &str, held: &[TaskClaim]) -> Result<Vec<TaskClaim>, StoreError> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let (ids, claims): (Vec<Uuid>, Vec<i64>) = held.iter().map(|c| (c.task_id, c.claim)).unzip();
        let stop: Vec<(Uuid, i64)> = sqlx::query_as(
            "select h.id, h.claim from unnest($1::uuid[], $2::bigint[]) as h(id, claim)
              where not exists (select from tasks t where t.id = any(array[h.id]) and t.claim = h.claim and t.worker_id = $3
                                   and t.status in (1, 2) and t.cancel_requested_at is null)",
        )
        .bind(ids)
        .bind(claims)
        .bind(worker_id)
        .fetch_all(&self.pool)
        .await?;
        Ok(stop.into_iter().map(|(task_id, claim)| TaskClaim { task_id, claim }).collect())
    }

    /// The claims in flight whose cancel was asked for, and their workers.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn cancels_in_flight(&self) -> Result<Vec<(String, TaskClaim)>, StoreError> {
        let rows: Vec<(String, Uuid, i64)> = sqlx::query_as(
            "select worker_id, id, claim from tasks where cancel_requested_at is not null and status in (1, 2) limit 10000",
        )
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(worker, task_id, claim)| (worker, TaskClaim { task_id, claim })).collect())
    }
}

/// Why tasks are stranded, by the number that [`STRANDED`] gives.
fn reasons() -> [(i32, Happening, Option<TaskError>); 3] {
    let error = |code, message: &str| Some(TaskError { code, message: message.into() });
    [
        (0, Happening::WorkerLost, error(ErrorCode::WorkerLost, "the worker died, or lost the task")),
        (1, Happening::HandedBack, None),
        (
            2,
            Happening::Failed { permanent: false, retry_after: None },
            error(ErrorCode::Timeout, "the attempt took longer than its time-out, and the worker said nothing"),
        ),
    ]
}
