//! What is to become of a schedule's occurrences: pure rules. No clock, no database, no randomness.

use chrono::{DateTime, TimeDelta, Utc};
use taskmaster_openapi::schedule::{CatchUp, Overlap};

use super::recurrence::Recurrence;

/// What is not later than this is late, not missed: another coordinator has taken over, or the database was away for a moment.
const LATE: TimeDelta = TimeDelta::seconds(60);
/// Schedules that need not look at the run before are looked at so long before an occurrence, so that their tasks start on time, ...
const EARLY: TimeDelta = TimeDelta::seconds(2);
/// ... and then fire all that comes within this, so that one that fires every second is not looked at every second.
const AHEAD: TimeDelta = TimeDelta::seconds(4);
/// Occurrences of one schedule that are fired at once; the rest follows.
const FIRED_MAX: usize = 100;

const INSTANT: TimeDelta = TimeDelta::microseconds(1);

/// A schedule that is to be looked at.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    pub recurrence: Recurrence,
    /// The first occurrence that has no run.
    pub next: DateTime<Utc>,
    pub now: DateTime<Utc>,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    pub catch_up_window: TimeDelta,
    /// The task of the newest occurrence has not ended.
    pub is_live: bool,
    /// An occurrence waits already.
    pub is_waiting: bool,
}

/// What becomes of an occurrence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    Fire,
    /// Until the one before has ended.
    Wait,
    Skip(&'static str),
    /// So many up to this one, none of which is run.
    Miss {
        last: DateTime<Utc>,
        count: usize,
    },
}

pub(crate) const OVERLAPS: &str = "the run before had not ended";
const WAITED: &str = "the run before had not ended, and another one waited for that";
const OVERTAKEN: &str = "a later occurrence was due as well";

/// What becomes of the occurrences that are due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Plan {
    pub fates: Vec<(DateTime<Utc>, Fate)>,
    /// The task before is to be cancelled.
    pub cancels_old: bool,
    /// The first occurrence that has no run then; `None` when there is none.
    pub next: Option<DateTime<Utc>>,
}

/// Decides on what is due.
pub(crate) fn plan(due: &Due) -> Plan {
    let mut plan = Plan::default();
    let mut at = Some(due.next);
    if due.next < due.now - LATE {
        let from = caught_up_from(due);
        if from > due.next {
            plan.fates.extend(missed(&due.recurrence, due.next, from));
            at = due.recurrence.next(from - INSTANT);
        }
    }
    let until = match due.overlap {
        Overlap::Allow => due.now + AHEAD,
        // Whether the one before has ended is known only then.
        Overlap::Skip | Overlap::QueueOne | Overlap::CancelOld => due.now,
    };
    let mut times = Vec::new();
    while let Some(time) = at.filter(|time| *time <= until && times.len() < FIRED_MAX) {
        times.push(time);
        at = due.recurrence.next(time);
    }
    plan.next = at;
    plan.decide(due, &times);
    plan
}

impl Plan {
    fn decide(&mut self, due: &Due, times: &[DateTime<Utc>]) {
        let (mut is_live, mut is_waiting) = (due.is_live, due.is_waiting);
        for (i, time) in times.iter().enumerate() {
            let fate = match due.overlap {
                Overlap::Allow => Fate::Fire,
                Overlap::Skip if is_live => Fate::Skip(OVERLAPS),
                Overlap::QueueOne if is_waiting => Fate::Skip(WAITED),
                Overlap::QueueOne if is_live => Fate::Wait,
                Overlap::CancelOld if i + 1 < times.len() => Fate::Skip(OVERTAKEN),
                Overlap::CancelOld => {
                    self.cancels_old = is_live;
                    Fate::Fire
                }
                Overlap::Skip | Overlap::QueueOne => Fate::Fire,
            };
            is_live |= fate == Fate::Fire;
            is_waiting |= fate == Fate::Wait;
            self.fates.push((*time, fate));
        }
    }
}

/// When a schedule whose next occurrence is this one is to be looked at.
pub(crate) fn wake_at(next: DateTime<Utc>, overlap: Overlap) -> DateTime<Utc> {
    match overlap {
        Overlap::Allow => next - EARLY,
        Overlap::Skip | Overlap::QueueOne | Overlap::CancelOld => next,
    }
}

/// The time before which nothing is caught up on.
fn caught_up_from(due: &Due) -> DateTime<Utc> {
    let in_window = due.now - due.catch_up_window.max(LATE);
    match due.catch_up {
        CatchUp::None => due.now - LATE,
        CatchUp::All => in_window,
        CatchUp::Last => in_window.max(due.recurrence.last(due.next - INSTANT, due.now).unwrap_or(due.next)),
    }
}

