//! Pushing claimed tasks to their worker: one dispatcher a worker, which sends together what has gathered.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_openapi::client::ClientError;
use taskmaster_openapi::limits;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::worker::{SubmitCode, SubmitTaskRequest, SubmitTaskResponse, SubmittedTask};
use taskmaster_service::Shutdown;
use taskmaster_service::pause::Pause;
use taskmaster_store::claim::is_system;
use taskmaster_store::outcome::WorkerReport;
use tokio::sync::mpsc;

use crate::coordinator::{Coordinator, Parcel};

/// A worker whose port refuses connections so often in a row is given up.
const REFUSALS_MAX: u32 = 3;
/// A worker that has not answered for so long, nor named the tasks in a heartbeat, is taken not to have them.
const ANSWERS_WITHIN: Duration = Duration::from_secs(15);
/// Pauses between tries to reach a worker.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Parcel {
    pub(crate) fn claim(&self) -> TaskClaim {
        TaskClaim { task_id: self.task.task_id, claim: self.task.claim }
    }

    /// The task as the worker is told: what is left of the wait, counted on the monotonic clock.
    pub(crate) fn submitted(&self, now: Instant) -> SubmittedTask {
        let waited_ms = now.saturating_duration_since(self.claimed_at).as_secs_f64() * 1000.0;
        SubmittedTask {
            task_id: self.task.task_id,
            claim: self.task.claim,
            attempt: self.task.attempt.into(),
            start_in_ms: (self.task.due_in_ms - waited_ms).max(0.0),
            timeout_ms: u64::try_from(self.task.timeout_seconds).unwrap_or(1) * 1000,
            work: self.task.work.clone(),
            traceparent: self.task.trace.as_ref().map(|(traceparent, _)| traceparent.clone()),
            tracestate: self.task.trace.as_ref().and_then(|(_, tracestate)| tracestate.clone()),
            // How often a webhook's subscriber is tried, `flows` says.
            try_always: is_system(self.task.band.lane),
        }
    }
}

/// Sends a worker its tasks until the line is closed.
pub(crate) async fn run(
    coordinator: Arc<Coordinator>,
    worker_id: String,
    mut parcels: mpsc::UnboundedReceiver<Vec<Parcel>>,
    ended: Shutdown,
) {
    while let Some(Some(first)) = ended.or_stop(parcels.recv()).await {
        let mut batch = first;
        while batch.len() < limits::REPORTS_MAX {
            match parcels.try_recv() {
                Ok(more) => batch.extend(more),
                Err(_) => break,
            }
        }
        let rest = batch.split_off(batch.len().min(limits::REPORTS_MAX));
        for part in [batch, rest] {
            // Cut short when the worker is gone: whoever ended the line sees to the tasks.
            if !part.is_empty() {
                ended.or_stop(deliver(&coordinator, &worker_id, part)).await;
            }
        }
    }
}

/// Sends tasks until the worker has answered, or is given up.
async fn deliver(coordinator: &Coordinator, worker_id: &str, mut parcels: Vec<Parcel>) {
    let mut pause = Pause::new(PAUSE_FIRST, PAUSE_MAX);
    let began = Instant::now();
    let mut refusals = 0;
    loop {
        // What a heartbeat or a report has named meanwhile arrived, and only the answer was lost.
        parcels.retain(|parcel| coordinator.shared().fleet.is_on_its_way(worker_id, &parcel.claim()));
        if parcels.is_empty() {
            return;
        }
        let Some((address, secret)) = address_of(coordinator, worker_id) else { return };
        let claims = |parcels: &[Parcel]| parcels.iter().map(Parcel::claim).collect();
        // Others take this coordinator for dead, and may have given the tasks to somebody else.
        if !coordinator.shared().is_alive(Instant::now()) {
            tracing::warn!(
                worker_id,
                tasks = parcels.len(),
                "tasks are not pushed: the coordinator's own lease is over"
            );
            return coordinator.hand_back(worker_id, claims(&parcels)).await;
        }
        if began.elapsed() > ANSWERS_WITHIN {
            tracing::warn!(worker_id, tasks = parcels.len(), "a worker takes no tasks: they go to others");
            coordinator.shared().fleet.close(worker_id);
            return coordinator.hand_back(worker_id, claims(&parcels)).await;
        }
        coordinator.seal(worker_id, &mut parcels).await;
        coordinator.equip(worker_id, &mut parcels).await;
        if parcels.is_empty() {
            return;
        }
        let now = Instant::now();
        let tasks = parcels.iter().map(|parcel| parcel.submitted(now)).collect();
        let request = SubmitTaskRequest { worker_id: worker_id.to_owned(), tasks };
        match coordinator.workers.submit_task(&address, &secret, &request).await {
            Ok(answer) => return delivered(coordinator, worker_id, &parcels, answer).await,
            Err(ClientError::Connect { reason, .. }) => {
                refusals += 1;
                if refusals >= REFUSALS_MAX {
                    // Nothing was sent: no attempt was made.
                    coordinator.hand_back(worker_id, claims(&parcels)).await;
                    return coordinator.give_up(worker_id, &reason).await;
                }
            }
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => {
                tracing::warn!(%error, worker_id, "a worker refused its tasks");
                coordinator.shared().fleet.close(worker_id);
                return coordinator.hand_back(worker_id, claims(&parcels)).await;
            }
            // It may have taken them. Sending them again is harmless: it knows the claims it has.
            Err(error) => tracing::warn!(%error, worker_id, "a worker does not answer"),
        }
        tokio::time::sleep(pause.next_wait()).await;
    }
}

fn address_of(coordinator: &Coordinator, worker_id: &str) -> Option<(String, String)> {
    let shared = coordinator.shared();
    shared.fleet.get(worker_id).map(|member| (member.address.clone(), member.push_secret.clone()))
}

/// What was not taken goes back; outcomes that came with the answer are recorded.
async fn delivered(coordinator: &Coordinator, worker_id: &str, parcels: &[Parcel], answer: SubmitTaskResponse) {
    let taken: HashSet<TaskClaim> = answer
        .results
        .iter()
        .filter(|r| matches!(r.code, SubmitCode::Accepted | SubmitCode::AlreadyHeld))
        .map(|r| TaskClaim { task_id: r.task_id, claim: r.claim })
        .collect();
    coordinator.shared().fleet.take(worker_id, &taken, Instant::now());
    let back: Vec<TaskClaim> = parcels.iter().map(Parcel::claim).filter(|claim| !taken.contains(claim)).collect();
    if !back.is_empty() {
        let had_no_room = answer.results.iter().filter(|r| r.code == SubmitCode::NoRoom).count() == back.len();
        match had_no_room {
            true => coordinator.shared().fleet.fill(worker_id, back.len()),
            // Nothing more until it says again what it has.
            false => coordinator.shared().fleet.close(worker_id),
        }
        coordinator.hand_back(worker_id, back).await;
    }
    if !answer.reports.is_empty() {
        let reports = answer.reports.into_iter().take(limits::REPORTS_MAX);
        let reports = reports.map(|report| WorkerReport { worker_id: worker_id.to_owned(), report }).collect();
        // What is not recorded now is found by the time-out, as with a worker that says nothing.
        if let Err(problem) = coordinator.record(worker_id, reports).await {
            tracing::warn!(%problem, worker_id, "outcomes in an answer were not recorded");
        }
    }
}
