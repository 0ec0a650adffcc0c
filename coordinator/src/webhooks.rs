//! Webhooks: events become deliveries, deliveries are signed on their way, and what became of them is noted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskError, Work};
use taskmaster_store::StoreError;
use taskmaster_store::claim::is_system;
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::wakeup::{Channel, Listener, Wakeup};
use taskmaster_store::webhooks::push::Attempted;

use crate::coordinator::{Coordinator, Parcel};

/// The log is looked at this often when nobody rings.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Webhooks for which too much waits are looked for this often.
const OVERDUE_EVERY: Duration = Duration::from_secs(10);
/// Outcomes that may wait to be noted; they are figures, and the next ones say the same.
const NOTED_MAX: usize = 10_000;

/// Makes deliveries of events until the stop is requested.
pub(crate) async fn run(coordinator: Arc<Coordinator>) {
    let mut driver = Driver { coordinator: coordinator.clone(), listener: None, next_overdue: Instant::now() };
    loop {
        let turned = coordinator.shutdown.or_stop(driver.turn()).await;
        let Some(turned) = turned else { return };
        if let Err(error) = coordinator.noted(turned) {
            tracing::debug!(%error, "webhooks wait for the database");
        }
        if coordinator.shutdown.or_stop(driver.wait()).await.is_none() {
            return;
        }
    }
}

struct Driver {
    coordinator: Arc<Coordinator>,
    /// There while somebody subscribes.
    listener: Option<Listener>,
    next_overdue: Instant,
}

impl Driver {
    async fn turn(&mut self) -> Result<(), StoreError> {
        let store = &self.coordinator.store;
        loop {
            let driven = store.drive_webhooks().await?;
            match driven.subscribed && !self.coordinator.config.no_notifications {
                true => drop(self.listener.get_or_insert_with(|| store.listen(&[Channel::Events]))),
                false => self.listener = None,
            }
            if !driven.more {
                break;
            }
        }
        let attempted = std::mem::take(&mut self.coordinator.shared().attempted);
        let mut disabled = store.note_deliveries(&attempted).await?;
        if self.listener.is_some() && Instant::now() >= self.next_overdue {
            self.next_overdue = Instant::now() + OVERDUE_EVERY;
            disabled.extend(store.disable_overdue_webhooks().await?);
        }
        for (webhook_id, reason) in disabled {
            tracing::warn!(%webhook_id, reason = reason.as_str(), "a webhook was disabled");
        }
        Ok(())
    }

    /// Until there may be something to do.
    async fn wait(&mut self) {
        let listener = self.listener.as_mut();
        let heard = async {
            match listener {
                Some(listener) => listener.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            heard = heard => match heard {
                Ok(Wakeup::Notified(..) | Wakeup::Connected) => {}
                Err(error) => {
                    tracing::debug!(%error, "not listening");
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            },
            () = self.coordinator.delivered.notified() => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

impl Coordinator {
    /// Signs the deliveries among these parcels. Those that are not to be sent any more end here, as FAILED; when the database is away
    /// they go back.
    pub async fn seal(&self, worker_id: &str, parcels: &mut Vec<Parcel>) {
        let of = |parcel: &Parcel| match &parcel.task.work {
            Work::Http(work) if is_system(parcel.task.band.lane) => Some((parcel.task.task_id, work.clone())),
            _ => None,
        };
        let deliveries: Vec<_> = parcels.iter().filter_map(of).collect();
        if deliveries.is_empty() {
            return;
        }
        let mut sealed = match self.noted(self.store.seal(deliveries).await) {
            Ok(sealed) => sealed,
            Err(error) => {
                tracing::warn!(%error, worker_id, "deliveries cannot be signed: they go back");
                let is_delivery = |parcel: &mut Parcel| is_system(parcel.task.band.lane);
                let back = parcels.extract_if(.., is_delivery).map(|parcel| parcel.claim()).collect();
                return self.hand_back(worker_id, back).await;
            }
        };
        let mut unsent = Vec::new();
        parcels.retain_mut(|parcel| match sealed.remove(&parcel.task.task_id) {
            None => true,
            Some(Ok(work)) => {
                parcel.task.work = Work::Http(work);
                true
            }
            Some(Err(why)) => {
                let error = TaskError { code: ErrorCode::Undeliverable, message: why.to_string() };
                unsent.push(unsent_report(worker_id, parcel, error, true));
                false
            }
        });
        if !unsent.is_empty()
            && let Err(problem) = self.record(worker_id, unsent).await
        {
            // They are on their way as far as anybody knows, and found by the time that a start may take.
            tracing::warn!(%problem, worker_id, "deliveries that are not to be sent were not ended");
        }
    }

    /// Which of these reports end attempts of deliveries, by their places.
    pub fn attempts_of_deliveries(&self, reports: &[WorkerReport]) -> Vec<(usize, i32, Attempted)> {
        let shared = self.shared();
        if !shared.flows.are_used() {
            return Vec::new();
        }
        let of = |(place, WorkerReport { worker_id, report }): (usize, &WorkerReport)| {
            let lane = shared.fleet.lane_of(worker_id, &TaskClaim { task_id: report.task_id, claim: report.claim })?;
            let undeliverable = report.error.as_ref().is_some_and(|error| error.code == ErrorCode::Undeliverable);
            if !is_system(lane) || undeliverable {
                return None;
            }
            let delivered = match report.status {
                ReportStatus::Complete => true,
                ReportStatus::Failed => false,
                ReportStatus::Started | ReportStatus::Cancelled | ReportStatus::Released | ReportStatus::Detached => {
                    return None;
                }
            };
            let gone = report.result.as_ref().and_then(|result| result.http_status) == Some(410);
            Some((place, lane, Attempted { id: report.task_id, delivered, gone }))
        };
        reports.iter().enumerate().filter_map(of).collect()
    }

    /// Keeps, of these attempts, those that were recorded, to be noted soon.
    pub fn attempted(&self, attempts: Vec<(usize, i32, Attempted)>, results: &[ReportResult]) {
        if attempts.is_empty() {
            return;
        }
        let mut shared = self.shared();
        for (place, lane, attempted) in attempts {
            if results.get(place).is_some_and(|result| result.code == ReportCode::Recorded) {
                shared.flows.ended(lane, attempted.delivered);
                if shared.attempted.len() < NOTED_MAX {
                    shared.attempted.push(attempted);
                }
            }
        }
        drop(shared);
        self.delivered.notify_one();
    }
}

/// An attempt that ends before it is sent.
pub(crate) fn unsent_report(worker_id: &str, parcel: &Parcel, error: TaskError, permanent: bool) -> WorkerReport {
    let report = StatusReport {
        task_id: parcel.task.task_id,
        claim: parcel.task.claim,
        status: ReportStatus::Failed,
        started_ms_ago: None,
        ended_ms_ago: None,
        result: None,
        error: Some(error),
        permanent,
        retry_after_ms: None,
    };
    WorkerReport { worker_id: worker_id.to_owned(), report }
}
