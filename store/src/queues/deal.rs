//! Who has how much of what room a queue has: pure rules.
//!
//! Flow keys take turns: each is given one task of the room before any is given another, beginning after the one whose turn was last. So a key
//! with a hundred thousand tasks is no more in the way of one with a single task than a key with two. Priorities, and how long tasks have
//! waited, order the tasks of one key.

use crate::claim::AGING_SECONDS;

/// What is due in one band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Waiting {
    pub priority: i16,
    /// Tasks, counted no further than there may be room for.
    pub due: usize,
    /// How long the first of them has been due.
    pub waited_seconds: f64,
}

impl Waiting {
    /// As claims see it: waiting raises the priority.
    fn level(&self) -> f64 {
        f64::from(self.priority) + (self.waited_seconds / AGING_SECONDS).floor()
    }
}

/// What is due of one flow key, and how much of it may be taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    pub key: String,
    /// What the limits of the key leave.
    pub room: usize,
    pub bands: Vec<Waiting>,
}

/// How much each band may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dealt {
    /// By share, and by band of the share.
    pub given: Vec<Vec<usize>>,
    /// The key whose turn was last.
    pub last: Option<String>,
}

/// Deals so much room. The shares are ordered by their keys; the turn begins after `last`.
pub fn deal(shares: &[Share], room: usize, last: Option<&str>) -> Dealt {
    let mut dealt = Dealt { given: shares.iter().map(|share| vec![0; share.bands.len()]).collect(), last: None };
    let orders: Vec<Vec<usize>> = shares.iter().map(order).collect();
    let first = last.map_or(0, |last| shares.partition_point(|share| share.key.as_str() <= last));
    let mut turns: Vec<usize> = (first..shares.len()).chain(0..first).collect();
    let mut left = room;
    while left > 0 && !turns.is_empty() {
        turns.retain(|turn| {
            let (share, given) = (&shares[*turn], &mut dealt.given[*turn]);
            let next = orders[*turn].iter().find(|band| given[**band] < share.bands[**band].due);
            let Some(band) = next.filter(|_| given.iter().sum::<usize>() < share.room) else { return false };
            if left > 0 {
                given[*band] += 1;
                left -= 1;
                dealt.last = Some(share.key.clone());
            }
            true
        });
    }
    dealt
}

/// The bands of a share, the one to take from first.
fn order(share: &Share) -> Vec<usize> {
    let mut order: Vec<usize> = (0..share.bands.len()).collect();
    let rank = |band: &usize| (share.bands[*band].level(), share.bands[*band].waited_seconds);
    order.sort_by(|a, b| rank(b).partial_cmp(&rank(a)).unwrap_or(std::cmp::Ordering::Equal));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(key: &str, room: usize, due: usize) -> Share {
        Share { key: key.into(), room, bands: vec![Waiting { priority: 0, due, waited_seconds: 0.0 }] }
    }

    fn given(dealt: &Dealt) -> Vec<usize> {
        dealt.given.iter().map(|bands| bands.iter().sum()).collect()
    }

    #[test]
    fn one_task_waits_for_no_more_than_a_turn_of_each_other_key() {
        let shares = [share("many", 9, 100_000), share("one", 9, 1), share("two", 9, 2)];
        assert_eq!(given(&deal(&shares, 3, None)), [1, 1, 1]);
        assert_eq!(given(&deal(&shares, 9, None)), [6, 1, 2]);
        let mut last = None;
        let order: Vec<String> = (0..4)
            .map(|_| {
                last = deal(&shares, 1, last.as_deref()).last;
                last.clone().unwrap()
            })
            .collect();
        assert_eq!(order, ["many", "one", "two", "many"]);
    }

    #[test]
    fn the_limit_of_a_key_holds_and_leaves_the_rest_to_others() {
        let shares = [share("a", 1, 10), share("b", 0, 10), share("c", 5, 10)];
        assert_eq!(given(&deal(&shares, 10, Some("c"))), [1, 0, 5]);
    }

    #[test]
    fn of_one_key_the_higher_priority_comes_first_and_waiting_raises_it() {
        let band = |priority, waited_seconds| Waiting { priority, due: 2, waited_seconds };
        let share = Share { key: "a".into(), room: 9, bands: vec![band(0, 10.0), band(5, 1.0), band(1, 301.0)] };
        assert_eq!(deal(&[share], 3, None).given, [[0, 1, 2]]);
    }

    proptest! {
        #[test]
        fn no_room_is_exceeded_none_is_wasted_and_shares_differ_by_one(
            rooms in proptest::collection::vec((0..8usize, proptest::collection::vec((0..10i16, 0..6usize, 0.0..900.0f64), 1..4)), 0..12),
            room in 0..40usize, last in proptest::option::of(0..12usize),
        ) {
            let shares: Vec<Share> = rooms.iter().enumerate().map(|(i, (room, bands))| Share {
                key: format!("{i:02}"),
                room: *room,
                bands: bands.iter().map(|(priority, due, waited_seconds)| {
                    Waiting { priority: *priority, due: *due, waited_seconds: *waited_seconds }
                }).collect(),
            }).collect();
            let dealt = deal(&shares, room, last.map(|last| format!("{last:02}")).as_deref());
            let given = given(&dealt);
            let total: usize = given.iter().sum();
            prop_assert!(total <= room);
            let could: Vec<usize> = shares.iter().map(|s| s.room.min(s.bands.iter().map(|b| b.due).sum())).collect();
            for (share, (given, could)) in shares.iter().zip(dealt.given.iter().zip(&could)) {
                prop_assert!(given.iter().sum::<usize>() <= *could);
                prop_assert!(given.iter().zip(&share.bands).all(|(given, band)| *given <= band.due));
            }
            prop_assert_eq!(total, room.min(could.iter().sum()));
            // Who could have had more has no less than any other has, but for one.
            for (mine, could) in given.iter().zip(&could).filter(|(mine, could)| mine < could) {
                prop_assert!(given.iter().all(|other| *other <= mine + 1), "{given:?} of {could}");
            }
        }
    }
}
