//! Taking out of a queue what waits there.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::claim::Band;
use crate::database::Store;
use crate::error::StoreError;

/// What a purge came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Purged {
    /// QUEUED tasks that were found.
    pub matched: usize,
    /// Tasks that are CANCELLED now.
    pub cancelled: usize,
    /// There may be more.
    pub more: bool,
}

/// Rows that one statement cancels.
const STEP: usize = 1_000;

const COUNT: &str = "
select count(*) from (
    select from unnest($1::integer[], $2::smallint[]) as b(lane, priority)
           cross join lateral (select from tasks t where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and t.status = 0
                                  and ($3::timestamptz is null or t.created_at < $3) limit $4) t
     limit $4) found";

/// Some tasks of a band that nobody is just claiming. In the order of their ids, as every statement locks rows.
const FOUND: &str = "
select id from tasks
 where id = any(array(select id from tasks t where t.lane = $1 and t.priority = $2 and t.priority >= 0 and t.status = 0
                         and ($3::timestamptz is null or t.created_at < $3) order by t.run_at limit $4))
   and status = 0
 order by id for update skip locked";

impl Store {
    /// Cancels QUEUED tasks of a queue, up to `max` of them; `None` where there is no such queue. `dry_run` only counts them.
    ///
    /// # Errors
    /// When the database is not available: what was cancelled before stays so.
    pub async fn purge_queue(
        &self,
        queue: &str,
        created_before: Option<DateTime<Utc>>,
        max: usize,
        dry_run: bool,
    ) -> Result<Option<Purged>, StoreError> {
        if self.queue(queue).await?.is_none() {
            return Ok(None);
        }
        self.lanes.load(&self.pool).await?;
        let bands: Vec<Band> = Band::of(self.lanes.of_queue(queue)).collect();
        let found = self.count_queued(&bands, created_before, max + 1).await?;
        let mut purged = Purged { matched: found.min(max), cancelled: 0, more: found > max };
        if dry_run {
            return Ok(Some(purged));
        }
        for band in bands {
            loop {
                let step = STEP.min(max - purged.cancelled);
                if step == 0 {
                    return Ok(Some(purged));
                }
                let cancelled = self.purge_step(band, created_before, step).await?;
                purged.cancelled += cancelled;
                if cancelled < step {
                    break;
                }
            }
        }
        // What came meanwhile was found as well.
        purged.matched = purged.matched.max(purged.cancelled);
        Ok(Some(purged))
    }

    async fn count_queued(
        &self,
        bands: &[Band],
        created_before: Option<DateTime<Utc>>,
        max: usize,
    ) -> Result<usize, StoreError> {
        let count: i64 = sqlx::query_scalar(COUNT)
            .bind(bands.iter().map(|band| band.lane).collect::<Vec<_>>())
            .bind(bands.iter().map(|band| band.priority).collect::<Vec<_>>())
            .bind(created_before)
            .bind(max as i64)
            .fetch_one(&self.pool)
            .await?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    async fn purge_step(
        &self,
        band: Band,
        created_before: Option<DateTime<Utc>>,
        max: usize,
    ) -> Result<usize, StoreError> {
        let mut transaction = self.begin().await?;
        let ids: Vec<Uuid> = sqlx::query_scalar(FOUND)
            .bind(band.lane)
            .bind(band.priority)
            .bind(created_before)
            .bind(max as i64)
            .fetch_all(&mut *transaction)
            .await?;
        if ids.is_empty() {
            transaction.rollback().await?;
            return Ok(0);
        }
        let (cancelled, ..): (i64, i64, i64) =
            sqlx::query_as(crate::change::CANCEL).bind(ids).fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        self.events_waiting.notify_one();
        Ok(usize::try_from(cancelled).unwrap_or(0))
    }
}
