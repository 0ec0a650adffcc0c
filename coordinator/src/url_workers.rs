//! Workers that are only a URL. Each is looked after by one coordinator, which adopts it, signs it in among its workers, calls it once for
//! every task, and takes the answer for the outcome. When that coordinator dies another adopts it, and what was in flight is lost, as with
//! any worker that dies.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_openapi::report::{ReportCode, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::worker::SubmitTaskRequest;
use taskmaster_service::Shutdown;
use taskmaster_service::pause::Pause;
use taskmaster_store::StoreError;
use taskmaster_store::fleet::Beat;
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::url_workers::Adopted;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::coordinator::{Coordinator, Line, Parcel};
use crate::fleet::Sign;
use crate::url_calls::{Called, report};

/// A call that lasts longer has been taken, since no connection takes so long to be made: the task is STARTED.
const TAKEN_AFTER: Duration = Duration::from_millis(2_500);
/// A URL that does not take its calls is called again after so long, and then after twice as long each time.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Between tries to record an outcome; and for how long it is tried.
const RECORD_PAUSE_FIRST: Duration = Duration::from_millis(100);
const RECORD_PAUSE_MAX: Duration = Duration::from_secs(2);
const RECORDED_WITHIN: Duration = Duration::from_secs(600);
/// While this coordinator ends, others are told this often that its calls go on.
const STAY_EVERY: Duration = Duration::from_secs(1);

/// What is known of the URLs that this coordinator looks after.
#[derive(Debug, Default)]
pub(crate) struct Urls {
    known: HashMap<String, Reach>,
    /// Calls in progress, and what ends each.
    calls: HashMap<TaskClaim, CancellationToken>,
}

/// How a URL takes its calls.
#[derive(Debug, Default)]
struct Reach {
    /// In a row that were not taken.
    failures: u32,
    closed_until: Option<Instant>,
}

impl Reach {
    fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    fn failed(&mut self, now: Instant) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(10)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.closed_until = now.checked_add(pause);
    }
}

impl Urls {
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn has(&self, worker_id: &str) -> bool {
        self.known.contains_key(worker_id)
    }

    pub fn forget(&mut self, worker_id: &str) {
        self.known.remove(worker_id);
    }

    /// Ends these calls, as far as they are in progress.
    pub fn stop(&self, claims: &[TaskClaim]) {
        claims.iter().filter_map(|claim| self.calls.get(claim)).for_each(CancellationToken::cancel);
    }
}

/// Adopts URLs that nobody looks after, and signs in those that this coordinator does.
///
/// # Errors
/// When the database is not available.
pub(crate) async fn look_after(coordinator: &Arc<Coordinator>) -> Result<(), StoreError> {
    let adopted = coordinator.store.adopt_url_workers(coordinator.id).await?;
    let mut beats = let_go(coordinator, &adopted).await?;
    beats.extend(adopted.iter().map(|one| beat_of(coordinator, one)));
    if beats.is_empty() {
        return Ok(());
    }
    let answers = coordinator.store.beat(&beats).await?;
    for one in adopted {
        let answer = answers.iter().find(|answer| answer.id == one.id);
        if answer.is_some_and(|answer| !answer.known) {
            // New, or given up meanwhile: what it was given then went to others.
            coordinator.shared().remove(&one.id);
        }
        sign_in(coordinator, one, answer.is_some_and(|answer| answer.drain_requested));
    }
    coordinator.room.notify_one();
    Ok(())
}

/// Lets go of those that are deleted, or another's by now. Gives back signs of life of the ones that are deleted and whose calls have not ended.
async fn let_go(coordinator: &Coordinator, adopted: &[Adopted]) -> Result<Vec<Beat>, StoreError> {
    let here: Vec<String> = coordinator.shared().urls.known.keys().cloned().collect();
    let mine: HashSet<&str> = adopted.iter().map(|one| one.id.as_str()).collect();
    let mut beats = Vec::new();
    for id in here.iter().filter(|id| !mine.contains(id.as_str())) {
        if coordinator.store.url_worker(id).await?.is_some() {
            coordinator.shared().remove(id);
            continue;
        }
        coordinator.shared().fleet.close(id);
        let last = last_beat(coordinator, id).filter(|beat| beat.held > 0);
        if last.is_none() {
            coordinator.shared().remove(id);
            coordinator.store.remove_workers(std::slice::from_ref(id)).await?;
        }
        beats.extend(last);
    }
    Ok(beats)
}

