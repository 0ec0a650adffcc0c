//! Claiming due tasks for workers.
//!
//! A *band* is a lane and a priority: one range of the index `tasks_due`, which is for statements that say `priority >= 0`. A
//! claim looks only at the bands it is given, each from a low-water mark upwards, so that its cost does not grow with what was
//! claimed before, nor with what is not due yet.

use chrono::{DateTime, Utc};
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use taskmaster_openapi::task::Work;
use uuid::Uuid;

use crate::database::Store;
use crate::error::StoreError;
pub use crate::lanes::{Kind, Labels, Lane, LaneKey, is_system};
use crate::trace;
use crate::wakeup::Channel;

/// A lane and a priority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Band {
    pub lane: i32,
    pub priority: i16,
}

/// The priorities that tasks have (see the contract); those of system queues have the first only.
const PRIORITIES: [i16; 10] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];

impl Band {
    /// Every band that there can be of the lanes with these ids.
    pub fn of(lanes: impl IntoIterator<Item = i32>) -> impl Iterator<Item = Self> {
        let priorities = |lane| if is_system(lane) { &PRIORITIES[..1] } else { &PRIORITIES[..] };
        lanes
            .into_iter()
            .flat_map(move |lane| priorities(lane).iter().map(move |priority| Self { lane, priority: *priority }))
    }
}

/// A place in the order of a band. The id too: what is created together is due at the same moment, and the tasks of one batch that
/// others have claimed need not be walked over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub run_at: DateTime<Utc>,
    pub id: Uuid,
}

impl Mark {
    /// Before whatever is due then, or later.
    pub const fn at(run_at: DateTime<Utc>) -> Self {
        Self { run_at, id: Uuid::nil() }
    }
}

/// A band, and where the unclaimed tasks in it begin.
#[derive(Debug, Clone, Copy)]
pub struct BandFrom {
    pub band: Band,
    /// Nothing unclaimed comes before; `None` looks from the bottom.
    pub low_water: Option<Mark>,
    /// Tasks that are claimed at most.
    pub max: usize,
}

/// A task that was claimed.
#[derive(Debug, Clone)]
pub struct ClaimedTask {
    pub task_id: Uuid,
    /// The claim number, which every later write names.
    pub claim: i64,
    pub band: Band,
    pub run_at: DateTime<Utc>,
    /// Which of the seats it was given.
    pub seat: usize,
    /// The number of the attempt that begins when it is started.
    pub attempt: i16,
    /// Milliseconds until it is due, at the moment the database answered; below 0 when it is late.
    pub due_in_ms: f64,
    pub timeout_seconds: i32,
    pub work: Work,
    /// The attempt's `traceparent` and `tracestate`, where the task is part of a trace.
    pub trace: Option<(String, Option<String>)>,
}

/// What a claim brought.
#[derive(Debug, Clone)]
pub struct Claimed {
    pub tasks: Vec<ClaimedTask>,
    /// The database's clock when the statement began.
    pub now: DateTime<Utc>,
    /// Nothing was claimed because something has been set of a queue that is not known here: see [`Store::load_queues`].
    pub is_stale: bool,
    /// Lanes with tasks that are due, and that the limits of their queue hold back.
    pub held_back: Vec<HeldBack>,
}

/// A lane that waits for room in its queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeldBack {
    pub lane: i32,
    /// There may be room in so many milliseconds.
    pub ms: f64,
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub coordinator_id: Uuid,
    /// Of what is set of queues, as far as is known.
    pub version: i64,
    pub bands: &'a [BandFrom],
    /// Lanes of queues with limits.
    pub counted: &'a [i32],
    pub workers: &'a [String],
    /// Places among `workers`.
    pub seats: &'a [usize],
    pub horizon_ms: f64,
}

/// Waiting raises a task's priority by one in so many seconds.
pub const AGING_SECONDS: f64 = 60.0;

