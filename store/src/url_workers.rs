//! Workers that are only a URL: kept for users, and each adopted by one live coordinator, which signs them in among its workers.

use std::collections::BTreeMap;

use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::limits;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::url_worker::UrlWorker;
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;
use crate::fleet::COORDINATOR_LEASE_SECONDS;
use crate::lanes::Labels;
use crate::row::from_row;

/// Adopted at once; the rest follows with the next look, by others as well.
const ADOPTED_MAX: i64 = 20;

/// One as it is to be.
#[derive(Debug, Clone)]
pub struct UrlWorkerToKeep {
    pub worker_id: String,
    pub url: String,
    pub slots: i32,
    pub abilities: Abilities,
    pub labels: Labels,
    pub push_secret: String,
}

/// What came of keeping one.
#[derive(Debug, Clone, PartialEq)]
pub enum Put {
    Created(UrlWorker),
    Changed(UrlWorker),
    /// There are as many as there may be.
    TooMany,
}

/// One that a coordinator looks after.
#[derive(Debug, Clone)]
pub struct Adopted {
    pub id: String,
    pub url: String,
    pub slots: i32,
    pub abilities: Json<Abilities>,
    pub labels: Json<BTreeMap<String, String>>,
    pub push_secret: String,
}

from_row!(Adopted { id, url, slots, abilities, labels, push_secret });

/// Those whose coordinator is not there any more, or that had none.
const ADOPT: &str = "
update url_workers u set adopter = $1
  from (select id from url_workers o
         where o.adopter is null or not exists (select from coordinators c
                 where c.id = o.adopter and c.seen_at > now() - $2 * interval '1 second')
         order by id limit $3 for update skip locked) orphan
 where u.id = orphan.id
returning u.id";

/// What is in flight of a worker, and was claimed by others than its coordinator of now.
const LEFT_BEHIND: &str = "
select t.id, t.claim
  from claims c cross join lateral unnest(c.task_ids) as x(id)
       cross join lateral (select * from tasks t
                            where t.id = x.id and t.claim = c.id and t.status in (1, 2) and t.worker_id = any($1) limit 1) t
 where c.coordinator_id <> $2";

impl Store {
    /// Keeps one, or changes it. A drain that was asked for is lifted.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn put_url_worker(&self, worker: &UrlWorkerToKeep) -> Result<Put, StoreError> {
        let mut transaction = self.begin().await?;
        let count: i64 = sqlx::query_scalar("select count(*) from url_workers where id <> $1")
            .bind(&worker.worker_id)
            .fetch_one(&mut *transaction)
            .await?;
        if count >= limits::URL_WORKERS_MAX {
            return Ok(Put::TooMany);
        }
        let row: PgRow = sqlx::query(
            "insert into url_workers as u (id, url, slots, abilities, labels, push_secret) values ($1, $2, $3, $4, $5, $6)
             on conflict (id) do update
                set url = excluded.url, slots = excluded.slots, abilities = excluded.abilities, labels = excluded.labels,
                    push_secret = excluded.push_secret, changed_at = now(), unreachable_since = null, last_error = null
             returning u.*, (xmax = 0) as is_new",
        )
        .bind(&worker.worker_id)
        .bind(&worker.url)
        .bind(worker.slots)
        .bind(Json(&worker.abilities))
        .bind(Json(&worker.labels))
        .bind(&worker.push_secret)
        .fetch_one(&mut *transaction)
        .await?;
        sqlx::query("update workers set drain_requested = false where id = $1 and drain_requested")
            .bind(&worker.worker_id)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        let shown = Shown::from_row(&row)?.0;
        Ok(if row.try_get("is_new")? { Put::Created(shown) } else { Put::Changed(shown) })
    }

    /// All of them, by id.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn url_workers(&self) -> Result<Vec<UrlWorker>, StoreError> {
        let rows: Vec<Shown> = sqlx::query_as("select * from url_workers order by id limit $1")
            .bind(limits::URL_WORKERS_MAX)
            .fetch_all(&self.pool)
            .await?;
        Ok(rows.into_iter().map(|row| row.0).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn url_worker(&self, id: &str) -> Result<Option<UrlWorker>, StoreError> {
        let row: Option<Shown> =
            sqlx::query_as("select * from url_workers where id = $1").bind(id).fetch_optional(&self.pool).await?;
        Ok(row.map(|row| row.0))
    }

    /// Forgets one; `false` when there is none with this id.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn delete_url_worker(&self, id: &str) -> Result<bool, StoreError> {
        let done = sqlx::query("delete from url_workers where id = $1").bind(id).execute(&self.pool).await?;
        Ok(done.rows_affected() > 0)
    }

    /// Adopts those that nobody looks after, and gives back all that this coordinator does. What the ones before it had in flight is lost.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn adopt_url_workers(&self, coordinator_id: Uuid) -> Result<Vec<Adopted>, StoreError> {
        let adopted: Vec<String> = sqlx::query_scalar(ADOPT)
            .bind(coordinator_id)
            .bind(COORDINATOR_LEASE_SECONDS)
            .bind(ADOPTED_MAX)
            .fetch_all(&self.pool)
            .await?;
        if !adopted.is_empty() {
            let left: Vec<(Uuid, i64)> =
                sqlx::query_as(LEFT_BEHIND).bind(&adopted).bind(coordinator_id).fetch_all(&self.pool).await?;
            let left: Vec<TaskClaim> = left.into_iter().map(|(task_id, claim)| TaskClaim { task_id, claim }).collect();
            self.lose(&left).await?;
        }
        let all =
            "select id, url, slots, abilities, labels, push_secret from url_workers where adopter = $1 order by id";
        Ok(sqlx::query_as(all).bind(coordinator_id).fetch_all(&self.pool).await?)
    }

    /// Keeps whether the calls of one are taken: why the last was not, or none where it was.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn note_url_worker(&self, id: &str, error: Option<&str>) -> Result<(), StoreError> {
        let error: Option<String> = error.map(|error| error.chars().take(limits::ERROR_MESSAGE_CHARS_MAX).collect());
        sqlx::query(
            "update url_workers
                set last_error = $2, unreachable_since = case when $2 is not null then coalesce(unreachable_since, now()) end
              where id = $1",
        )
        .bind(id)
        .bind(error)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

struct Shown(UrlWorker);

impl<'r> FromRow<'r, PgRow> for Shown {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let Json(abilities): Json<Abilities> = row.try_get("abilities")?;
        Ok(Shown(UrlWorker {
            worker_id: row.try_get("id")?,
            url: row.try_get("url")?,
            slots: row.try_get::<i32, _>("slots")?.into(),
            queues: abilities.queues,
            http: abilities.http,
            commands: abilities.commands,
            labels: row.try_get::<Json<Labels>, _>("labels")?.0,
            home: row.try_get("adopter")?,
            unreachable_since: row.try_get("unreachable_since")?,
            last_error: row.try_get("last_error")?,
            created_at: row.try_get("created_at")?,
            changed_at: row.try_get("changed_at")?,
        }))
    }
}
