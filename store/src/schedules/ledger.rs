//! What a plan comes to, in the tables: runs with their tasks, and where schedules go on.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::create::stored_sql;
use crate::error::StoreError;
use crate::pool::Transaction;

use super::Clockwork;
use super::plan::{Fate, Plan, wake_at};

/// Runs, each with its task where it has one, and what there is to tell of them. A run that is there already stays, and gets no task;
/// but for one that was left out, when a backfill asks for it.
const KEEP_RUNS: &str = concat!(
    "
with runs as (
    insert into schedule_runs as known (schedule_id, fire_at, kind, state, trigger, run_at, task_id, reason, last_at, n)
    select * from unnest($1::uuid[], $2::timestamptz[], $3::smallint[], $4::smallint[], $5::smallint[], $6::timestamptz[], $7::uuid[],
                         $8::text[], $9::timestamptz[], $10::integer[])
    on conflict (schedule_id, fire_at, kind) do update
       set state = 0, trigger = excluded.trigger, run_at = excluded.run_at, task_id = excluded.task_id, reason = null
     where known.state = 2 and excluded.trigger = 2
    returning schedule_id, state, run_at, task_id
), told as (
    insert into event_inbox (type, schedules, n)
    select case state when 3 then 9 else 10 end, array_agg(schedule_id), count(*) from runs where state in (2, 3) group by state
), input as (
    select r.task_id as id, s.lane, s.priority, r.run_at as at, null::float8 as delay_seconds, s.max_attempts, s.timeout_seconds,
           s.work, s.retry, s.tags, r.schedule_id, s.callbacks, s.flow_key
      from runs r cross join lateral (select * from schedules s where s.id = r.schedule_id limit 1) s
     where r.task_id is not null",
    stored_sql!(", schedule_id, callbacks, flow_key", "", "select (select due from news), count(*) from added")
);

const ADVANCE: &str = "
update schedules s
   set next_fire_at = a.next, wake_at = a.wake_at, is_over = a.next is null, last_fire_at = coalesce(a.fired, s.last_fire_at),
       last_task_id = coalesce(a.task_id, s.last_task_id), waiting_fire_at = coalesce(a.waits, s.waiting_fire_at)
  from unnest($1::uuid[], $2::timestamptz[], $3::timestamptz[], $4::timestamptz[], $5::uuid[], $6::timestamptz[])
    as a(id, next, wake_at, fired, task_id, waits)
 where s.id = a.id";

/// What made a run, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    Schedule = 0,
    Manual = 1,
    Backfill = 2,
}

/// Runs by column.
#[derive(Debug, Default)]
pub(super) struct Runs {
    schedule_id: Vec<Uuid>,
    fire_at: Vec<DateTime<Utc>>,
    kind: Vec<i16>,
    state: Vec<i16>,
    trigger: Vec<i16>,
    run_at: Vec<Option<DateTime<Utc>>>,
    task_id: Vec<Option<Uuid>>,
    reason: Vec<Option<&'static str>>,
    last_at: Vec<Option<DateTime<Utc>>>,
    n: Vec<Option<i32>>,
}

impl Runs {
    /// Gives back the newest occurrence that fires, and its task.
    pub(super) fn push(&mut self, clockwork: &Clockwork, plan: &Plan) -> Option<(DateTime<Utc>, Uuid)> {
        let mut newest = None;
        for (time, fate) in &plan.fates {
            let (kind, state, reason, missed) = match fate {
                Fate::Fire => {
                    let task = Uuid::now_v7();
                    self.fire(clockwork.id, *time, Trigger::Schedule, clockwork.run_at(*time), task);
                    newest = Some((*time, task));
                    continue;
                }
                Fate::Wait => (0, 1, None, None),
                Fate::Skip(reason) => (0, 2, Some(*reason), None),
                Fate::Miss { last, count } => (1, 3, None, Some((*last, i32::try_from(*count).unwrap_or(i32::MAX)))),
            };
            let row = (kind, state, Trigger::Schedule, None, None);
            self.row(clockwork.id, *time, row, reason, missed);
        }
        newest
    }

    /// A run that has a task.
    pub(super) fn fire(&mut self, id: Uuid, time: DateTime<Utc>, by: Trigger, run_at: DateTime<Utc>, task: Uuid) {
        let kind = if by == Trigger::Manual { 2 } else { 0 };
        self.row(id, time, (kind, 0, by, Some(run_at), Some(task)), None, None);
    }

    fn row(
        &mut self,
        id: Uuid,
        time: DateTime<Utc>,
        (kind, state, by, run_at, task): (i16, i16, Trigger, Option<DateTime<Utc>>, Option<Uuid>),
        reason: Option<&'static str>,
        missed: Option<(DateTime<Utc>, i32)>,
    ) {
        self.schedule_id.push(id);
        self.fire_at.push(time);
        self.kind.push(kind);
        self.state.push(state);
        self.trigger.push(by as i16);
        self.run_at.push(run_at);
        self.task_id.push(task);
        self.reason.push(reason);
        self.last_at.push(missed.map(|(last, _)| last));
        self.n.push(missed.map(|(_, count)| count));
    }

    /// Keeps them; gives back how many tasks there are now that were not there.
    pub(super) async fn keep(self, transaction: &mut Transaction) -> Result<i64, StoreError> {
        if self.schedule_id.is_empty() {
            return Ok(0);
        }
        let (due, added): (Option<String>, i64) = sqlx::query_as(KEEP_RUNS)
            .bind(self.schedule_id)
            .bind(self.fire_at)
            .bind(self.kind)
            .bind(self.state)
            .bind(self.trigger)
            .bind(self.run_at)
            .bind(self.task_id)
            .bind(self.reason)
            .bind(self.last_at)
            .bind(self.n)
            .fetch_one(&mut **transaction)
            .await?;
        transaction.due(due.as_deref());
        Ok(added)
    }
}

/// Where schedules go on, by column.
#[derive(Debug, Default)]
pub(super) struct Advances {
    id: Vec<Uuid>,
    next: Vec<Option<DateTime<Utc>>>,
    wake_at: Vec<Option<DateTime<Utc>>>,
    fired: Vec<Option<DateTime<Utc>>>,
    task_id: Vec<Option<Uuid>>,
    waits: Vec<Option<DateTime<Utc>>>,
}

impl Advances {
    pub(super) fn push(&mut self, clockwork: &Clockwork, plan: &Plan, newest: Option<(DateTime<Utc>, Uuid)>) {
        let waits = plan.fates.iter().find(|(_, fate)| *fate == Fate::Wait).map(|(time, _)| *time);
        self.id.push(clockwork.id);
        self.next.push(plan.next);
        self.wake_at.push(plan.next.map(|next| wake_at(next, clockwork.overlap)));
        self.fired.push(newest.map(|(time, _)| time));
        self.task_id.push(newest.map(|(_, task)| task));
        self.waits.push(waits);
    }

    pub(super) async fn keep(self, connection: &mut PgConnection) -> Result<(), StoreError> {
        sqlx::query(ADVANCE)
            .bind(self.id)
            .bind(self.next)
            .bind(self.wake_at)
            .bind(self.fired)
            .bind(self.task_id)
            .bind(self.waits)
            .execute(connection)
            .await?;
        Ok(())
    }
}
