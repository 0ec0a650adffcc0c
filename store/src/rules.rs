//! What may happen to a task: pure rules. No clock, no database, no randomness of their own.

use std::time::Duration;

use taskmaster_openapi::limits;
use taskmaster_openapi::task::RetryPolicy;

/// Workers a task may lose before it is given up as one that kills its workers.
pub const LOST_WORKERS_MAX: i16 = 5;

/// What of a claimed task decides how it goes on.
#[derive(Debug, Clone, PartialEq)]
pub struct Standing {
    /// The worker said that it started.
    pub started: bool,
    /// Attempts that have started, the one that runs included.
    pub attempt: i16,
    pub max_attempts: i16,
    pub lost_workers: i16,
    pub cancel_requested: bool,
    pub retry: RetryPolicy,
}

/// What happened to a claimed task, other than success.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Happening {
    /// The attempt failed. `permanent`: the work itself said "never again". `retry_after`: it said "not before".
    Failed { permanent: bool, retry_after: Option<Duration> },
    /// The worker stopped the attempt because it was told to. Without a cancel that is a failed attempt.
    Stopped,
    /// The task came back unstarted: the worker had no room for it or was leaving, or nobody pushed it.
    HandedBack,
    /// As handed back, and not before so long: its target is not to be asked at the moment.
    PutOff(Duration),
    /// The worker died with it.
    WorkerLost,
}

/// How the task goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    pub next: Next,
    /// Attempts that have started, from now on.
    pub attempt: i16,
    /// Workers lost, from now on.
    pub lost_workers: i16,
    /// The claim comes back unused.
    pub hand_back: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Next {
    /// QUEUED again, due after so long.
    Again(Duration),
    /// FAILED for good.
    Failed,
    /// CANCELLED.
    Cancelled,
}

/// Decides how a task goes on. `random` is in 0..1 and drives the jitter.
///
/// A lost worker and a hand-back use up no attempt; losing workers has its own limit, so that a task that kills its workers ends.
pub fn settle(standing: &Standing, happening: Happening, random: f64) -> Verdict {
    let attempt = match happening {
        // A failure implies a start, reported or not.
        Happening::Failed { .. } | Happening::Stopped if !standing.started => standing.attempt + 1,
        Happening::WorkerLost | Happening::HandedBack | Happening::PutOff(_) if standing.started => {
            standing.attempt - 1
        }
        _ => standing.attempt,
    };
    let lost_workers = standing.lost_workers + i16::from(happening == Happening::WorkerLost);
    let hand_back = matches!(happening, Happening::HandedBack | Happening::PutOff(_));
    let next = match happening {
        _ if standing.cancel_requested => Next::Cancelled,
        Happening::HandedBack => Next::Again(Duration::ZERO),
        Happening::PutOff(after) => Next::Again(after),
        Happening::WorkerLost if lost_workers >= LOST_WORKERS_MAX => Next::Failed,
        Happening::WorkerLost => Next::Again(Duration::ZERO),
        Happening::Failed { permanent: true, .. } => Next::Failed,
        _ if attempt >= standing.max_attempts => Next::Failed,
        Happening::Failed { retry_after: Some(at_least), .. } => {
            Next::Again(delay(&standing.retry, attempt, random).max(at_least))
        }
        Happening::Failed { .. } | Happening::Stopped => Next::Again(delay(&standing.retry, attempt, random)),
    };
    let attempt = attempt.clamp(0, standing.max_attempts);
    Verdict { next, attempt, lost_workers, hand_back }
}

