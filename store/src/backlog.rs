//! What is due and unclaimed, for `/v1/stats`: looked up at most once a second, along the claim index.
//!
//! Each look begins where the last one found the first such task, so that it does not walk over index entries of tasks that are
//! gone: while somebody holds a transaction open these pile up, and nothing may remove them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgConnection;
use taskmaster_openapi::gateway::Backlog;
use tokio::sync::Mutex;

use crate::claim::Band;
use crate::deep::DeepLooks;
use crate::error::StoreError;
use crate::row::from_row;

/// Due tasks are counted no further than this.
const DUE_COUNTED_MAX: i64 = 10_000;
/// What was found is told again for so long.
const KEPT: Duration = Duration::from_secs(1);
/// A transaction may commit its tasks so long after they became due without being overlooked until the next look from the bottom.
const LATE_COMMIT: TimeDelta = TimeDelta::seconds(2);
/// A look begins at the bottom this often.
const DEEP_EVERY: Duration = Duration::from_secs(60);

/// What is known of one server's backlog.
#[derive(Debug, Default)]
pub(crate) struct Backlogs(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    found: Option<(Instant, Backlog)>,
    /// Nothing unclaimed is due before, by band.
    low_water: HashMap<Band, DateTime<Utc>>,
    deep: DeepLooks,
}

#[derive(Debug)]
struct Look {
    now: DateTime<Utc>,
    due: i64,
    oldest_seconds: f64,
    lanes: Vec<i32>,
    priorities: Vec<i16>,
    heads: Vec<DateTime<Utc>>,
}

from_row!(Look { now, due, oldest_seconds, lanes, priorities, heads });

const LOOK: &str = "
with head as materialized (
    select b.lane, b.priority, h.run_at
      from unnest($1::integer[], $2::smallint[], $3::timestamptz[]) as b(lane, priority, low),
           lateral (select t.run_at from tasks t
                     where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and t.run_at >= b.low
                       and t.run_at <= now() and t.status = 0
                     order by t.run_at limit 1) h
), due as (
    select from head b,
           lateral (select t.run_at from tasks t
                     where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and t.run_at >= b.run_at
                       and t.run_at <= now() and t.status = 0
                     order by t.run_at limit $4 + 1) t
     limit $4 + 1
)
select now() as now, (select count(*) from due) as due,
       coalesce(extract(epoch from now() - min(run_at)), 0)::float8 as oldest_seconds,
       coalesce(array_agg(lane), '{}') as lanes, coalesce(array_agg(priority), '{}') as priorities,
       coalesce(array_agg(run_at), '{}') as heads
  from head";

impl Backlogs {
    /// The backlog of these bands, a second old at most; of a server that is itself behind by `age`, so much older.
    pub async fn get(
        &self,
        connection: &mut PgConnection,
        bands: Vec<Band>,
        age: Duration,
    ) -> Result<Backlog, StoreError> {
        let mut known = self.0.lock().await;
        if let Some((at, backlog)) = &known.found
            && at.elapsed() < KEPT
        {
            return Ok(backlog.clone());
        }
        let began = Instant::now();
        let is_deep = known.deep.is_due(began);
        if is_deep {
            known.low_water.clear();
        }
        let low = bands.iter().map(|band| known.low_water.get(band).copied().unwrap_or(DateTime::UNIX_EPOCH));
        let look: Look = sqlx::query_as(LOOK)
            .bind(bands.iter().map(|band| band.lane).collect::<Vec<_>>())
            .bind(bands.iter().map(|band| band.priority).collect::<Vec<_>>())
            .bind(low.collect::<Vec<_>>())
            .bind(DUE_COUNTED_MAX)
            .fetch_one(connection)
            .await?;
        if is_deep {
            known.deep.looked(began, DEEP_EVERY);
        }
        known.low_water = look.low_water(bands, age);
        let backlog = look.backlog();
        known.found = Some((began, backlog.clone()));
        Ok(backlog)
    }
}

impl Look {
    fn backlog(&self) -> Backlog {
        Backlog {
            due: self.due.min(DUE_COUNTED_MAX),
            due_is_lower_bound: self.due > DUE_COUNTED_MAX,
            oldest_due_seconds: self.oldest_seconds.max(0.0),
        }
    }

    /// Where the next look begins in each band.
    fn low_water(&self, bands: Vec<Band>, age: Duration) -> HashMap<Band, DateTime<Utc>> {
        let settled = self.now - LATE_COMMIT - age;
        let mut marks: HashMap<Band, DateTime<Utc>> = bands.into_iter().map(|band| (band, settled)).collect();
        for ((lane, priority), head) in self.lanes.iter().zip(&self.priorities).zip(&self.heads) {
            marks.insert(Band { lane: *lane, priority: *priority }, settled.min(*head));
        }
        marks
    }
}
