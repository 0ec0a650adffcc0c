//! Recording what workers report. Every write names the claim and the worker it speaks for: what does not match the row
//! changes nothing, and is answered with the reason.

use std::collections::HashMap;
use std::time::Duration;

use rand::Rng;
use sqlx::PgConnection;
use sqlx::types::Json;
use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, RetryPolicy, TaskError};
use uuid::Uuid;

use crate::create::to_json;
use crate::database::Store;
use crate::detached;
use crate::error::StoreError;
use crate::news::news_sql;
use crate::pool::Transaction;
use crate::row::from_row;
use crate::rules::{self, Happening, Next, Standing, Verdict};

/// A report, and the worker whose it is.
#[derive(Debug, Clone)]
pub struct WorkerReport {
    pub worker_id: String,
    pub report: StatusReport,
}

/// What a report speaks of, and for whom.
type Key = (TaskClaim, String);

impl WorkerReport {
    fn claim(&self) -> TaskClaim {
        TaskClaim { task_id: self.report.task_id, claim: self.report.claim }
    }

    fn key(&self) -> Key {
        (self.claim(), self.worker_id.clone())
    }
}

/// Elapsed times are believed up to a year: longer ones would leave the range of timestamps.
const ELAPSED_MS_MAX: u64 = 31_536_000_000;

fn elapsed_ms(reported: Option<u64>) -> Option<f64> {
    reported.map(|ms| ms.min(ELAPSED_MS_MAX) as f64)
}

/// What became of a batch of reports: a result each, in order.
#[derive(Debug, Clone, Default)]
pub struct Recorded {
    pub results: Vec<ReportResult>,
}

/// Starts and successes, of any number of tasks, in one statement. A success takes the row out of `tasks` and puts it into the
/// history; a STARTED that was never reported is implied by it, as an event too.
///
/// Tasks are joined by `t.id = any(array[x.id])`, which says no more than `t.id = x.id`, but leaves one way to do it: a look into
/// the index for each. A plan that is made while the table is empty, and kept, would read all of it otherwise, by the index, and
/// compare each row with each.
const START_AND_COMPLETE: &str = "
with start as (
    select * from unnest($1::uuid[], $2::bigint[], $3::text[], $4::float8[]) as r(id, claim, worker_id, started_ms)
), started as (
    update tasks t
       set status = 2, attempt = t.attempt + 1,
           started_at = greatest(t.picked_at, now() - coalesce(r.started_ms, 0) * interval '1 millisecond')
      from start r
     where t.id = any(array[r.id]) and t.claim = r.claim and t.worker_id = r.worker_id and t.status = 1
    returning t.id, t.claim, t.lane, t.attempt, t.worker_id, t.cancel_requested_at is not null as cancel_requested
), done as (
    select * from unnest($5::uuid[], $6::bigint[], $7::text[], $8::float8[], $9::float8[], $10::text[])
      as r(id, claim, worker_id, started_ms, ended_ms, result)
), gone as (
    delete from tasks t using done r
     where t.id = any(array[r.id]) and t.claim = r.claim and t.worker_id = r.worker_id and t.status in (1, 2)
    returning t.*, r.started_ms, r.ended_ms, r.result as new_result, (t.status = 1)::int as unstarted
), kept as (
    insert into task_history (id, finished_at, run_at, created_at, scheduled_at, claim, picked_at, started_at,
        cancel_requested_at, lane, timeout_seconds, priority, status, attempt, max_attempts, hand_backs, lost_workers,
        worker_id, work, retry, tags, result, error, schedule_id, callbacks, flow_key, trace)
    select id, greatest(s.started_at, now() - coalesce(ended_ms, 0) * interval '1 millisecond'), run_at, created_at,
        scheduled_at, claim, picked_at, s.started_at, cancel_requested_at, lane, timeout_seconds, priority, 3,
        attempt + unstarted, max_attempts, hand_backs, lost_workers, worker_id, work, retry, tags, new_result::json, null, schedule_id,
        callbacks, flow_key, trace
      from gone, lateral (select coalesce(gone.started_at,
        greatest(picked_at, now() - coalesce(started_ms, 0) * interval '1 millisecond')) as started_at) s
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, workers, n)
    select type, from_status, to_status, array_agg(id), array_agg(lane), array_agg(attempt), array_agg(worker_id), count(*)
      from (select 2 as type, 1 as from_status, 2 as to_status, id, lane, attempt, worker_id from started
            union all
            select 2, 1, 2, id, lane, (attempt + 1)::smallint, worker_id from gone where unstarted = 1
            union all
            select 3, 2, 3, id, lane, (attempt + unstarted)::smallint, worker_id from gone) e
     where lane > 0
     group by type, from_status, to_status order by type
)
select id, claim, worker_id, cancel_requested from started union all select id, claim, worker_id, false from gone";

