//! What a coordinator takes at first of tasks that have just come: its part, by slots.
//!
//! All coordinators hear of them at the same moment. If each claimed all that it has room for, the first one would have everything, and
//! its workers with it.

use taskmaster_store::fleet::Coordinator;
use uuid::Uuid;

/// How many of so many tasks are the part of coordinator `me`, rounded up, so that the parts are all of it; `None` is everything,
/// when nobody else has slots.
pub fn part(tasks: usize, me: Uuid, live: &[Coordinator]) -> Option<usize> {
    let slots = |c: &Coordinator| u128::from(c.slots.unsigned_abs());
    let all: u128 = live.iter().map(slots).sum();
    let mine = live.iter().find(|c| c.id == me).map_or(0, slots);
    let part = (tasks as u128 * mine).div_ceil(all.max(1));
    (mine < all).then(|| usize::try_from(part).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::tests::coordinators;
    use proptest::prelude::*;

    #[test]
    fn a_lone_coordinator_takes_everything() {
        assert_eq!(part(7, Uuid::from_u128(0), &coordinators(&[5])), None);
        assert_eq!(part(7, Uuid::from_u128(0), &coordinators(&[5, 0])), None);
        assert_eq!(part(7, Uuid::from_u128(0), &[]), None, "as long as it has heard of nobody");
    }

    proptest! {
        #[test]
        fn the_parts_are_all_of_it_and_each_is_within_one_of_its_share(
            tasks in 0..100_000_usize, slots in prop::collection::vec(1..10_000_i64, 2..8),
        ) {
            let live = coordinators(&slots);
            let parts: Vec<usize> = live.iter().filter_map(|c| part(tasks, c.id, &live)).collect();
            prop_assert_eq!(parts.len(), slots.len());
            prop_assert!(parts.iter().sum::<usize>() >= tasks);
            for (part, slots_of_one) in parts.iter().zip(&slots) {
                let share = tasks as f64 * *slots_of_one as f64 / slots.iter().sum::<i64>() as f64;
                prop_assert!((*part as f64 - share) < 1.0 + 1e-6 && *part as f64 >= share - 1e-6);
            }
        }
    }
}
