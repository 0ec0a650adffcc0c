//! What the worker holds: tasks that wait, tasks that run, and outcomes that nobody has acknowledged yet. The only state,
//! behind one lock; nothing here waits, and time is given by the caller.
//!
//! Every claim goes one way: waiting → running → ended → forgotten (and remembered for a while as finished).

mod letting_go;
mod queue;
mod recent;
mod reports;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::Work;
use taskmaster_openapi::worker::{SubmitCode, SubmitResult, SubmittedTask};
use tokio_util::sync::CancellationToken;

use crate::execute::Ending;
pub(crate) use letting_go::StopReason;
use queue::{Place, Queue};
use recent::Recent;
use reports::Outcome;

/// No task is started while unacknowledged outcomes take more memory than this.
const OUTCOME_BYTES_MAX: usize = 128 * 1024 * 1024;
/// There is no room for further tasks while the waiting ones take more memory than this.
const WAITING_BYTES_MAX: usize = 128 * 1024 * 1024;

/// How much a worker may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Tasks that run at once.
    pub slots: usize,
    /// Tasks that wait, beyond those that find a slot.
    pub queue_max: usize,
    /// Ended tasks whose outcome nobody has acknowledged; no task starts beyond.
    pub outcomes_max: usize,
}

#[derive(Debug)]
pub(crate) struct Board {
    bounds: Bounds,
    held: HashMap<TaskClaim, Held>,
    waiting: Queue,
    running: usize,
    ended: usize,
    ended_bytes: usize,
    recent: Recent,
    /// Claims that have something to report, each at most once.
    unsent: VecDeque<TaskClaim>,
    lease_until: Option<Instant>,
    draining: bool,
}

#[derive(Debug)]
struct Held {
    state: State,
    /// Whether the claim is in `unsent`.
    queued: bool,
}

#[derive(Debug)]
enum State {
    Waiting(Place),
    Running { started: Instant, acknowledged: bool, stop: CancellationToken, reason: Option<StopReason> },
    Ended(Box<Outcome>),
}

/// A task that has just been started.
#[derive(Debug)]
pub(crate) struct Started {
    pub task: SubmittedTask,
    /// Cancelled when the task is to be stopped.
    pub stop: CancellationToken,
}

impl Started {
    pub fn claim(&self) -> TaskClaim {
        claim_of(&self.task)
    }
}

/// What the worker holds, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub waiting: usize,
    pub running: usize,
    pub ended: usize,
    pub room: usize,
    pub draining: bool,
}

fn claim_of(task: &SubmittedTask) -> TaskClaim {
    TaskClaim { task_id: task.task_id, claim: task.claim }
}