/// The rows of tasks that may change, locked in one order, so that batches cannot wait for one another in a circle.
const LOCK: &str = "
select t.id, t.claim, t.status, t.attempt, t.max_attempts, t.lost_workers, t.cancel_requested_at is not null as cancel_requested,
       t.retry, t.worker_id
  from (select distinct id from unnest($1::uuid[]) as w(id) order by id) w join tasks t on t.id = any(array[w.id])
 where t.status in (1, 2)
   for update of t";

/// Carries out verdicts on locked rows. Attempts that are not the last get a row of their own. What was claimed ahead of its time
/// keeps its time.
const SETTLE: &str = concat!(
    "
with verdict as (
    select * from unnest($1::uuid[], $2::smallint[], $3::float8[], $4::smallint[], $5::smallint[], $6::boolean[],
                         $7::float8[], $8::float8[], $9::text[], $10::text[], $11::boolean[])
      as v(id, next, delay_seconds, attempt, lost_workers, hand_back, started_ms, ended_ms, result, error, tried)
), before as materialized (
    select t.*, v.next, v.delay_seconds, v.attempt as new_attempt, v.lost_workers as new_lost_workers, v.hand_back,
           v.result as new_result, v.error as new_error, v.tried,
           coalesce(t.started_at, case when v.tried then
               greatest(t.picked_at, now() - coalesce(v.started_ms, 0) * interval '1 millisecond') end) as new_started_at,
           greatest(t.picked_at, now() - coalesce(v.ended_ms, 0) * interval '1 millisecond') as asked_ended_at
      from verdict v join tasks t on t.id = any(array[v.id])
), attempted as (
    insert into attempts (task_id, claim, ended_at, picked_at, started_at, attempt, status, worker_id, result, error)
    select id, claim, greatest(new_started_at, asked_ended_at), picked_at, new_started_at,
           greatest(new_attempt, case when status = 2 then attempt else attempt + 1 end), 4, worker_id, new_result::json, new_error::json
      from before where next = 0 and tried
), again as (
    update tasks t
       set status = 0, run_at = greatest(t.run_at, now() + b.delay_seconds * interval '1 second'), attempt = b.new_attempt,
           lost_workers = b.new_lost_workers, hand_backs = t.hand_backs + b.hand_back::int,
           started_at = coalesce(b.new_started_at, t.started_at),
           result = case when b.tried then b.new_result::json else t.result end,
           error = case when b.tried then b.new_error::json else t.error end
      from before b where t.id = any(array[b.id]) and b.next = 0
    returning t.id, t.lane, t.priority, t.run_at
), gone as (
    delete from tasks t using before b where t.id = any(array[b.id]) and b.next > 0 returning t.id
), kept as (
    insert into task_history (id, finished_at, run_at, created_at, scheduled_at, claim, picked_at, started_at,
        cancel_requested_at, lane, timeout_seconds, priority, status, attempt, max_attempts, hand_backs, lost_workers,
        worker_id, work, retry, tags, result, error, schedule_id, callbacks, flow_key, trace)
    select b.id, greatest(b.new_started_at, b.asked_ended_at), b.run_at, b.created_at, b.scheduled_at, b.claim,
        b.picked_at, b.new_started_at, b.cancel_requested_at, b.lane, b.timeout_seconds, b.priority,
        case b.next when 1 then 4 else 5 end, b.new_attempt, b.max_attempts, b.hand_backs + b.hand_back::int, b.new_lost_workers,
        b.worker_id, b.work, b.retry, b.tags, coalesce(b.new_result::json, b.result), coalesce(b.new_error::json, b.error),
        b.schedule_id, b.callbacks, b.flow_key, b.trace
      from before b join gone g on g.id = b.id
), failed as (
    insert into schedule_failures (schedule_id) select schedule_id from before where next = 1 and schedule_id is not null
), noted as (
    insert into event_inbox (type, from_status, to_status, task_ids, lanes, attempts, workers, n)
    select type, from_status, to_status, array_agg(id), array_agg(lane), array_agg(attempt), array_agg(worker_id), count(*)
      from (select 2 as type, 1 as from_status, 2 as to_status, id, lane, new_attempt as attempt, worker_id
              from before where status = 1 and tried
            union all
            select (array [4, 5, 6])[next + 1], case when tried then 2 else status end, (array [0, 4, 5])[next + 1], id, lane,
                   new_attempt, worker_id from before) e
     where lane > 0
     group by type, from_status, to_status order by type
), ",
    news_sql!("again", "null::bigint"),
    "
select (select due from news), count(*) from before"
);

