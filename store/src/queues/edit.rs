//! What users do to queues, but for purging them.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};
use taskmaster_openapi::gateway::StatusCounts;
use taskmaster_openapi::limits;
use taskmaster_openapi::queue::{Queue, QueueSettings, Rate};

use super::{SetRow, queue_columns, unset};
use crate::create::to_json;
use crate::database::Store;
use crate::error::StoreError;
use crate::pool::Transaction;
use crate::row::status_from;

/// What a change came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Changed {
    Done(Box<Queue>),
    NotFound,
    /// Somebody has changed it meanwhile.
    WrongRevision,
}

/// Raises the version, so that no claim goes by what was set before; coordinators are told.
const RAISE: &str = "
with raised as (update queue_head set version = version + 1 returning version)
select pg_notify('taskmaster_due', '*') from raised";

const SET: &str = "
update queues
   set concurrency = $2, key_concurrency = $3, rate_count = $4, rate_seconds = $5, key_rate_count = $6, key_rate_seconds = $7,
       max_attempts = $8, timeout_seconds = $9, retry = $10::json, revision = (select version + 1 from queue_head), changed_at = clock_timestamp()
 where queue = $1";

/// Queues by name: those that have lanes, and those of which something is set; with their counts.
const LIST: &str = concat!(
    "with named as (
        select queue from (select queue from lanes where id > 0 union select queue from queues) every
         where queue > $1 and ($2::text is null or queue = $2) order by queue limit $3
     )
     select n.queue as name, ",
    queue_columns!(),
    ", c.statuses, c.counts
       from named n left join queues q on q.queue = n.queue
            left join lateral (
                select array_agg(status) as statuses, array_agg(total) as counts
                  from (select t.status, sum(t.n)::bigint as total
                          from lanes l cross join lateral (select * from current_task_counts where lane = l.id) t
                         where l.queue = n.queue group by t.status) each) c on true
      order by n.queue"
);

impl Store {
    /// Queues with names after this one, by name.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn queues(&self, after: &str, count: i64) -> Result<Vec<Queue>, StoreError> {
        self.pool.ask(async |connection| queues_on(connection, after, None, count).await).await
    }

    /// One queue; `None` where it never had a task, and nothing is set of it.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn queue(&self, name: &str) -> Result<Option<Queue>, StoreError> {
        self.pool.ask(async |connection| queue_on(connection, name).await).await
    }

    /// Sets limits and defaults of a queue whose revision is still this one; 0 is that of one of which nothing is set.
    ///
    /// # Errors
    /// When the database is not available, or there are too many queues.
    pub async fn set_queue(&self, name: &str, revision: i64, settings: &QueueSettings) -> Result<Changed, StoreError> {
        let mut transaction = self.begin().await?;
        if lock(&mut transaction, name).await?.unwrap_or(0) != revision {
            return Ok(Changed::WrongRevision);
        }
        add(&mut transaction, name).await?;
        let narrow = |number: Option<i64>| number.and_then(|number| i32::try_from(number).ok());
        let count = |rate: Option<Rate>| narrow(rate.map(|rate| rate.count));
        let seconds = |rate: Option<Rate>| narrow(rate.map(|rate| rate.period_seconds));
        sqlx::query(SET)
            .bind(name)
            .bind(narrow(settings.concurrency))
            .bind(narrow(settings.concurrency_by_key))
            .bind(count(settings.rate))
            .bind(seconds(settings.rate))
            .bind(count(settings.rate_by_key))
            .bind(seconds(settings.rate_by_key))
            .bind(settings.max_attempts.and_then(|attempts| i16::try_from(attempts).ok()))
            .bind(narrow(settings.timeout_seconds))
            .bind(settings.retry.as_ref().map(to_json).transpose()?)
            .execute(&mut *transaction)
            .await?;
        self.finish_queue(transaction, name).await
    }

    /// Pauses a queue. Pausing it again changes nothing.
    ///
    /// # Errors
    /// When the database is not available, or there are too many queues.
    pub async fn pause_queue(&self, name: &str, reason: Option<&str>) -> Result<Changed, StoreError> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction, name).await?;
        add(&mut transaction, name).await?;
        sqlx::query(
            "update queues set paused_at = now(), pause_reason = $2, revision = (select version + 1 from queue_head), changed_at = clock_timestamp()
              where queue = $1 and paused_at is null",
        )
        .bind(name)
        .bind(reason)
        .execute(&mut *transaction)
        .await?;
        self.finish_queue(transaction, name).await
    }

    /// Lets a paused queue go on.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn resume_queue(&self, name: &str) -> Result<Changed, StoreError> {
        let mut transaction = self.begin().await?;
        lock(&mut transaction, name).await?;
        sqlx::query(
            "update queues set paused_at = null, pause_reason = null, revision = (select version + 1 from queue_head), changed_at = clock_timestamp()
              where queue = $1 and paused_at is not null",
        )
        .bind(name)
        .execute(&mut *transaction)
        .await?;
        self.finish_queue(transaction, name).await
    }

    /// Forgets what is set of a queue whose revision is still this one, where one is given. Its tasks stay.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn reset_queue(&self, name: &str, revision: Option<i64>) -> Result<Changed, StoreError> {
        let mut transaction = self.begin().await?;
        let known = lock(&mut transaction, name).await?.unwrap_or(0);
        if revision.is_some_and(|revision| revision != known) {
            return Ok(Changed::WrongRevision);
        }
        // Seen by whoever asks, also where it is a queue only because something is set of it.
        let Some(before) = queue_on(&mut transaction, name).await? else { return Ok(Changed::NotFound) };
        sqlx::query("delete from queues where queue = $1").bind(name).execute(&mut *transaction).await?;
        sqlx::query("delete from queue_flows where queue = $1").bind(name).execute(&mut *transaction).await?;
        sqlx::query(RAISE).execute(&mut *transaction).await?;
        transaction.commit().await?;
        self.load_queues().await?;
        Ok(Changed::Done(Box::new(unset(before.queue, before.tasks))))
    }

    /// Forgets buckets that are full again, whatever the rate.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn trim_queue_flows(&self) -> Result<u64, StoreError> {
        let done = sqlx::query(
            "delete from queue_flows where (queue, flow_key) in
                (select queue, flow_key from queue_flows where at < now() - $1 * interval '1 second' order by at limit 10000)",
        )
        .bind(limits::RATE_SECONDS_MAX as f64)
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    async fn finish_queue(&self, mut transaction: Transaction, name: &str) -> Result<Changed, StoreError> {
        sqlx::query(RAISE).execute(&mut *transaction).await?;
        let queue = queue_on(&mut transaction, name).await?;
        transaction.commit().await?;
        // What this process fills in from now on is what was just set.
        self.load_queues().await?;
        Ok(queue.map_or(Changed::NotFound, |queue| Changed::Done(Box::new(queue))))
    }
}

