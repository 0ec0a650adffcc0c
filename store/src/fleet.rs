//! Who is there: coordinators and workers, by their last sign of life on the database's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, Row};
use taskmaster_openapi::coordinator::{Abilities, Worker, WorkerStatus};
use uuid::Uuid;

use crate::create::to_json;
use crate::database::Store;
use crate::error::StoreError;
use crate::row::from_row;

/// A coordinator without a sign of life for so long is dead.
pub const COORDINATOR_LEASE_SECONDS: f64 = 5.0;
/// A worker without a heartbeat for so long is dead, unless the coordinators say otherwise: 3 missed heartbeats of 5 s.
pub const WORKER_LEASE_SECONDS: f64 = 15.0;

/// A heartbeat, as far as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Beat {
    pub worker_id: String,
    pub address: String,
    pub slots: i32,
    pub held: i32,
    pub abilities: Abilities,
    pub labels: BTreeMap<String, String>,
    pub draining: bool,
    /// The coordinator that pushes to the worker from now on.
    pub home: Uuid,
}

/// What the database says to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BeatAnswer {
    pub id: String,
    /// Whether the worker was there before.
    pub known: bool,
    /// Somebody asked the worker to drain.
    pub drain_requested: bool,
}

from_row!(BeatAnswer { id, known, drain_requested });

/// A live coordinator, how many workers are at home with it, and how many slots they have that take tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coordinator {
    pub id: Uuid,
    pub address: String,
    pub workers: i64,
    pub slots: i64,
}

from_row!(Coordinator { id, address, workers, slots });

/// What a coordinator learns with its sign of life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Surroundings {
    /// The live coordinators, itself included.
    pub coordinators: Vec<Coordinator>,
    /// There are workers that are only a URL.
    pub has_url_workers: bool,
    /// Some target that was to call back has been silent for too long.
    pub has_silent_targets: bool,
}

/// Signs of life are no facts to keep: losing the last few seconds of them in a crash is harmless, and nobody waits for a disk.
const BEAT: &str = "
with beat as (
    select * from unnest($1::text[], $2::text[], $3::integer[], $4::integer[], $5::text[], $6::text[], $7::boolean[], $8::uuid[])
      as b(id, address, slots, held, abilities, labels, draining, home)
), kept as (
    insert into workers (id, address, slots, held, abilities, labels, draining, home)
    select id, address, slots, held, abilities::jsonb, labels::jsonb, draining, home from beat order by id
    on conflict (id) do update
       set address = excluded.address, slots = excluded.slots, held = excluded.held, abilities = excluded.abilities,
           labels = excluded.labels, draining = excluded.draining, home = excluded.home, seen_at = now()
    returning id, (xmax <> 0) as known, drain_requested, set_config('synchronous_commit', 'off', true)
), noted as (
    insert into event_inbox (type, workers, n)
    select 7, array_agg(id), count(*) from kept where not known having count(*) > 0
)
select id, known, drain_requested from kept";

const COORDINATOR_ALIVE: &str = "
with alive as (
    insert into coordinators (id, address) values ($1, $2)
    on conflict (id) do update set address = excluded.address, seen_at = now()
    returning id, address, set_config('synchronous_commit', 'off', true)
), live as (
    select id, address from alive
    union all select id, address from coordinators where id <> $1 and seen_at > now() - $3 * interval '1 second'
)
select c.id, c.address, h.workers, h.slots,
       exists (select from url_workers) as has_url_workers,
       exists (select from detached where expires_at <= now()) as has_silent_targets
  from live c,
       lateral (select count(*) as workers,
                       coalesce(sum(slots) filter (where not draining and not drain_requested), 0)::bigint as slots
                  from workers w where w.home = c.id) h
 order by c.id limit 100";

const REMOVE: &str = "
with gone as (
    delete from workers where id = any($1) and seen_at <= now() - $2 * interval '1 second' returning id
), noted as (
    insert into event_inbox (type, workers, n) select 8, array_agg(id), count(*) from gone having count(*) > 0
)
select id from gone";