impl Board {
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            held: HashMap::new(),
            waiting: Queue::default(),
            running: 0,
            ended: 0,
            ended_bytes: 0,
            recent: Recent::default(),
            unsent: VecDeque::new(),
            lease_until: None,
            draining: false,
        }
    }

    /// Takes tasks in, as far as there is room; `able` says which work this worker does.
    pub fn submit(
        &mut self,
        tasks: Vec<SubmittedTask>,
        able: impl Fn(&Work) -> bool,
        now: Instant,
    ) -> Vec<SubmitResult> {
        tasks
            .into_iter()
            .map(|task| {
                let TaskClaim { task_id, claim } = claim_of(&task);
                SubmitResult { task_id, claim, code: self.submit_one(task, &able, now) }
            })
            .collect()
    }

    fn submit_one(&mut self, task: SubmittedTask, able: impl Fn(&Work) -> bool, now: Instant) -> SubmitCode {
        let claim = claim_of(&task);
        if self.held.contains_key(&claim) || self.recent.contains(&claim) {
            return SubmitCode::AlreadyHeld;
        }
        if self.draining || !self.has_lease(now) {
            return SubmitCode::Draining;
        }
        if !able(&task.work) {
            return SubmitCode::Unsupported;
        }
        if self.room() == 0 {
            return SubmitCode::NoRoom;
        }
        // The routes have checked that the delay is a sane number; a time beyond the clock's range is never.
        let delay = Duration::try_from_secs_f64(task.start_in_ms / 1000.0).unwrap_or(Duration::MAX);
        let Some(due) = now.checked_add(delay) else { return SubmitCode::Unsupported };
        let place = self.waiting.insert(due, task);
        self.held.insert(claim, Held { state: State::Waiting(place), queued: false });
        SubmitCode::Accepted
    }

    /// Tasks it would still take. Outcomes on their way do not count: they occupy neither slots nor the queue.
    pub fn room(&self) -> usize {
        if self.draining || self.waiting.bytes() >= WAITING_BYTES_MAX {
            return 0;
        }
        (self.bounds.slots + self.bounds.queue_max).saturating_sub(self.waiting.len() + self.running)
    }

    /// Starts the first task that is due, when a slot, the lease and the space for its outcome allow it.
    pub fn start_due(&mut self, now: Instant) -> Option<Started> {
        if !self.may_start(now) || self.waiting.first_due()? > now {
            return None;
        }
        let task = self.waiting.pop_first()?;
        let (claim, stop) = (claim_of(&task), CancellationToken::new());
        let state = State::Running { started: now, acknowledged: false, stop: stop.clone(), reason: None };
        self.held.insert(claim, Held { state, queued: false });
        self.running += 1;
        self.queue_report(claim);
        Some(Started { task, stop })
    }

    /// When to look again for something to start or to hand back; `None` when something else (a free slot, a heartbeat's answer) must come
    /// first.
    pub fn next_look(&self, now: Instant) -> Option<Instant> {
        match self.may_start(now) {
            true => self.waiting.first_due(),
            false => self.overdue_from(),
        }
    }

    fn may_start(&self, now: Instant) -> bool {
        self.running < self.bounds.slots
            && !self.draining
            && self.has_lease(now)
            && self.ended + self.running < self.bounds.outcomes_max
            && self.ended_bytes < OUTCOME_BYTES_MAX
    }

    /// Whether a coordinator has acknowledged a heartbeat recently enough.
    pub fn has_lease(&self, now: Instant) -> bool {
        self.lease_until.is_some_and(|until| now < until)
    }

    /// A heartbeat was acknowledged: tasks may be started until then. Never shortens the lease.
    pub fn extend_lease(&mut self, until: Instant) {
        self.lease_until = self.lease_until.max(Some(until));
    }

    /// A started task has ended: frees its slot, and keeps its outcome until it is acknowledged.
    pub fn finish(&mut self, claim: TaskClaim, ending: Ending, now: Instant) {
        let Some(held) = self.held.get_mut(&claim) else { return };
        let State::Running { started, reason, .. } = held.state else { return };
        self.running -= 1;
        match Outcome::of(ending, reason, started, now) {
            Some(outcome) => self.keep_outcome(claim, outcome),
            None => self.forget(claim),
        }
    }

    fn keep_outcome(&mut self, claim: TaskClaim, outcome: Outcome) {
        self.ended += 1;
        self.ended_bytes += outcome.bytes;
        if let Some(held) = self.held.get_mut(&claim) {
            held.state = State::Ended(Box::new(outcome));
        }
        self.queue_report(claim);
    }

    /// The claim is over: it is remembered, so that a late copy of its submission does not run again.
    fn forget(&mut self, claim: TaskClaim) {
        if let Some(Held { state: State::Ended(outcome), .. }) = self.held.remove(&claim) {
            self.ended -= 1;
            self.ended_bytes -= outcome.bytes;
        }
        self.recent.insert(claim);
    }

    fn queue_report(&mut self, claim: TaskClaim) {
        if let Some(held) = self.held.get_mut(&claim)
            && !held.queued
        {
            held.queued = true;
            self.unsent.push_back(claim);
        }
    }

    /// Everything the worker holds, started or not, ended or not.
    pub fn held_claims(&self) -> Vec<TaskClaim> {
        self.held.keys().copied().collect()
    }

    pub fn counts(&self) -> Counts {
        Counts {
            waiting: self.waiting.len(),
            running: self.running,
            ended: self.ended,
            room: self.room(),
            draining: self.draining,
        }
    }
}
