//! Letting go of tasks: because a coordinator says so, or because the worker leaves.

use std::time::Instant;

use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::worker::{ReleaseCode, ReleaseResult};

use super::{Board, State};
use crate::board::reports::Outcome;

/// Why a running task is stopped; decides what is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// A coordinator says so: CANCELLED is reported.
    Told,
    /// The claim is not the worker's any more: nothing is reported.
    NotOurs,
    /// The worker leaves: FAILED is reported, as for a worker that died.
    WorkerLeaves,
}

impl Board {
    /// Lets go of what has not started; with `stop` also of what has.
    pub fn release(&mut self, claims: &[TaskClaim], stop: bool) -> Vec<ReleaseResult> {
        let mut results = Vec::with_capacity(claims.len());
        for claim in claims {
            let code = match self.held.get(claim).map(|held| &held.state) {
                None => ReleaseCode::Unknown,
                Some(State::Waiting(place)) => {
                    self.waiting.remove(*place);
                    self.forget(*claim);
                    ReleaseCode::Released
                }
                Some(_) if stop => {
                    self.stop_running(*claim, StopReason::Told);
                    ReleaseCode::Stopping
                }
                Some(_) => ReleaseCode::Running,
            };
            results.push(ReleaseResult { task_id: claim.task_id, claim: claim.claim, code });
        }
        results
    }

    /// Stops held tasks, as a heartbeat's answer says: what waits is reported RELEASED, what runs CANCELLED once it has ended.
    pub fn stop(&mut self, claims: &[TaskClaim], now: Instant) {
        for claim in claims {
            match self.held.get(claim).map(|held| &held.state) {
                Some(State::Waiting(place)) => {
                    self.waiting.remove(*place);
                    self.keep_outcome(*claim, Outcome::released(now));
                }
                Some(State::Running { .. }) => self.stop_running(*claim, StopReason::Told),
                Some(State::Ended(_)) | None => {}
            }
        }
    }

    /// Takes nothing new from now on, and hands back what has not started.
    pub fn drain(&mut self, now: Instant) {
        self.draining = true;
        while let Some(task) = self.waiting.pop_first() {
            self.keep_outcome(super::claim_of(&task), Outcome::released(now));
        }
    }

    /// Stops everything that runs.
    pub fn stop_all(&mut self, reason: StopReason) {
        let running: Vec<TaskClaim> = self
            .held
            .iter()
            .filter(|(_, h)| matches!(h.state, State::Running { .. }))
            .map(|(claim, _)| *claim)
            .collect();
        for claim in running {
            self.stop_running(claim, reason);
        }
    }

    /// Stops one running task. What was said first about why stays, unless the claim turns out not to be ours.
    pub(super) fn stop_running(&mut self, claim: TaskClaim, why: StopReason) {
        if let Some(held) = self.held.get_mut(&claim)
            && let State::Running { stop, reason, .. } = &mut held.state
        {
            if reason.is_none() || why == StopReason::NotOurs {
                *reason = Some(why);
            }
            stop.cancel();
        }
    }
}