impl Store {
    /// Keeps a batch of heartbeats, of different workers.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn beat(&self, beats: &[Beat]) -> Result<Vec<BeatAnswer>, StoreError> {
        let answers: Vec<BeatAnswer> = sqlx::query_as(BEAT)
            .bind(beats.iter().map(|b| b.worker_id.clone()).collect::<Vec<_>>())
            .bind(beats.iter().map(|b| b.address.clone()).collect::<Vec<_>>())
            .bind(beats.iter().map(|b| b.slots).collect::<Vec<_>>())
            .bind(beats.iter().map(|b| b.held).collect::<Vec<_>>())
            .bind(beats.iter().map(|b| to_json(&b.abilities)).collect::<Result<Vec<_>, _>>()?)
            .bind(beats.iter().map(|b| to_json(&b.labels)).collect::<Result<Vec<_>, _>>()?)
            .bind(beats.iter().map(|b| b.draining).collect::<Vec<_>>())
            .bind(beats.iter().map(|b| b.home).collect::<Vec<_>>())
            .fetch_all(&self.pool)
            .await?;
        if answers.iter().any(|answer| !answer.known) {
            self.events_waiting.notify_one();
        }
        Ok(answers)
    }

    /// A sign of life of a coordinator, with a look around: one statement, since every coordinator asks it every second.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn coordinator_alive(&self, id: Uuid, address: &str) -> Result<Surroundings, StoreError> {
        let rows = sqlx::query(COORDINATOR_ALIVE)
            .bind(id)
            .bind(address)
            .bind(COORDINATOR_LEASE_SECONDS)
            .fetch_all(&self.pool)
            .await?;
        let is = |column| rows.first().map_or(Ok(false), |row| row.try_get(column));
        Ok(Surroundings {
            has_url_workers: is("has_url_workers")?,
            has_silent_targets: is("has_silent_targets")?,
            coordinators: rows.iter().map(Coordinator::from_row).collect::<Result<_, _>>()?,
        })
    }

    /// A coordinator leaves; coordinators that died a minute ago or more are forgotten with it.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn coordinator_gone(&self, id: Uuid) -> Result<(), StoreError> {
        sqlx::query("delete from coordinators where id = $1 or seen_at < now() - interval '1 minute'")
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// Where live coordinators are.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn coordinator_addresses(&self) -> Result<Vec<String>, StoreError> {
        let addresses = sqlx::query_scalar(
            "select address from coordinators where seen_at > now() - $1 * interval '1 second' order by id limit 100",
        )
        .bind(COORDINATOR_LEASE_SECONDS)
        .fetch_all(&self.pool)
        .await?;
        Ok(addresses)
    }

    /// The workers that are there, by id.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn workers(&self) -> Result<Vec<Worker>, StoreError> {
        self.pool.ask(async |connection| self.workers_on(connection, Duration::ZERO).await).await
    }

    /// Those that were there by what a database knows that may be of so long ago.
    pub(crate) async fn workers_on(
        &self,
        connection: &mut PgConnection,
        age: Duration,
    ) -> Result<Vec<Worker>, StoreError> {
        let rows: Vec<WorkerRow> = sqlx::query_as(
            "select * from workers where seen_at > now() - $1 * interval '1 second' order by id limit 10000",
        )
        .bind(WORKER_LEASE_SECONDS + age.as_secs_f64())
        .fetch_all(connection)
        .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// The workers of which this coordinator is the home, by id.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn workers_at_home(&self, coordinator_id: Uuid) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar("select id from workers where home = $1")
            .bind(coordinator_id)
            .fetch_all(&self.pool)
            .await?)
    }

    /// Asks a worker to drain; `false` when there is no such worker.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn drain_worker(&self, worker_id: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("update workers set drain_requested = true where id = $1")
            .bind(worker_id)
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected() > 0)
    }

    /// Removes workers that leave, or that do not answer; what they held is found by [`Store::rescue`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn remove_workers(&self, worker_ids: &[String]) -> Result<Vec<String>, StoreError> {
        Ok(sqlx::query_scalar(REMOVE).bind(worker_ids).bind(0.0_f64).fetch_all(&self.pool).await?)
    }

    /// Removes workers without a heartbeat for so long. Gives back who they were.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn remove_dead_workers(&self, lease_seconds: f64) -> Result<Vec<String>, StoreError> {
        let dead: Vec<String> =
            sqlx::query_scalar("select id from workers where seen_at <= now() - $1 * interval '1 second' limit 1000")
                .bind(lease_seconds)
                .fetch_all(&self.pool)
                .await?;
        match dead.is_empty() {
            true => Ok(dead),
            false => Ok(sqlx::query_scalar(REMOVE).bind(dead).bind(lease_seconds).fetch_all(&self.pool).await?),
        }
    }
}

struct WorkerRow(Worker);

impl<'r> FromRow<'r, PgRow> for WorkerRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let draining: bool = row.try_get::<bool, _>("draining")? || row.try_get::<bool, _>("drain_requested")?;
        let last_heartbeat_at: DateTime<Utc> = row.try_get("seen_at")?;
        Ok(WorkerRow(Worker {
            worker_id: row.try_get("id")?,
            address: row.try_get("address")?,
            status: if draining { WorkerStatus::Draining } else { WorkerStatus::Active },
            slots: row.try_get::<i32, _>("slots")?.into(),
            held: row.try_get::<i32, _>("held")?.into(),
            abilities: row.try_get::<Json<Abilities>, _>("abilities")?.0,
            labels: row.try_get::<Json<BTreeMap<String, String>>, _>("labels")?.0,
            home: row.try_get("home")?,
            joined_at: row.try_get("joined_at")?,
            last_heartbeat_at,
        }))
    }
}