/// A claimed task, as far as it decides how it goes on.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub id: Uuid,
    pub claim: i64,
    pub status: i16,
    pub attempt: i16,
    pub max_attempts: i16,
    pub lost_workers: i16,
    pub cancel_requested: bool,
    pub retry: Option<Json<RetryPolicy>>,
    pub worker_id: String,
}

from_row!(Held { id, claim, status, attempt, max_attempts, lost_workers, cancel_requested, retry, worker_id });

impl Held {
    pub fn is_started(&self) -> bool {
        self.status == 2
    }

    fn standing(&self) -> Standing {
        Standing {
            started: self.is_started(),
            attempt: self.attempt,
            max_attempts: self.max_attempts,
            lost_workers: self.lost_workers,
            cancel_requested: self.cancel_requested,
            retry: self.retry.as_ref().map(|policy| policy.0.clone()).unwrap_or_default(),
        }
    }
}

/// What happened to one held task, and what is to be kept of it.
#[derive(Debug, Clone)]
pub(crate) struct Incident {
    pub held: Held,
    pub happening: Happening,
    pub started_ms: Option<f64>,
    pub ended_ms: Option<f64>,
    pub result: Option<String>,
    pub error: Option<TaskError>,
}

impl Store {
    /// Records a batch of reports. All of it, or none when it fails.
    ///
    /// # Errors
    /// When the database is not available: send the batch again.
    pub async fn record(&self, reports: &[WorkerReport]) -> Result<Recorded, StoreError> {
        let plan = Plan::of(reports);
        let mut touched = HashMap::with_capacity(reports.len());
        if plan.slow.is_empty() {
            // One statement is a transaction by itself.
            let alone = async |connection: &mut PgConnection| start_and_complete(connection, &plan, &mut touched).await;
            self.pool.ask(alone).await?;
        } else {
            let mut transaction = self.begin().await?;
            start_and_complete(&mut transaction, &plan, &mut touched).await?;
            settle_reports(&mut transaction, &plan.slow, &mut touched).await?;
            transaction.commit().await?;
        }
        self.events_waiting.notify_one();
        let untouched: Vec<&WorkerReport> = reports.iter().filter(|r| !touched.contains_key(&r.key())).collect();
        let reasons = match untouched.is_empty() {
            true => HashMap::new(),
            false => self.why_untouched(&untouched).await?,
        };
        let results = reports.iter().map(|report| answer(report, &touched, &reasons)).collect();
        Ok(Recorded { results })
    }
}

async fn start_and_complete(
    connection: &mut PgConnection,
    plan: &Plan<'_>,
    touched: &mut HashMap<Key, bool>,
) -> Result<(), StoreError> {
    if plan.quick.is_empty() {
        return Ok(());
    }
    let (mut start, mut done) = (Arrays::default(), Arrays::default());
    for report in &plan.quick {
        match report.report.status {
            ReportStatus::Started | ReportStatus::Detached => start.push(report)?,
            _ => done.push(report)?,
        }
    }
    let rows: Vec<(Uuid, i64, String, bool)> = sqlx::query_as(START_AND_COMPLETE)
        .bind(start.id)
        .bind(start.claim)
        .bind(start.worker_id)
        .bind(start.started_ms)
        .bind(done.id)
        .bind(done.claim)
        .bind(done.worker_id)
        .bind(done.started_ms)
        .bind(done.ended_ms)
        .bind(done.result)
        .fetch_all(connection)
        .await?;
    touched.extend(
        rows.into_iter().map(|(task_id, claim, worker_id, stop)| ((TaskClaim { task_id, claim }, worker_id), stop)),
    );
    Ok(())
}

async fn settle_reports(
    transaction: &mut Transaction,
    reports: &[&WorkerReport],
    touched: &mut HashMap<Key, bool>,
) -> Result<(), StoreError> {
    let ids: Vec<Uuid> = reports.iter().map(|r| r.report.task_id).collect();
    let held = lock(transaction, &ids).await?;
    let theirs = reports.iter().filter_map(|report| {
        let held = held.get(&report.report.task_id)?;
        let is_theirs = held.claim == report.report.claim && held.worker_id == report.worker_id;
        is_theirs.then(|| (*report, held.clone()))
    });
    let (detached, ended): (Vec<_>, Vec<_>) =
        theirs.partition(|(report, _)| report.report.status == ReportStatus::Detached);
    touched.extend(ended.iter().map(|(report, _)| (report.key(), false)));
    let incidents: Result<Vec<Incident>, StoreError> =
        ended.into_iter().map(|(report, held)| incident(held, &report.report)).collect();
    settle(transaction, &incidents?).await?;
    let (detached, waiting): (Vec<&WorkerReport>, Vec<Held>) = detached.into_iter().unzip();
    let new = detached::detach(transaction, &waiting).await?;
    let recorded = detached.into_iter().filter(|report| new.contains(&report.report.task_id));
    touched.extend(recorded.map(|report| (report.key(), false)));
    Ok(())
}

