//! Requests are completed when they are pushed: signatures, and where to call back. Workers hold no secrets.

use taskmaster_openapi::task::{ErrorCode, TaskError, Work};
use taskmaster_store::claim::is_system;
use taskmaster_store::installation::Equipment;

use crate::coordinator::{Coordinator, Parcel};
use crate::webhooks::unsent_report;

fn is_wanted(parcel: &Parcel) -> bool {
    // Deliveries are signed in their own way.
    !is_system(parcel.task.band.lane) && matches!(&parcel.task.work, Work::Http(work) if Equipment::is_wanted(work))
}

impl Coordinator {
    /// Completes the requests among these parcels that are to be signed, or to call back. What cannot call back has failed; when the
    /// database is away they go back.
    pub async fn equip(&self, worker_id: &str, parcels: &mut Vec<Parcel>) {
        if !parcels.iter().any(is_wanted) {
            return;
        }
        let equipment = match self.noted(self.store.equipment().await) {
            Ok(equipment) => equipment,
            Err(error) => {
                tracing::warn!(%error, worker_id, "requests cannot be signed: they go back");
                let back = parcels.extract_if(.., |parcel| is_wanted(parcel)).map(|parcel| parcel.claim()).collect();
                return self.hand_back(worker_id, back).await;
            }
        };
        let mut unsent = Vec::new();
        parcels.retain_mut(|parcel| {
            if !is_wanted(parcel) {
                return true;
            }
            let (claim, attempt) = (parcel.claim(), parcel.task.attempt.into());
            let Work::Http(work) = &mut parcel.task.work else { return true };
            let Err(why) = equipment.complete(work, claim, attempt) else { return true };
            let error = TaskError { code: ErrorCode::WorkerError, message: why.to_string() };
            unsent.push(unsent_report(worker_id, parcel, error, false));
            false
        });
        if !unsent.is_empty()
            && let Err(problem) = self.record(worker_id, unsent).await
        {
            // They are on their way as far as anybody knows, and found by the time that a start may take.
            tracing::warn!(%problem, worker_id, "requests that cannot call back were not ended");
        }
    }
}
