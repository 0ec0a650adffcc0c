//! How much of a system queue may be in flight at once: pure rules.
//!
//! Deliveries of webhooks go to people whose servers may be down, or hang until the time-out. A lane of theirs begins with one in
//! flight, is allowed one more by every success, and falls back to one by a failure. All of them together have at most half of the slots,
//! and those whose last attempt failed at most half of that: so neither tasks nor other subscribers wait for who is down.

use std::collections::HashMap;

/// In flight at once of one lane.
const ALLOWED_MAX: usize = 16;

/// What is known of one lane of a system queue.
#[derive(Debug, Clone, Copy)]
struct Flow {
    allowed: usize,
    /// Its last attempt failed.
    failing: bool,
}

/// One of which nothing is known.
const FRESH: Flow = Flow { allowed: 1, failing: false };

/// What is known of the lanes of system queues.
#[derive(Debug, Default)]
pub struct Flows {
    lanes: HashMap<i32, Flow>,
    /// Where the next round begins; 0 before the first.
    turn: usize,
}

impl Flows {
    /// An attempt of the lane has ended.
    pub fn ended(&mut self, lane: i32, success: bool) {
        let flow = self.lanes.entry(lane).or_insert(FRESH);
        flow.failing = !success;
        flow.allowed = if success { (flow.allowed + 1).min(ALLOWED_MAX) } else { 1 };
    }

    /// Whether any was ever asked for.
    pub fn are_used(&self) -> bool {
        self.turn > 0
    }

    fn of(&self, lane: i32) -> Flow {
        self.lanes.get(&lane).copied().unwrap_or(FRESH)
    }

    /// How many tasks of each of these lanes may be claimed now, beside those that are out, with so many slots in all. One after another
    /// in turn, so that many lanes share what few slots there are.
    pub fn rooms(&mut self, lanes: &[i32], out: &HashMap<i32, usize>, slots: usize) -> HashMap<i32, usize> {
        let all_max = (slots / 2).max(1);
        let failing_max = (all_max / 2).max(1);
        let failing_out: usize = out.iter().filter(|(lane, _)| self.of(**lane).failing).map(|(_, out)| out).sum();
        let mut left = all_max.saturating_sub(out.values().sum());
        let mut failing_left = failing_max.saturating_sub(failing_out);
        let mut rooms: HashMap<i32, usize> = HashMap::new();
        self.turn = self.turn.wrapping_add(1);
        let turn = self.turn % lanes.len().max(1);
        loop {
            let before = left;
            for lane in lanes[turn..].iter().chain(&lanes[..turn]) {
                let room = rooms.entry(*lane).or_default();
                let has = out.get(lane).copied().unwrap_or(0) + *room;
                let flow = self.of(*lane);
                if left == 0 || has >= flow.allowed || (flow.failing && failing_left == 0) {
                    continue;
                }
                failing_left -= usize::from(flow.failing);
                left -= 1;
                *room += 1;
            }
            if left == before {
                return rooms;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_lane_grows_by_success_and_falls_back_to_one_by_a_failure() {
        let mut flows = Flows::default();
        let mut room = |outcomes: &[bool]| {
            outcomes.iter().for_each(|success| flows.ended(-1, *success));
            flows.rooms(&[-1], &HashMap::new(), 1_000)[&-1]
        };
        assert_eq!([room(&[]), room(&[true]), room(&[true; 2]), room(&[true; 99])], [1, 2, 4, ALLOWED_MAX]);
        assert_eq!([room(&[false]), room(&[true])], [1, 2]);
    }

    #[test]
    fn those_that_are_down_leave_room_to_others() {
        let mut flows = Flows::default();
        (0..99).for_each(|_| flows.ended(-9, true));
        (-5..0).for_each(|lane| flows.ended(lane, false));
        let rooms = flows.rooms(&[-1, -2, -3, -4, -5, -9], &HashMap::from([(-1, 1)]), 16);
        let failing: usize = (-5..0).map(|lane| rooms[&lane]).sum();
        assert_eq!(
            (failing, rooms[&-9]),
            (3, 4),
            "eight of sixteen slots, four of them for five that are down: {rooms:?}"
        );
        let one_hangs = HashMap::from([(-1, 1)]);
        assert_eq!(
            Flows::default().rooms(&[-1, -2], &one_hangs, 5),
            HashMap::from([(-1, 0), (-2, 1)]),
            "two of five slots"
        );
    }

    #[test]
    fn a_single_slot_is_shared_in_turn() {
        let mut flows = Flows::default();
        let mut first = || {
            let rooms = flows.rooms(&[-1, -2, -3], &HashMap::new(), 1);
            rooms.into_iter().find(|(_, room)| *room > 0).unwrap().0
        };
        let mut firsts = [first(), first(), first()];
        firsts.sort_unstable();
        assert_eq!(firsts, [-3, -2, -1]);
    }

    proptest! {
        #[test]
        fn no_more_than_half_of_the_slots_is_ever_given(
            outs in proptest::collection::hash_map(-20..0i32, 0..5usize, 0..20),
            outcomes in proptest::collection::vec((-20..0i32, proptest::bool::ANY), 0..100), slots in 0..200usize,
        ) {
            let mut flows = Flows::default();
            outcomes.iter().for_each(|(lane, success)| flows.ended(*lane, *success));
            let rooms = flows.rooms(&(-20..0).collect::<Vec<_>>(), &outs, slots);
            let (given, out): (usize, usize) = (rooms.values().sum(), outs.values().sum());
            prop_assert!(given == 0 || given + out <= (slots / 2).max(1));
        }
    }
}