/// The occurrences in `[first, from)`.
fn missed(recurrence: &Recurrence, first: DateTime<Utc>, from: DateTime<Utc>) -> Option<(DateTime<Utc>, Fate)> {
    let last = recurrence.last(first - INSTANT, from - INSTANT)?;
    Some((first, Fate::Miss { last, count: recurrence.count(first - INSTANT, last) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn second(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    fn due(every: i64, next: i64, now: i64) -> Due {
        Due {
            recurrence: Recurrence::every(every, second(0)),
            next: second(next),
            now: second(now),
            overlap: Overlap::Allow,
            catch_up: CatchUp::Last,
            catch_up_window: TimeDelta::hours(1),
            is_live: false,
            is_waiting: false,
        }
    }

    fn fired(plan: &Plan) -> Vec<i64> {
        let fired = plan.fates.iter().filter(|(_, fate)| *fate == Fate::Fire);
        fired.map(|(time, _)| (*time - second(0)).num_seconds()).collect()
    }

    #[test]
    fn what_comes_soon_is_fired_ahead_unless_the_run_before_matters() {
        let ahead = plan(&due(1, 10, 8));
        assert_eq!((fired(&ahead), ahead.next), (vec![10, 11, 12], Some(second(13))));
        let at_its_time = plan(&Due { overlap: Overlap::Skip, ..due(1, 10, 10) });
        assert_eq!((fired(&at_its_time), at_its_time.next), (vec![10], Some(second(11))));
        let early = plan(&Due { overlap: Overlap::Skip, ..due(1, 10, 9) });
        assert_eq!((early.fates, early.next), (vec![], Some(second(10))));
    }

    #[test]
    fn what_is_up_to_a_minute_late_is_run_whatever_the_policy() {
        for catch_up in CatchUp::ALL {
            let late = plan(&Due { catch_up, ..due(10, 10, 69) });
            assert_eq!(fired(&late), [10, 20, 30, 40, 50, 60, 70], "{catch_up:?}");
        }
    }

    #[test]
    fn what_is_later_is_caught_up_on_as_the_policy_says_and_the_rest_is_missed() {
        let of = |catch_up, window| {
            let late = plan(&Due { catch_up, catch_up_window: TimeDelta::seconds(window), ..due(60, 60, 7_210) });
            let missed: Vec<_> =
                late.fates.iter().filter(|(_, fate)| matches!(fate, Fate::Miss { .. })).cloned().collect();
            (missed, fired(&late).len(), fired(&late).first().copied())
        };
        let missed = |last, count| vec![(second(60), Fate::Miss { last: second(last), count })];
        assert_eq!(of(CatchUp::Last, 86_400), (missed(7_140, 119), 1, Some(7_200)));
        assert_eq!(of(CatchUp::None, 86_400), (missed(7_140, 119), 1, Some(7_200)));
        assert_eq!(of(CatchUp::All, 3_600), (missed(3_600, 60), 60, Some(3_660)));
        assert_eq!(of(CatchUp::All, 86_400), (vec![], FIRED_MAX, Some(60)));
        // An hourly one: the last lies outside of the window.
        let late = plan(&Due { catch_up_window: TimeDelta::seconds(60), ..due(3_600, 3_600, 9_000) });
        assert_eq!(late.fates, [(second(3_600), Fate::Miss { last: second(7_200), count: 2 })]);
        assert_eq!(late.next, Some(second(10_800)));
    }

    #[test]
    fn the_run_before_decides_as_the_policy_says() {
        let of = |overlap, is_live, is_waiting, now| {
            let plan = plan(&Due { overlap, is_live, is_waiting, ..due(10, 10, now) });
            let fates: Vec<Fate> = plan.fates.iter().map(|(_, fate)| fate.clone()).collect();
            (fates, plan.cancels_old)
        };
        assert_eq!(of(Overlap::Skip, false, false, 10), (vec![Fate::Fire], false));
        assert_eq!(of(Overlap::Skip, true, false, 10), (vec![Fate::Skip(OVERLAPS)], false));
        assert_eq!(of(Overlap::Skip, false, false, 20), (vec![Fate::Fire, Fate::Skip(OVERLAPS)], false));
        assert_eq!(of(Overlap::QueueOne, false, false, 10), (vec![Fate::Fire], false));
        assert_eq!(of(Overlap::QueueOne, true, false, 20), (vec![Fate::Wait, Fate::Skip(WAITED)], false));
        assert_eq!(of(Overlap::QueueOne, false, true, 10), (vec![Fate::Skip(WAITED)], false));
        assert_eq!(of(Overlap::CancelOld, true, false, 10), (vec![Fate::Fire], true));
        assert_eq!(of(Overlap::CancelOld, true, false, 20), (vec![Fate::Skip(OVERTAKEN), Fate::Fire], true));
        assert_eq!(of(Overlap::CancelOld, false, false, 10), (vec![Fate::Fire], false));
    }

    proptest! {
        /// However often it is looked at, and however late: every occurrence has one fate, and none is passed over.
        #[test]
        fn every_occurrence_has_one_fate(
            every in 1..200_i64, pauses in prop::collection::vec(0..2_000_i64, 1..20), overlap in 0..4_usize, catch_up in 0..3_usize,
            is_live: bool,
        ) {
            let (mut now, mut next) = (0, Some(second(every)));
            let mut told = Vec::new();
            for pause in pauses {
                now += pause;
                // As long as something is due.
                for _ in 0..100 {
                    let Some(at) = next else { break };
                    let plan = plan(&Due {
                        next: at, overlap: Overlap::ALL[overlap], catch_up: CatchUp::ALL[catch_up], is_live, ..due(every, 0, now)
                    });
                    if plan.fates.is_empty() { break }
                    for (time, fate) in plan.fates {
                        let count = match fate { Fate::Miss { count, .. } => count, _ => 1 };
                        told.extend((0..count as i64).map(|i| time + TimeDelta::seconds(every * i)));
                    }
                    next = plan.next;
                }
            }
            let expected: Vec<_> = (1..=told.len() as i64).map(|i| second(every * i)).collect();
            prop_assert_eq!(told, expected);
        }
    }
}
