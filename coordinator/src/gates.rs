//! Which lanes may be claimed from, as far as is known here: not those of queues that are paused, nor, until there may be room, those whose
//! tasks the limits of their queue hold back. Pure; that limits hold is the store's to see to.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use taskmaster_store::claim::Lane;
use taskmaster_store::queues::book::{Gate, QueueBook};

/// What is known of lanes that are not open to all claims.
#[derive(Debug, Default)]
pub struct Gates {
    gated: HashMap<i32, Gate>,
    held_back: HashMap<i32, Instant>,
}

impl Gates {
    /// Sorts the lanes by what is set of their queues. Gives back those of queues with limits.
    pub fn sort(&mut self, lanes: &[Lane], book: &QueueBook) -> HashSet<i32> {
        self.gated.clear();
        if !book.is_empty() {
            let gates = lanes.iter().map(|lane| (lane.id, book.gate(&lane.key.queue)));
            self.gated.extend(gates.filter(|(_, gate)| *gate != Gate::Open));
        }
        self.gated.iter().filter(|(_, gate)| **gate == Gate::Limited).map(|(lane, _)| *lane).collect()
    }

    /// Whether the lane's tasks may be claimed now.
    pub fn is_open(&self, lane: i32) -> bool {
        self.gated.get(&lane) != Some(&Gate::Paused) && !self.is_held_back(lane)
    }

    /// Whether the limits of its queue hold the lane's tasks back.
    pub fn is_held_back(&self, lane: i32) -> bool {
        self.held_back.contains_key(&lane)
    }

    /// There may be room for the lane then.
    pub fn hold_back(&mut self, lane: i32, until: Instant) {
        self.held_back.insert(lane, until);
    }

    /// There may be room for any lane now.
    pub fn let_all_try(&mut self) {
        self.held_back.clear();
    }

    /// Lanes that were held back until now may try.
    pub fn let_try(&mut self, now: Instant) {
        self.held_back.retain(|_, until| *until > now);
    }

    /// When there may be room for some lane.
    pub fn next_try(&self) -> Option<Instant> {
        self.held_back.values().copied().min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_held_back_may_try_when_its_time_has_come_or_something_is_heard() {
        let now = Instant::now();
        let soon = now + Duration::from_millis(20);
        let mut gates = Gates::default();
        assert_eq!((gates.is_open(1), gates.next_try()), (true, None));
        gates.hold_back(1, soon);
        gates.hold_back(2, soon + Duration::from_secs(1));
        assert_eq!((gates.is_open(1), gates.is_open(3), gates.next_try()), (false, true, Some(soon)));
        gates.let_try(soon);
        assert_eq!((gates.is_open(1), gates.is_open(2)), (true, false));
        gates.let_all_try();
        assert!(gates.is_open(2) && gates.next_try().is_none());
    }
}