/// The pause after failed attempt number `attempt` (from 1): exponential with jitter, or from the list, whose last entry repeats.
pub fn delay(policy: &RetryPolicy, attempt: i16, random: f64) -> Duration {
    let step = usize::try_from(attempt - 1).unwrap_or(0);
    let base = match policy.delays_seconds.as_deref() {
        Some([]) => 0.0,
        Some(list) => list[step.min(list.len() - 1)],
        None => (policy.initial_seconds * policy.multiplier.powi(step as i32)).min(policy.max_seconds),
    };
    let varied = base * (1.0 + policy.jitter * (2.0 * random - 1.0));
    let bounded =
        if varied.is_finite() { varied.clamp(0.0, limits::RETRY_SECONDS_MAX) } else { limits::RETRY_SECONDS_MAX };
    Duration::from_secs_f64(bounded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn standing() -> Standing {
        Standing {
            started: true,
            attempt: 1,
            max_attempts: 3,
            lost_workers: 0,
            cancel_requested: false,
            retry: RetryPolicy { jitter: 0.0, ..RetryPolicy::default() },
        }
    }

    const FAILED: Happening = Happening::Failed { permanent: false, retry_after: None };

    #[test]
    fn a_failed_attempt_is_tried_again_until_attempts_are_used_up() {
        assert_eq!(settle(&standing(), FAILED, 0.5).next, Next::Again(Duration::from_secs(1)));
        assert_eq!(
            settle(&Standing { attempt: 2, ..standing() }, FAILED, 0.5).next,
            Next::Again(Duration::from_secs(2))
        );
        assert_eq!(settle(&Standing { attempt: 3, ..standing() }, FAILED, 0.5).next, Next::Failed);
    }

    #[test]
    fn a_failure_reported_without_a_start_counts_the_attempt() {
        let verdict = settle(&Standing { started: false, attempt: 2, ..standing() }, FAILED, 0.5);
        assert_eq!((verdict.attempt, verdict.next), (3, Next::Failed));
    }

    #[test]
    fn never_again_ends_at_once_and_not_before_is_honoured() {
        let never = Happening::Failed { permanent: true, retry_after: None };
        assert_eq!(settle(&standing(), never, 0.5).next, Next::Failed);
        let later = Happening::Failed { permanent: false, retry_after: Some(Duration::from_secs(90)) };
        assert_eq!(settle(&standing(), later, 0.5).next, Next::Again(Duration::from_secs(90)));
    }

    #[test]
    fn lost_workers_and_hand_backs_use_no_attempt_and_five_lost_workers_end_the_task() {
        let lost = settle(&standing(), Happening::WorkerLost, 0.5);
        assert_eq!((lost.attempt, lost.lost_workers, lost.next), (0, 1, Next::Again(Duration::ZERO)));
        let last = settle(&Standing { lost_workers: 4, ..standing() }, Happening::WorkerLost, 0.5);
        assert_eq!((last.lost_workers, last.next), (5, Next::Failed));
        let back =
            settle(&Standing { started: false, attempt: 0, lost_workers: 4, ..standing() }, Happening::HandedBack, 0.5);
        assert_eq!(
            (back.attempt, back.lost_workers, back.hand_back, back.next),
            (0, 4, true, Next::Again(Duration::ZERO))
        );
        let later = Duration::from_secs(7);
        let put_off = settle(&standing(), Happening::PutOff(later), 0.5);
        assert_eq!((put_off.attempt, put_off.hand_back, put_off.next), (0, true, Next::Again(later)));
    }

    #[test]
    fn a_requested_cancel_wins_over_every_other_way_on() {
        let put_off = Happening::PutOff(Duration::from_secs(1));
        for happening in [FAILED, Happening::Stopped, Happening::HandedBack, put_off, Happening::WorkerLost] {
            assert_eq!(
                settle(&Standing { cancel_requested: true, ..standing() }, happening, 0.5).next,
                Next::Cancelled
            );
        }
    }

    #[test]
    fn listed_delays_are_taken_in_turn_and_the_last_one_repeats() {
        let policy = RetryPolicy { delays_seconds: Some(vec![0.0, 5.0]), jitter: 0.0, ..RetryPolicy::default() };
        let delays: Vec<u64> = (1..=4).map(|attempt| delay(&policy, attempt, 0.5).as_secs()).collect();
        assert_eq!(delays, [0, 5, 5, 5]);
    }

    proptest! {
        #[test]
        fn delays_stay_within_jitter_and_maximum(
            initial in 0.0..1000.0f64, multiplier in 1.0..100.0f64, max in 0.0..604_800.0f64, jitter in 0.0..=1.0f64,
            attempt in 1..=100i16, random in 0.0..1.0f64,
        ) {
            let policy = RetryPolicy { initial_seconds: initial, multiplier, max_seconds: max, jitter, delays_seconds: None };
            let seconds = delay(&policy, attempt, random).as_secs_f64();
            prop_assert!(seconds <= (max * (1.0 + jitter)).min(limits::RETRY_SECONDS_MAX) + 1e-6);
            let unvaried = delay(&RetryPolicy { jitter: 0.0, ..policy.clone() }, attempt, random).as_secs_f64();
            prop_assert!(seconds >= unvaried * (1.0 - jitter) - 1e-6);
        }

        #[test]
        fn attempts_never_exceed_the_maximum(
            started: bool, attempt in 0..=5i16, max_attempts in 1..=5i16, lost_workers in 0..=5i16, cancel_requested: bool,
            which in 0..5usize, random in 0.0..1.0f64,
        ) {
            prop_assume!(attempt <= max_attempts && (started || attempt < max_attempts) && (!started || attempt > 0));
            let standing = Standing { started, attempt, max_attempts, lost_workers, cancel_requested, ..standing() };
            let put_off = Happening::PutOff(Duration::from_secs(1));
            let happening = [FAILED, Happening::Stopped, Happening::HandedBack, Happening::WorkerLost, put_off][which];
            let verdict = settle(&standing, happening, random);
            prop_assert!((0..=max_attempts).contains(&verdict.attempt));
            // Whoever is QUEUED again has an attempt left.
            if let Next::Again(_) = verdict.next {
                prop_assert!(verdict.attempt < max_attempts);
            }
        }
    }
}