/// The bands are taken by the priority of the task that waits longest in each, aged; the range of each is walked from its head,
/// no further than there are seats, past what others hold locked. The rows found are updated by their place (ctid): a HOT
/// update, since no indexed column changes. The claim is a row of its own, whose number is the fence.
///
/// Measured alternatives: an index that descends by priority, with one range for all, is an order of magnitude slower once
/// dead rows pile up; joining by id instead of ctid costs a third more.
///
/// Nothing is claimed by a version of what is set of queues that is not the newest. What is in flight of queues with limits is counted: their
/// tasks are in a claim of their own, which names its lanes, so that others need not be looked through.
const CLAIM: &str = "
with band as materialized (
    select b.lane, b.priority, b.max, head.run_at as head, head.id as head_id
      from unnest($1::integer[], $2::smallint[], $3::timestamptz[], $12::uuid[], $9::integer[]) as b(lane, priority, low, low_id, max),
           lateral (select t.run_at, t.id from tasks t
                     where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and (t.run_at, t.id) >= (b.low, b.low_id)
                       and t.run_at <= now() + $6 * interval '1 millisecond' and t.status = 0
                     order by t.run_at, t.id limit 1) head
     where $10 = (select version from queue_head)
), found as materialized (
    select due.place
      from (select * from band order by priority + floor(extract(epoch from now() - head) / $7) desc, head) b,
           lateral (select t.ctid as place from tasks t
                     where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and (t.run_at, t.id) >= (b.head, b.head_id)
                       and t.run_at <= now() + $6 * interval '1 millisecond' and t.status = 0
                     order by t.run_at, t.id limit least(cardinality($4::integer[]), b.max)
                       for update skip locked) due
     limit cardinality($4::integer[])
), seated as materialized (
    select place, row_number() over () as seat from found
), number as materialized (
    select nextval(pg_get_serial_sequence('claims', 'id')) as claim,
           case when cardinality($11::integer[]) > 0 then nextval(pg_get_serial_sequence('claims', 'id')) end as counted
     where exists (select from seated)
), picked as (
    update tasks t
       set status = 1, claim = case when t.lane = any($11) then number.counted else number.claim end,
           worker_id = ($8::text[])[($4::integer[])[seated.seat]], picked_at = now(), started_at = null
      from seated, number
     where t.ctid = seated.place
    returning t.id, t.lane, t.priority, t.run_at, t.attempt, t.timeout_seconds, t.work, t.trace, t.worker_id, t.claim, seated.seat
), recorded as (
    insert into claims (id, coordinator_id, task_ids, lanes) overriding system value
    select claim, $5, array_agg(id), case when bool_or(lane = any($11)) then array_agg(distinct lane) end from picked group by claim
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, workers, n)
    select 1, 0, 1, array_agg(id), array_agg(lane), array_agg((attempt + 1)::smallint), array_agg(worker_id), count(*)
      from picked where lane > 0 having count(*) > 0
)
select h.version, now() as now, p.id, p.lane, p.priority, p.run_at, p.attempt, p.timeout_seconds, p.work, p.trace, p.claim, p.seat,
       (extract(epoch from p.run_at - clock_timestamp()) * 1000)::float8 as due_in_ms
  from queue_head h left join picked p on true";

impl Store {
    /// Claims due tasks for workers: at most one a seat, and within the limits of queues. The first seat gets the task that is first in line.
    /// Each seat is a place among `workers`; one worker may have several. Tasks count as due `horizon_ms` before their time.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn claim(
        &self,
        coordinator_id: Uuid,
        bands: &[BandFrom],
        workers: &[String],
        seats: &[usize],
        horizon_ms: f64,
    ) -> Result<Claimed, StoreError> {
        let version = self.queue_book().version;
        let asked = Asked { coordinator_id, version, bands, counted: &[], workers, seats, horizon_ms };
        let limited = self.limited_among(bands);
        let claimed = match limited.is_empty() {
            true => self.pool.ask(async |connection| claim_on(connection, &asked).await).await?,
            false => self.claim_within_limits(&asked, limited).await?,
        };
        if !claimed.tasks.is_empty() {
            self.events_waiting.notify_one();
        }
        Ok(claimed)
    }

    /// When the next task of each band is due, in milliseconds from now (below 0 when it is late), looking `ahead_ms` into the
    /// future. Bands without one are left out.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn next_due(&self, bands: &[BandFrom], ahead_ms: f64) -> Result<Vec<(Band, f64)>, StoreError> {
        let (lanes, priorities, low, low_ids) = columns(bands);
        let rows: Vec<(i32, i16, f64)> = sqlx::query_as(
            "select b.lane, b.priority, (extract(epoch from head.run_at - clock_timestamp()) * 1000)::float8
               from unnest($1::integer[], $2::smallint[], $3::timestamptz[], $5::uuid[]) as b(lane, priority, low, low_id),
                    lateral (select t.run_at from tasks t
                              where t.lane = b.lane and t.priority = b.priority and t.priority >= 0 and (t.run_at, t.id) >= (b.low, b.low_id)
                                and t.run_at <= now() + $4 * interval '1 millisecond' and t.status = 0
                              order by t.run_at, t.id limit 1) head",
        )
        .bind(lanes)
        .bind(priorities)
        .bind(low)
        .bind(ahead_ms)
        .bind(low_ids)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(lane, priority, ms)| (Band { lane, priority }, ms)).collect())
    }

    /// Every lane there is.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.lanes.load(&self.pool).await?;
        Ok(self.lanes.all())
    }

    /// Tells coordinators what may be claimed: see [`Channel::Due`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn tell_due(&self, what: &str) -> Result<(), StoreError> {
        self.notify(&[Channel::Due.name()], &[what]).await
    }

    /// Forgets these claims: the database itself has confirmed, for each of their tasks, that it was taken out of flight.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn forget_claims(&self, claims: &[i64]) -> Result<(), StoreError> {
        sqlx::query("delete from claims where id = any($1)").bind(claims).execute(&self.pool).await?;
        Ok(())
    }

    /// Forgets those of these claims of which no worker has anything any more. The caller's account may be wrong (an answer was lost,
    /// a worker lied): a claim that is forgotten too early would leave tasks that nobody finds.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn forget_ended_claims(&self, claims: &[i64]) -> Result<(), StoreError> {
        sqlx::query(
            "delete from claims c
              where c.id = any($1)
                and not exists (select from unnest(c.task_ids) as x(id), lateral (select from tasks t
                                 where t.id = x.id and t.claim = c.id and t.status in (1, 2)
                                   and not exists (select from detached d where d.task_id = t.id and d.claim = t.claim) limit 1) t)",
        )
        .bind(claims)
        .execute(&self.pool)
        .await?;
        Ok(())
    }
}