/// A sign of life of one that is called no more, and whose calls may end.
fn last_beat(coordinator: &Coordinator, id: &str) -> Option<Beat> {
    let shared = coordinator.shared();
    let member = shared.fleet.get(id)?;
    let (slots, held) = shared.fleet.slots_and_out(id)?;
    Some(Beat {
        worker_id: id.to_owned(),
        address: member.address.clone(),
        slots,
        held,
        abilities: member.abilities.clone(),
        labels: member.labels.clone(),
        draining: true,
        home: coordinator.id,
    })
}

fn beat_of(coordinator: &Coordinator, one: &Adopted) -> Beat {
    let held = coordinator.shared().fleet.slots_and_out(&one.id).map_or(0, |(_, held)| held);
    Beat {
        worker_id: one.id.clone(),
        address: one.url.clone(),
        slots: one.slots,
        held,
        abilities: one.abilities.0.clone(),
        labels: one.labels.0.clone(),
        draining: false,
        home: coordinator.id,
    }
}

fn sign_in(coordinator: &Arc<Coordinator>, one: Adopted, drain: bool) {
    let now = Instant::now();
    let mut shared = coordinator.shared();
    // The lines are closed by then, for good.
    if coordinator.shutdown.is_requested() {
        return;
    }
    let moved = shared
        .fleet
        .get(&one.id)
        .is_some_and(|member| member.address != one.url || member.push_secret != one.push_secret);
    let reach = shared.urls.known.entry(one.id.clone()).or_default();
    if moved {
        *reach = Reach::default();
    }
    // One call shows whether it is there again.
    let slots = if reach.failures > 0 { 1 } else { usize::try_from(one.slots).unwrap_or(1) };
    let closed = drain || reach.is_closed(now);
    let sign = Sign {
        address: one.url,
        push_secret: one.push_secret,
        abilities: one.abilities.0,
        labels: one.labels.0,
        slots,
        room: slots,
        held: Vec::new(),
        closed,
    };
    shared.fleet.sign(&one.id, sign, now);
    let is_new = !shared.lines.contains_key(&one.id);
    if is_new {
        tracing::info!(worker_id = one.id, "looking after a worker that is only a URL");
        let (parcels, receiver) = mpsc::unbounded_channel();
        let ended = Shutdown::new();
        coordinator.tasks.spawn(run(coordinator.clone(), one.id.clone(), receiver, ended.clone()));
        shared.lines.insert(one.id, Line { parcels, ended });
    }
}

/// Calls the URL for each task, until the line is closed and the calls have ended; or at once when the worker is gone.
async fn run(
    coordinator: Arc<Coordinator>,
    worker_id: String,
    mut parcels: mpsc::UnboundedReceiver<Vec<Parcel>>,
    ended: Shutdown,
) {
    let mut calls = JoinSet::new();
    while let Some(Some(batch)) = ended.or_stop(parcels.recv()).await {
        for parcel in batch {
            calls.spawn(attend(coordinator.clone(), worker_id.clone(), parcel));
        }
        while calls.try_join_next().is_some() {}
    }
    // Cut short when the worker is gone: whoever ended the line sees to the tasks.
    while let Some(Some(_)) = ended.or_stop(calls.join_next()).await {}
}

/// A call in progress, known by its claim as long as it is.
struct InProgress<'a> {
    coordinator: &'a Coordinator,
    claim: TaskClaim,
}

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.coordinator.shared().urls.calls.remove(&self.claim);
    }
}

/// Sees one task to its end.
async fn attend(coordinator: Arc<Coordinator>, worker_id: String, parcel: Parcel) {
    let claim = parcel.claim();
    let stop = CancellationToken::new();
    coordinator.shared().urls.calls.insert(claim, stop.clone());
    let _in_progress = InProgress { coordinator: &coordinator, claim };
    let began = Instant::now();
    let called = tokio::select! {
        called = call(&coordinator, &worker_id, &parcel) => called,
        () = stop.cancelled() => Some(Called::Ended(Box::new(report(claim, ReportStatus::Cancelled, began.elapsed())))),
    };
    match called {
        None => coordinator.hand_back(&worker_id, vec![claim]).await,
        Some(Called::NotTaken(why)) => {
            not_taken(&coordinator, &worker_id, &why).await;
            coordinator.hand_back(&worker_id, vec![claim]).await;
        }
        Some(Called::Ended(report)) => {
            taken(&coordinator, &worker_id).await;
            record(&coordinator, &worker_id, *report).await;
        }
    }
}

