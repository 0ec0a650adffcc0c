//! Cancels of tasks that a worker holds: the worker is told at once, by its home.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::worker::{ReleaseCode, ReleaseRequest};
use taskmaster_store::wakeup::Channel;

use crate::coordinator::Coordinator;

/// Cancels are looked for this often, besides notifications.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Between tries while the database is not available.
const PAUSE: Duration = Duration::from_millis(500);

/// Tells workers of cancels until the stop is requested.
pub(crate) async fn run(coordinator: Arc<Coordinator>) {
    let shutdown = coordinator.shutdown.clone();
    let mut listener = coordinator.store.listen(&[Channel::Cancels]);
    loop {
        let looked = async {
            if !coordinator.config.no_notifications
                && let Ok(Err(_)) = tokio::time::timeout(LOOK_EVERY, listener.recv()).await
            {
                tokio::time::sleep(PAUSE).await;
            } else if coordinator.config.no_notifications {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            look(&coordinator).await;
        };
        if shutdown.or_stop(looked).await.is_none() {
            return;
        }
    }
}

/// Tells each worker at home here which of its tasks to stop.
async fn look(coordinator: &Arc<Coordinator>) {
    if coordinator.shared().fleet.is_empty() {
        return;
    }
    let Ok(cancels) = coordinator.noted(coordinator.store.cancels_in_flight().await) else { return };
    let mut by_worker: HashMap<String, Vec<TaskClaim>> = HashMap::new();
    for (worker_id, claim) in cancels {
        by_worker.entry(worker_id).or_default().push(claim);
    }
    let told = by_worker.into_iter().map(|(worker_id, claims)| tell(coordinator, worker_id, claims));
    futures::future::join_all(told).await;
}

async fn tell(coordinator: &Coordinator, worker_id: String, tasks: Vec<TaskClaim>) {
    let to = {
        let shared = coordinator.shared();
        if shared.urls.has(&worker_id) {
            return shared.urls.stop(&tasks);
        }
        shared.fleet.get(&worker_id).map(|member| (member.address.clone(), member.push_secret.clone()))
    };
    let Some((address, secret)) = to else { return };
    let answer = coordinator.workers.release_tasks(&address, &secret, &ReleaseRequest { tasks, stop: true }).await;
    match answer {
        Ok(answer) => {
            let with = |code| -> Vec<TaskClaim> {
                let results = answer.results.iter().filter(|r| r.code == code);
                results.map(|r| TaskClaim { task_id: r.task_id, claim: r.claim }).collect()
            };
            // Unstarted ones are handed back, and so become CANCELLED; what is being stopped is reported by the worker. What it does
            // not know is still on its way to it, or has ended: the next look tells.
            coordinator.hand_back(&worker_id, with(ReleaseCode::Released)).await;
        }
        // Looked for again soon, and with the next heartbeat.
        Err(error) => tracing::warn!(%error, worker_id, "a worker was not told of cancels"),
    }
}
