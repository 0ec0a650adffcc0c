//! Figures: kept as events are moved to the log, never counted by a scan.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use sqlx::types::Json;
use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::gateway::{FleetStats, QueueStats, Rates, Stats, StatusCounts, UnservedTasks};
use taskmaster_openapi::limits;

use crate::backlog::Backlogs;
use crate::claim::Band;
use crate::database::Store;
use crate::error::StoreError;
use crate::fleet::WORKER_LEASE_SECONDS;
use crate::lanes::{Kind, Labels};
use crate::row::status_from;

/// Rates are of the last minute.
const WINDOW_SECONDS: i64 = 60;

impl Store {
    /// Counts, backlog, rates and fleet.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        self.advance_events().await?;
        self.pool.ask(async |connection| self.stats_on(connection, &self.backlogs, Duration::ZERO).await).await
    }

    /// As a database knows them that may be of so long ago.
    pub(crate) async fn stats_on(
        &self,
        connection: &mut PgConnection,
        backlogs: &Backlogs,
        age: Duration,
    ) -> Result<Stats, StoreError> {
        let counts = counts(connection).await?;
        // Only lanes with queued tasks may have something due.
        let queued = counts.iter().filter(|(_, _, status, n)| *status == 0 && *n > 0).map(|(lane, ..)| *lane);
        let backlog = backlogs.get(connection, Band::of(queued).collect(), age).await?;
        let (tasks, queues) = sums(&counts);
        let unserved = self.unserved(connection, &counts, age).await?;
        let (at, workers, slots): (DateTime<Utc>, i64, i64) = sqlx::query_as(
            "select now(), count(*), coalesce(sum(slots), 0)::bigint from workers where seen_at > now() - $1 * interval '1 second'",
        )
        .bind(WORKER_LEASE_SECONDS + age.as_secs_f64())
        .fetch_one(&mut *connection)
        .await?;
        let (rates, fleet) = (rates(connection).await?, FleetStats { workers, slots });
        Ok(Stats { at: at - age, tasks, queues, backlog, rates, fleet, unserved })
    }

    /// Lanes with queued tasks that none of the workers that are there serves, the fullest first.
    async fn unserved(
        &self,
        connection: &mut PgConnection,
        counts: &[LaneCount],
        age: Duration,
    ) -> Result<Vec<UnservedTasks>, StoreError> {
        let queued = || counts.iter().filter(|(_, _, status, n)| *status == 0 && *n > 0);
        self.lanes.ensure(&mut *connection, queued().map(|(lane, ..)| *lane)).await?;
        let fleet: Vec<(Json<Abilities>, Json<Labels>)> = sqlx::query_as(
            "select distinct abilities, labels from workers
              where seen_at > now() - $1 * interval '1 second' and not draining and not drain_requested",
        )
        .bind(WORKER_LEASE_SECONDS + age.as_secs_f64())
        .fetch_all(connection)
        .await?;
        let unserved = queued().filter_map(|(lane, _, _, n)| {
            let key = self.lanes.get(*lane)?.key;
            let served = fleet.iter().any(|(abilities, labels)| key.is_served_by(abilities, labels));
            let (queue, commands) = (key.queue.to_string(), key.kind == Kind::Command);
            (!served).then_some(UnservedTasks { queue, commands, requires: key.requires, queued: *n })
        });
        let mut unserved: Vec<UnservedTasks> = unserved.collect();
        unserved.sort_by_key(|tasks| std::cmp::Reverse(tasks.queued));
        unserved.truncate(limits::UNSERVED_MAX);
        Ok(unserved)
    }
}

/// Lane, its queue, a status, and how many tasks of the lane have it.
type LaneCount = (i32, String, i16, i64);

async fn counts(connection: &mut PgConnection) -> Result<Vec<LaneCount>, StoreError> {
    let sql = "
        select l.id, l.queue, c.status, c.n
          from (select lane, status, sum(n)::bigint as n from current_task_counts group by lane, status) c
          join lanes l on l.id = c.lane";
    Ok(sqlx::query_as(sql).fetch_all(connection).await?)
}

/// Of all tasks, and by queue.
fn sums(counts: &[LaneCount]) -> (StatusCounts, Vec<QueueStats>) {
    let mut all = StatusCounts::default();
    let mut queues: BTreeMap<String, StatusCounts> = BTreeMap::new();
    for (_, queue, status, n) in counts {
        *all.of_mut(status_from(*status)) += n;
        *queues.entry(queue.clone()).or_default().of_mut(status_from(*status)) += n;
    }
    (all, queues.into_iter().map(|(queue, tasks)| QueueStats { queue, tasks }).collect())
}

async fn rates(connection: &mut PgConnection) -> Result<Rates, StoreError> {
    let (created, completed, failed): (i64, i64, i64) = sqlx::query_as(
        "select coalesce(sum(created), 0)::bigint, coalesce(sum(completed), 0)::bigint, coalesce(sum(failed), 0)::bigint
           from task_rates where at > now() - $1 * interval '1 second'",
    )
    .bind(WINDOW_SECONDS as f64)
    .fetch_one(connection)
    .await?;
    let per_second = |n: i64| n as f64 / WINDOW_SECONDS as f64;
    Ok(Rates {
        window_seconds: WINDOW_SECONDS,
        created_per_second: per_second(created),
        completed_per_second: per_second(completed),
        failed_per_second: per_second(failed),
    })
}