/// The rows of these tasks that are claimed, locked until the transaction ends.
pub(crate) async fn lock(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashMap<Uuid, Held>, StoreError> {
    let held: Vec<Held> = sqlx::query_as(LOCK).bind(ids).fetch_all(connection).await?;
    Ok(held.into_iter().map(|held| (held.id, held)).collect())
}

/// Decides on each incident, and carries it out. The rows must be locked.
pub(crate) async fn settle(transaction: &mut Transaction, incidents: &[Incident]) -> Result<(), StoreError> {
    if incidents.is_empty() {
        return Ok(());
    }
    let mut columns = Verdicts::default();
    for incident in incidents {
        let random = rand::rng().random::<f64>();
        columns.push(incident, rules::settle(&incident.held.standing(), incident.happening, random))?;
    }
    let (due, _): (Option<String>, i64) = sqlx::query_as(SETTLE)
        .bind(columns.id)
        .bind(columns.next)
        .bind(columns.delay_seconds)
        .bind(columns.attempt)
        .bind(columns.lost_workers)
        .bind(columns.hand_back)
        .bind(columns.started_ms)
        .bind(columns.ended_ms)
        .bind(columns.result)
        .bind(columns.error)
        .bind(columns.tried)
        .fetch_one(&mut **transaction)
        .await?;
    transaction.due(due.as_deref());
    Ok(())
}

/// The reports of a batch, sorted by what they need; of several for one claim the last word counts.
#[derive(Debug, Default)]
struct Plan<'a> {
    /// Starts and successes: one statement, no reading.
    quick: Vec<&'a WorkerReport>,
    /// All that needs a decision.
    slow: Vec<&'a WorkerReport>,
}

impl<'a> Plan<'a> {
    fn of(reports: &'a [WorkerReport]) -> Self {
        let mut last: HashMap<Key, &WorkerReport> = HashMap::with_capacity(reports.len());
        for report in reports {
            let word = last.entry(report.key()).or_insert(report);
            if word.report.status == ReportStatus::Started {
                *word = report;
            }
        }
        let mut plan = Plan::default();
        for report in last.into_values() {
            match report.report.status {
                ReportStatus::Started | ReportStatus::Complete => plan.quick.push(report),
                ReportStatus::Failed | ReportStatus::Cancelled | ReportStatus::Released => plan.slow.push(report),
                // Implies a start, which is then like any other.
                ReportStatus::Detached => {
                    plan.quick.push(report);
                    plan.slow.push(report);
                }
            }
        }
        // One order for all batches, so that they cannot wait for one another in a circle.
        plan.quick.sort_unstable_by_key(|r| r.report.task_id);
        plan
    }
}

fn incident(held: Held, report: &StatusReport) -> Result<Incident, StoreError> {
    let worker_lost = report.error.as_ref().is_some_and(|error| error.code == ErrorCode::WorkerLost);
    let happening = match report.status {
        ReportStatus::Released => match report.retry_after_ms {
            Some(ms) => Happening::PutOff(Duration::from_millis(ms)),
            None => Happening::HandedBack,
        },
        ReportStatus::Cancelled => Happening::Stopped,
        _ if worker_lost => Happening::WorkerLost,
        _ => Happening::Failed {
            permanent: report.permanent,
            retry_after: report.retry_after_ms.map(Duration::from_millis),
        },
    };
    let error = match (&report.error, report.status) {
        (Some(error), _) => Some(error.clone()),
        (None, ReportStatus::Released) => None,
        (None, ReportStatus::Cancelled) => Some(TaskError {
            code: ErrorCode::Cancelled,
            message: "the attempt was stopped because a cancel was asked for".into(),
        }),
        (None, _) => Some(TaskError { code: ErrorCode::WorkerError, message: "the worker gave no reason".into() }),
    };
    Ok(Incident {
        held,
        happening,
        started_ms: elapsed_ms(report.started_ms_ago),
        ended_ms: elapsed_ms(report.ended_ms_ago),
        result: report.result.as_ref().map(to_json).transpose()?,
        error,
    })
}