/// The revision of a queue that nobody else changes or claims from until the transaction ends, where something is set of it.
async fn lock(connection: &mut PgConnection, name: &str) -> Result<Option<i64>, StoreError> {
    // The head first: two changes at once cannot wait for one another in a circle, whatever they lock besides.
    sqlx::query("select from queue_head for update").execute(&mut *connection).await?;
    Ok(sqlx::query_scalar("select revision from queues where queue = $1 for update")
        .bind(name)
        .fetch_optional(connection)
        .await?)
}

/// Adds a row for a queue that has none.
async fn add(connection: &mut PgConnection, name: &str) -> Result<(), StoreError> {
    let others: i64 = sqlx::query_scalar(
        "select count(*) from (select queue from lanes where id > 0 union select queue from queues) every where queue <> $1",
    )
    .bind(name)
    .fetch_one(&mut *connection)
    .await?;
    if others >= limits::QUEUES_MAX as i64 {
        return Err(StoreError::TooManyQueues);
    }
    sqlx::query("insert into queues (queue, revision) values ($1, 0) on conflict do nothing")
        .bind(name)
        .execute(connection)
        .await?;
    Ok(())
}

async fn queue_on(connection: &mut PgConnection, name: &str) -> Result<Option<Queue>, StoreError> {
    Ok(queues_on(connection, "", Some(name), 1).await?.pop())
}

async fn queues_on(
    connection: &mut PgConnection,
    after: &str,
    name: Option<&str>,
    count: i64,
) -> Result<Vec<Queue>, StoreError> {
    let rows = sqlx::query(LIST).bind(after).bind(name).bind(count).fetch_all(connection).await?;
    let mut queues = Vec::with_capacity(rows.len());
    for row in &rows {
        let name: String = row.try_get("name")?;
        let statuses: Vec<i16> = row.try_get::<Option<_>, _>("statuses")?.unwrap_or_default();
        let counts: Vec<i64> = row.try_get::<Option<_>, _>("counts")?.unwrap_or_default();
        let by_status: BTreeMap<i16, i64> = statuses.into_iter().zip(counts).collect();
        let mut tasks = StatusCounts::default();
        by_status.into_iter().for_each(|(status, n)| *tasks.of_mut(status_from(status)) = n);
        queues.push(match row.try_get::<Option<&str>, _>("queue")? {
            Some(_) => <SetRow as sqlx::FromRow<_>>::from_row(row)?.shown(tasks),
            None => unset(name, tasks),
        });
    }
    Ok(queues)
}