/// Bands as statements take them: lanes, priorities, and the two parts of where each begins.
type Columns = (Vec<i32>, Vec<i16>, Vec<DateTime<Utc>>, Vec<Uuid>);

pub(crate) fn columns(bands: &[BandFrom]) -> Columns {
    let row = |BandFrom { band, low_water, .. }: &BandFrom| {
        let Mark { run_at, id } = low_water.unwrap_or(Mark::at(DateTime::UNIX_EPOCH));
        (band.lane, band.priority, run_at, id)
    };
    bands.iter().map(row).collect()
}

/// The statement, for what is asked.
pub(crate) async fn claim_on(connection: &mut PgConnection, asked: &Asked<'_>) -> Result<Claimed, StoreError> {
    let (lanes, priorities, low, low_ids) = columns(asked.bands);
    let max: Vec<i32> = asked.bands.iter().map(|b| i32::try_from(b.max).unwrap_or(i32::MAX)).collect();
    // Arrays begin at 1 there. A place in one of texts is found by walking there: so each worker is in it once.
    let seats: Vec<i32> = asked.seats.iter().map(|place| *place as i32 + 1).collect();
    let rows = sqlx::query(CLAIM)
        .bind(lanes)
        .bind(priorities)
        .bind(low)
        .bind(seats)
        .bind(asked.coordinator_id)
        .bind(asked.horizon_ms)
        .bind(AGING_SECONDS)
        .bind(asked.workers)
        .bind(max)
        .bind(asked.version)
        .bind(asked.counted)
        .bind(low_ids)
        .fetch_all(connection)
        .await?;
    let mut claimed = Claimed {
        tasks: Vec::with_capacity(rows.len()),
        now: DateTime::UNIX_EPOCH,
        is_stale: false,
        held_back: Vec::new(),
    };
    for row in rows {
        claimed.now = row.try_get("now")?;
        claimed.is_stale = row.try_get::<i64, _>("version")? != asked.version;
        let Some(task_id) = row.try_get("id")? else { continue };
        let Json(work): Json<Work> = row.try_get("work")?;
        let (claim, kept): (i64, Option<&str>) = (row.try_get("claim")?, row.try_get("trace")?);
        claimed.tasks.push(ClaimedTask {
            task_id,
            claim,
            trace: kept.and_then(|kept| trace::of_attempt(kept, task_id, claim)),
            band: Band { lane: row.try_get("lane")?, priority: row.try_get("priority")? },
            run_at: row.try_get("run_at")?,
            seat: usize::try_from(row.try_get::<i64, _>("seat")? - 1).unwrap_or_default(),
            attempt: row.try_get::<i16, _>("attempt")? + 1,
            due_in_ms: row.try_get("due_in_ms")?,
            timeout_seconds: row.try_get("timeout_seconds")?,
            work,
        });
    }
    Ok(claimed)
}