/// Waits until the task is due, and calls; none where this coordinator must not any more.
async fn call(coordinator: &Coordinator, worker_id: &str, parcel: &Parcel) -> Option<Called> {
    let due_in = Duration::from_secs_f64((parcel.task.due_in_ms / 1_000.0).max(0.0));
    tokio::time::sleep(due_in.saturating_sub(parcel.claimed_at.elapsed())).await;
    let (address, secret) = {
        let shared = coordinator.shared();
        // Others take this coordinator for dead, and may have given the task to somebody else.
        let member = shared.fleet.get(worker_id).filter(|_| shared.is_alive(Instant::now()))?;
        (member.address.clone(), member.push_secret.clone())
    };
    let task = parcel.submitted(Instant::now());
    let timeout = Duration::from_millis(task.timeout_ms);
    let request = SubmitTaskRequest { worker_id: worker_id.to_owned(), tasks: vec![task] };
    let mut called = std::pin::pin!(coordinator.url_caller.call(&address, &secret, &request, timeout));
    match tokio::time::timeout(TAKEN_AFTER, &mut called).await {
        Ok(called) => Some(called),
        Err(_) => {
            let started = report(parcel.claim(), ReportStatus::Started, TAKEN_AFTER);
            let (called, ()) = futures::future::join(called, record(coordinator, worker_id, started)).await;
            // Once it has started it cannot go back as if it had not.
            Some(called.after_start(parcel.claim()))
        }
    }
}

/// Records what came of a task, again and again until the database has said what it thinks of it.
async fn record(coordinator: &Coordinator, worker_id: &str, report: StatusReport) {
    let mut pause = Pause::new(RECORD_PAUSE_FIRST, RECORD_PAUSE_MAX);
    let began = Instant::now();
    while began.elapsed() < RECORDED_WITHIN {
        let reports = vec![WorkerReport { worker_id: worker_id.to_owned(), report: report.clone() }];
        match coordinator.record(worker_id, reports).await {
            Ok(results) if results.iter().all(|result| result.code != ReportCode::NotRecorded) => return,
            _ => tokio::time::sleep(pause.next_wait()).await,
        }
    }
    tracing::warn!(worker_id, task_id = %report.task_id, "an outcome was not recorded: the task's time-out will find it");
}

/// A call was not taken: the URL is left alone for a while.
async fn not_taken(coordinator: &Coordinator, worker_id: &str, why: &str) {
    {
        let mut shared = coordinator.shared();
        let now = Instant::now();
        let Some(reach) = shared.urls.known.get_mut(worker_id) else { return };
        // Calls that were made together fail together.
        if reach.is_closed(now) {
            return;
        }
        reach.failed(now);
        shared.fleet.close(worker_id);
    }
    tracing::warn!(worker_id, why, "a URL did not take its call");
    let _ = coordinator.noted(coordinator.store.note_url_worker(worker_id, Some(why)).await);
}

/// A call was taken.
async fn taken(coordinator: &Coordinator, worker_id: &str) {
    let was_away = {
        let mut shared = coordinator.shared();
        let Some(reach) = shared.urls.known.get_mut(worker_id) else { return };
        std::mem::take(reach).failures > 0
    };
    if was_away {
        tracing::info!(worker_id, "a URL takes its calls again");
        let _ = coordinator.noted(coordinator.store.note_url_worker(worker_id, None).await);
    }
}

/// While this coordinator ends, its calls go on: says so to others, who would take it for dead and them for lost.
pub(crate) async fn stay(coordinator: &Coordinator) {
    loop {
        tokio::time::sleep(STAY_EVERY).await;
        let ids: Vec<String> = coordinator.shared().urls.known.keys().cloned().collect();
        if ids.is_empty() {
            continue;
        }
        let _ = coordinator.noted(coordinator.say_alive().await);
        let beats: Vec<Beat> = ids.iter().filter_map(|id| last_beat(coordinator, id)).collect();
        let _ = coordinator.noted(coordinator.store.beat(&beats).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_takes_no_calls_is_left_alone_for_twice_as_long_each_time_up_to_a_minute() {
        let now = Instant::now();
        let mut reach = Reach::default();
        let mut pauses = Vec::new();
        for _ in 0..12 {
            reach.failed(now);
            pauses.push(reach.closed_until.unwrap().duration_since(now).as_secs_f64());
        }
        assert_eq!(pauses[..8], [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]);
        assert_eq!(pauses[8..], [60.0; 4]);
        assert!(reach.is_closed(now) && !reach.is_closed(now + PAUSE_MAX));
    }
}