/// Reports by column.
#[derive(Debug, Default)]
struct Arrays {
    id: Vec<Uuid>,
    claim: Vec<i64>,
    worker_id: Vec<String>,
    started_ms: Vec<Option<f64>>,
    ended_ms: Vec<Option<f64>>,
    result: Vec<Option<String>>,
}

impl Arrays {
    fn push(&mut self, report: &WorkerReport) -> Result<(), StoreError> {
        let WorkerReport { worker_id, report } = report;
        self.id.push(report.task_id);
        self.claim.push(report.claim);
        self.worker_id.push(worker_id.clone());
        self.started_ms.push(elapsed_ms(report.started_ms_ago));
        self.ended_ms.push(elapsed_ms(report.ended_ms_ago));
        self.result.push(report.result.as_ref().map(to_json).transpose()?);
        Ok(())
    }
}

/// Verdicts by column.
#[derive(Debug, Default)]
struct Verdicts {
    id: Vec<Uuid>,
    next: Vec<i16>,
    delay_seconds: Vec<f64>,
    attempt: Vec<i16>,
    lost_workers: Vec<i16>,
    hand_back: Vec<bool>,
    started_ms: Vec<Option<f64>>,
    ended_ms: Vec<Option<f64>>,
    result: Vec<Option<String>>,
    error: Vec<Option<String>>,
    tried: Vec<bool>,
}

impl Verdicts {
    fn push(&mut self, incident: &Incident, verdict: Verdict) -> Result<(), StoreError> {
        let (next, delay) = match verdict.next {
            Next::Again(delay) => (0, delay),
            Next::Failed => (1, Duration::ZERO),
            Next::Cancelled => (2, Duration::ZERO),
        };
        // An attempt that nobody saw begin leaves no record of its own.
        let tried = match incident.happening {
            Happening::HandedBack | Happening::PutOff(_) => false,
            Happening::WorkerLost => incident.held.status == 2,
            Happening::Failed { .. } | Happening::Stopped => true,
        };
        self.id.push(incident.held.id);
        self.next.push(next);
        self.delay_seconds.push(delay.as_secs_f64());
        self.attempt.push(verdict.attempt);
        self.lost_workers.push(verdict.lost_workers);
        self.hand_back.push(verdict.hand_back);
        self.started_ms.push(incident.started_ms);
        self.ended_ms.push(incident.ended_ms);
        self.result.push(incident.result.clone());
        self.error.push(incident.error.as_ref().map(to_json).transpose()?);
        self.tried.push(tried);
        Ok(())
    }
}

impl Store {
    /// Why reports changed nothing.
    async fn why_untouched(&self, reports: &[&WorkerReport]) -> Result<HashMap<Key, ReportCode>, StoreError> {
        let ids: Vec<Uuid> = reports.iter().map(|r| r.report.task_id).collect();
        let rows: Vec<(Uuid, i64, Option<String>, i16)> = sqlx::query_as(
            "select id, claim, worker_id, status from tasks where id = any($1)
         union all
         select id, claim, worker_id, status from task_history where id = any($1)",
        )
        .bind(ids)
        .fetch_all(&self.pool)
        .await?;
        let rows: HashMap<Uuid, _> =
            rows.into_iter().map(|(id, claim, worker, status)| (id, (claim, worker, status))).collect();
        let reason = |report: &WorkerReport| match rows.get(&report.report.task_id) {
            None => ReportCode::UnknownTask,
            Some((claim, _, _)) if report.report.claim < *claim => ReportCode::StaleClaim,
            Some((claim, worker, _))
                if report.report.claim > *claim || worker.as_deref() != Some(&report.worker_id) =>
            {
                ReportCode::NotYourTask
            }
            // QUEUED again: the claim was taken back.
            Some((_, _, 0)) => ReportCode::StaleClaim,
            Some(_) => ReportCode::AlreadyRecorded,
        };
        Ok(reports.iter().map(|r| (r.key(), reason(r))).collect())
    }
}

fn answer(report: &WorkerReport, touched: &HashMap<Key, bool>, reasons: &HashMap<Key, ReportCode>) -> ReportResult {
    let (key, claim) = (report.key(), report.claim());
    match (touched.get(&key), reasons.get(&key)) {
        (Some(stop), _) => ReportResult { stop: *stop, ..ReportResult::new(claim, ReportCode::Recorded) },
        (None, Some(code)) => ReportResult::new(claim, *code),
        (None, None) => ReportResult::new(claim, ReportCode::NotRecorded),
    }
}
