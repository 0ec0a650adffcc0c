//! Letting go of tasks: because a coordinator says so, or because the worker leaves.

use std::time::{Duration, Instant};

use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::worker::{ReleaseCode, ReleaseResult};

use super::{Board, State};
use crate::board::reports::Outcome;

/// So long a task that is due waits for a slot of its worker at most: several times what its coordinator reckons with, so that only
/// what takes unlike longer than what came before it makes others wait so long.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

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
        while self.hand_back_first(now) {}
    }

    /// Hands back what has waited for a slot for [`PATIENCE`], while all of them were busy: another worker may have one. Whether that
    /// was any.
    pub fn hand_back_overdue(&mut self, now: Instant) -> bool {
        let mut any = false;
        while self.overdue_from().is_some_and(|overdue| overdue <= now) && self.hand_back_first(now) {
            any = true;
        }
        any
    }

    /// Hands back what waits first; `false` when nothing does.
    fn hand_back_first(&mut self, now: Instant) -> bool {
        let Some(task) = self.waiting.pop_first() else { return false };
        self.keep_outcome(super::claim_of(&task), Outcome::released(now));
        true
    }

    /// When what waits first will have waited for too long; `None` when it does not wait for a slot.
    pub(super) fn overdue_from(&self) -> Option<Instant> {
        let waits_for_slot = self.running >= self.bounds.slots && !self.draining;
        self.waiting.first_due().filter(|_| waits_for_slot)?.checked_add(PATIENCE)
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
