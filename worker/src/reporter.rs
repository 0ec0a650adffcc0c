//! Reports: sent in batches that form by themselves, one request at a time, and repeated until they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use taskmaster_openapi::client::{ClientError, CoordinatorClient};
use taskmaster_openapi::coordinator::{UpdateTaskStatusRequest, UpdateTaskStatusResponse};
use taskmaster_openapi::limits::REPORTS_MAX;
use taskmaster_openapi::report::StatusReport;
use taskmaster_service::Shutdown;
use taskmaster_service::pause::Pause;

use crate::link::Link;
use crate::slots::Slots;

/// First wait after a batch was not taken.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Longest wait after a batch was not taken.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// After so many requests in a row for which a report was there already, the worker counts as busy: ...
const BUSY_AFTER: u32 = 3;
/// ... and lets reports gather for so long before the next request, unless so many are there. A start that is followed by its end
/// within this time is told together with it.
const GATHER: Duration = Duration::from_millis(20);
const GATHERED: usize = 50;

/// Sends the reports of one worker.
#[derive(Debug)]
pub(crate) struct Reporter {
    pub worker_id: String,
    pub client: CoordinatorClient,
    pub link: Arc<Link>,
    pub slots: Arc<Slots>,
}

impl Reporter {
    /// Sends reports until stopped.
    pub async fn run(self, stop: Shutdown) {
        let mut pause = Pause::new(PAUSE_FIRST, PAUSE_MAX);
        let mut count_max = REPORTS_MAX;
        let mut in_a_row = 0;
        while let Some(batch) = stop.or_stop(self.next_batch(count_max, &mut in_a_row)).await {
            let request = UpdateTaskStatusRequest { worker_id: self.worker_id.clone(), reports: batch };
            let Some(answer) = stop.or_stop(self.send(&request)).await else { return };
            let reports = request.reports;
            let settled = match answer {
                Ok(answer) => {
                    count_max = REPORTS_MAX.min(count_max * 2);
                    self.slots.board().record(&reports, &answer.results)
                }
                Err(error) => {
                    count_max = self.not_taken(&reports, error.as_ref(), count_max);
                    false
                }
            };
            // Outcomes that are settled make space for new ones, and end a drain.
            self.slots.start_due();
            self.slots.settled.notify_one();
            match settled {
                true => pause.reset(),
                false => self.wait(pause.next_wait(), &stop).await,
            }
        }
    }

    /// The next reports: as soon as there are any, or when some have gathered while the worker is busy.
    async fn next_batch(&self, count_max: usize, in_a_row: &mut u32) -> Vec<StatusReport> {
        if *in_a_row >= BUSY_AFTER && self.slots.board().reports_waiting() < GATHERED {
            tokio::time::sleep(GATHER).await;
        }
        loop {
            let batch = self.slots.board().take_reports(count_max, Instant::now());
            if !batch.is_empty() {
                *in_a_row = in_a_row.saturating_add(1);
                return batch;
            }
            *in_a_row = 0;
            self.slots.reports.notified().await;
        }
    }

    /// Sends a batch to the first coordinator that takes it. Without a token there is nobody to send to: `Err(None)`.
    async fn send(&self, request: &UpdateTaskStatusRequest) -> Result<UpdateTaskStatusResponse, Option<ClientError>> {
        let Some(token) = self.link.token() else { return Err(None) };
        let mut last = None;
        for address in self.link.candidates() {
            match self.client.update_task_status(&address, token.expose(), request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    tracing::debug!(coordinator = address, %error, "reports were not taken");
                    if error.status() == Some(StatusCode::UNAUTHORIZED) {
                        self.link.forget_token(&token);
                        self.link.beat_now.notify_one();
                        return Err(Some(error));
                    }
                    last = Some(error);
                }
            }
        }
        Err(last)
    }

    /// A batch was not taken: it is sent again. Where its content is refused, in smaller batches, until the one report is
    /// found that nobody takes; that one is given up, so that it does not hold up all others. The size of the next batch.
    fn not_taken(&self, reports: &[StatusReport], error: Option<&ClientError>, count_max: usize) -> usize {
        let mut board = self.slots.board();
        match (error.filter(|error| refuses_content(error)), reports) {
            (Some(error), [report]) => {
                tracing::error!(task_id = %report.task_id, %error, "no coordinator takes the report of a task; it is given up");
                board.give_up(report);
                count_max
            }
            (Some(_), _) => {
                board.put_back(reports);
                reports.len().div_ceil(2)
            }
            (None, _) => {
                board.put_back(reports);
                count_max
            }
        }
    }

    /// Waits before the next try; not when a new token has come.
    async fn wait(&self, pause: Duration, stop: &Shutdown) {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.link.joined.notified() => {}
            () = stop.requested() => {}
        }
    }
}

/// Whether the refusal is about what the batch says, rather than about when or by whom it is said.
fn refuses_content(error: &ClientError) -> bool {
    matches!(
        error.status(),
        Some(StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY)
    )
}
