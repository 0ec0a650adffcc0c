//! Recording what workers report: reports of all workers that arrive together are recorded together.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, TaskClaim};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::batch::{BatchError, BatchLimits, Batcher, Pace};
use taskmaster_store::outcome::WorkerReport;
use taskmaster_store::{Store, StoreError};

use crate::coordinator::{Coordinator, Settled};

type Answer = Result<Vec<ReportResult>, Arc<StoreError>>;

/// Requests that may wait to be recorded.
const WAITING_MAX: usize = 10_000;
/// Statements in progress at once: one is written while the next is collected and sent.
const CONCURRENCY: usize = 2;
/// While there are many, statements are fewer and each records more: so many for all coordinators together. With several they were so
/// small otherwise that the database did much more work for every task.
const PACE: Pace = Pace { from_per_second: 1_000.0, apart: Duration::from_millis(10) };
/// More than so many coordinators are no further apart.
const SHARED_BY_MAX: usize = 5;

/// Records reports in batches.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    batcher: Batcher<Vec<WorkerReport>, Answer>,
}

impl Recorder {
    /// The recorder, and what drives it.
    pub fn new(store: Store) -> (Self, impl Future<Output = ()> + Send) {
        let limits = BatchLimits {
            waiting_max: WAITING_MAX,
            batch_weight_max: limits::REPORTS_MAX,
            concurrency: CONCURRENCY,
            pace: Some(PACE),
        };
        let (batcher, driver) = Batcher::new(limits, Vec::len, move |requests| {
            let store = store.clone();
            async move { record(&store, requests).await }
        });
        (Self { batcher }, driver)
    }

    /// The database records for so many coordinators.
    pub fn shared_by(&self, coordinators: usize) {
        let n = coordinators.clamp(1, SHARED_BY_MAX) as u32;
        let pace = Pace { from_per_second: PACE.from_per_second / f64::from(n), apart: PACE.apart * n };
        self.batcher.set_pace(pace);
    }
}

/// Records the reports of several requests in one go, and gives each request its part of the results.
async fn record(store: &Store, requests: Vec<Vec<WorkerReport>>) -> Vec<Answer> {
    let sizes: Vec<usize> = requests.iter().map(Vec::len).collect();
    let reports: Vec<WorkerReport> = requests.into_iter().flatten().collect();
    match store.record(&reports).await {
        Ok(recorded) => {
            let mut results = recorded.results.into_iter();
            sizes.into_iter().map(|size| Ok(results.by_ref().take(size).collect())).collect()
        }
        Err(error) => {
            let error = Arc::new(error);
            sizes.into_iter().map(|_| Err(error.clone())).collect()
        }
    }
}

/// How long the attempt took that the report says has ended.
fn duration_seconds(WorkerReport { report, .. }: &WorkerReport) -> Option<f64> {
    let (began, ended) = (report.started_ms_ago?, report.ended_ms_ago?);
    Some(began.saturating_sub(ended) as f64 / 1000.0)
}

impl Coordinator {
    /// Records a worker's reports, and takes what has ended off the worker's account.
    ///
    /// # Errors
    /// `overloaded`, `database_unavailable`: the worker sends the reports again.
    pub async fn record(&self, worker_id: &str, reports: Vec<WorkerReport>) -> Result<Vec<ReportResult>, Problem> {
        let ends: Vec<bool> = reports.iter().map(|r| r.report.status != ReportStatus::Started).collect();
        let attempts = self.attempts_of_deliveries(&reports);
        let worked = reports
            .iter()
            .filter(|r| !matches!(r.report.status, ReportStatus::Started | ReportStatus::Released))
            .count();
        let took_seconds: Vec<f64> = reports.iter().filter_map(duration_seconds).collect();
        let answer = self.recorder.batcher.submit(reports).await.map_err(|error| match error {
            BatchError::Overloaded => {
                Problem::new(Code::Overloaded, "Too many reports are waiting. Send these again.").retry_after_seconds(1)
            }
            BatchError::Stopped => Problem::new(Code::ShuttingDown, "Send the reports to another coordinator."),
        })?;
        let results = answer.map_err(|error| {
            self.health.waiting(crate::coordinator::DATABASE, error.to_string());
            tracing::warn!(%error, worker_id, "reports were not recorded");
            Problem::new(Code::DatabaseUnavailable, "Nothing was recorded. Send the reports again.")
                .retry_after_seconds(1)
        })?;
        self.shared().fleet.note_work(worker_id, worked, &took_seconds, Instant::now());
        self.attempted(attempts, &results);
        let over = results
            .iter()
            .zip(ends)
            .filter(|(result, ends)| result.code != ReportCode::NotRecorded && (*ends || result.status >= 400));
        let (recorded, refused): (Vec<_>, Vec<_>) = over
            .map(|(result, _)| (result.code, TaskClaim { task_id: result.task_id, claim: result.claim }))
            .partition(|(code, _)| *code == ReportCode::Recorded);
        for (over, how) in [(recorded, Settled::Recorded), (refused, Settled::Presumed)] {
            let over: Vec<TaskClaim> = over.into_iter().map(|(_, claim)| claim).collect();
            self.settled(worker_id, &over, how);
        }
        Ok(results)
    }
}
