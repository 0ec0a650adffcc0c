//! Reports: what is still to be said of held tasks. What is sent is made from a task's state at that moment, so a STARTED that
//! was not sent before the end is merged into the outcome, and elapsed times are those of the sending.

use std::time::Instant;

use taskmaster_openapi::limits;
use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskResult};

use super::{Board, Held, State, StopReason};
use crate::execute::{Ending, Failure};

/// Size of one batch of reports. JSON may need six bytes for one, which keeps the message below [`limits::INTERNAL_BODY_BYTES_MAX`].
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What a report takes besides its texts, roughly.
const REPORT_BYTES: usize = 400;

/// How a held task ended.
#[derive(Debug)]
pub(super) struct Outcome {
    status: ReportStatus,
    started: Option<Instant>,
    ended: Instant,
    result: Option<TaskResult>,
    failure: Option<Failure>,
    /// Not again before so many milliseconds are over.
    retry_after_ms: Option<u64>,
    /// Roughly what it takes in memory.
    pub bytes: usize,
}

impl Outcome {
    /// What is reported of an ended task; `None` when the claim is not the worker's any more.
    pub fn of(ending: Ending, reason: Option<StopReason>, started: Instant, ended: Instant) -> Option<Self> {
        if reason == Some(StopReason::NotOurs) {
            return None;
        }
        let (status, result, failure) = match (ending, reason) {
            (Ending::Complete(result), _) => (ReportStatus::Complete, result, None),
            (Ending::Failed(result, failure), _) => (ReportStatus::Failed, result, Some(failure)),
            // Whoever wants it stopped is told by the coordinator that takes this.
            (Ending::Detached, _) => (ReportStatus::Detached, None, None),
            (Ending::PutOff(retry_after_ms), _) => {
                return Some(Self { retry_after_ms: Some(retry_after_ms), ..Self::released(ended) });
            }
            (Ending::Stopped(result), Some(StopReason::WorkerLeaves)) => {
                let failure = Failure::new(ErrorCode::WorkerLost, "the worker was stopped before the task ended");
                (ReportStatus::Failed, result, Some(failure))
            }
            (Ending::Stopped(result), _) => (ReportStatus::Cancelled, result, None),
        };
        let bytes = REPORT_BYTES + result.as_ref().map_or(0, text_bytes);
        let retry_after_ms = failure.as_ref().and_then(|failure| failure.retry_after_ms);
        Some(Self { status, started: Some(started), ended, result, failure, retry_after_ms, bytes })
    }

    /// The task goes back without having been started.
    pub fn released(now: Instant) -> Self {
        let status = ReportStatus::Released;
        let (result, failure, retry_after_ms) = (None, None, None);
        Self { status, started: None, ended: now, result, failure, retry_after_ms, bytes: REPORT_BYTES }
    }
}

fn text_bytes(result: &TaskResult) -> usize {
    let texts = [
        &result.stdout,
        &result.stdout_base64,
        &result.stderr,
        &result.stderr_base64,
        &result.body,
        &result.body_base64,
    ];
    let headers = result.headers.iter().map(|(name, value)| name.len() + value.len());
    texts.into_iter().flatten().map(String::len).chain(headers).sum()
}

fn ms_since(earlier: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(earlier).as_millis()).unwrap_or(u64::MAX)
}

impl Board {
    /// The next reports to send, in order, at most `count_max`, and as many as fit into one message.
    pub fn take_reports(&mut self, count_max: usize, now: Instant) -> Vec<StatusReport> {
        let (mut reports, mut bytes) = (Vec::new(), 0);
        while reports.len() < count_max.min(limits::REPORTS_MAX)
            && bytes < BATCH_BYTES_MAX
            && let Some(claim) = self.unsent.pop_front()
        {
            let Some(held) = self.held.get_mut(&claim) else { continue };
            held.queued = false;
            if let Some(report) = report(claim, held, now) {
                bytes += report.result.as_ref().map_or(0, text_bytes) + REPORT_BYTES;
                reports.push(report);
            }
        }
        reports
    }

    /// How many reports wait to be sent, at most.
    pub fn reports_waiting(&self) -> usize {
        self.unsent.len()
    }

    /// Reports that nobody has answered are sent again.
    pub fn put_back(&mut self, reports: &[StatusReport]) {
        for report in reports {
            self.queue_report(TaskClaim { task_id: report.task_id, claim: report.claim });
        }
    }

    /// A report that no coordinator will ever take counts as answered.
    pub fn give_up(&mut self, report: &StatusReport) {
        let claim = TaskClaim { task_id: report.task_id, claim: report.claim };
        self.settle(claim, report.status, None);
    }

    /// Takes the answers to a batch. Whether all of them were final.
    pub fn record(&mut self, sent: &[StatusReport], results: &[ReportResult]) -> bool {
        let mut all_final = true;
        for (index, report) in sent.iter().enumerate() {
            let claim = TaskClaim { task_id: report.task_id, claim: report.claim };
            let answer = results.get(index).filter(|r| r.task_id == claim.task_id && r.claim == claim.claim);
            match answer {
                Some(answer) if answer.code != ReportCode::NotRecorded => {
                    self.settle(claim, report.status, reason_to_stop(answer));
                }
                // Not looked at, or an answer that does not fit the question.
                _ => {
                    all_final = false;
                    self.queue_report(claim);
                }
            }
        }
        all_final
    }

    /// A report was answered for good, perhaps with a reason to stop.
    fn settle(&mut self, claim: TaskClaim, said: ReportStatus, stop: Option<StopReason>) {
        let Some(Held { state, .. }) = self.held.get_mut(&claim) else { return };
        match state {
            State::Running { acknowledged, .. } => {
                *acknowledged = true;
                if let Some(why) = stop {
                    self.stop_running(claim, why);
                }
            }
            // A STARTED that was answered after the end says nothing of the outcome, which is still to be sent.
            State::Ended(_) if said == ReportStatus::Started && stop != Some(StopReason::NotOurs) => {}
            State::Ended(_) => self.forget(claim),
            State::Waiting(_) => {}
        }
    }
}

/// Why the work is to be stopped, as an answer says. What was recorded is still the worker's: its cancel was asked for, and how it
/// ends is to be reported.
fn reason_to_stop(answer: &ReportResult) -> Option<StopReason> {
    let ours = matches!(answer.code, ReportCode::Recorded | ReportCode::AlreadyRecorded);
    answer.stop.then_some(if ours { StopReason::Told } else { StopReason::NotOurs })
}

/// What there is to say of a held task now.
fn report(claim: TaskClaim, held: &Held, now: Instant) -> Option<StatusReport> {
    let mut report = StatusReport {
        task_id: claim.task_id,
        claim: claim.claim,
        status: ReportStatus::Started,
        started_ms_ago: None,
        ended_ms_ago: None,
        result: None,
        error: None,
        permanent: false,
        retry_after_ms: None,
    };
    match &held.state {
        State::Waiting(_) | State::Running { acknowledged: true, .. } => None,
        State::Running { started, .. } => {
            report.started_ms_ago = Some(ms_since(*started, now));
            Some(report)
        }
        State::Ended(outcome) => {
            report.status = outcome.status;
            report.started_ms_ago = outcome.started.map(|started| ms_since(started, now));
            report.ended_ms_ago = outcome.started.map(|_| ms_since(outcome.ended, now));
            report.result = outcome.result.clone();
            if let Some(failure) = &outcome.failure {
                report.error = Some(failure.error.clone());
                report.permanent = failure.permanent;
            }
            report.retry_after_ms = outcome.retry_after_ms;
            Some(report)
        }
    }
}
