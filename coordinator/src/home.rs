//! With which coordinator a worker is at home: the one it speaks to, unless another has clearly fewer workers.

use taskmaster_store::fleet::Coordinator;
use uuid::Uuid;

/// A worker moves when its coordinator has at least so many workers more than another.
const IMBALANCE: i64 = 2;

/// Who should have one of `mine` workers of coordinator `me`: another live one, or nobody else.
pub fn better_home(me: Uuid, mine: i64, live: &[Coordinator]) -> Option<&Coordinator> {
    let least = live.iter().filter(|c| c.id != me).min_by_key(|c| (c.workers, c.id))?;
    (mine - least.workers >= IMBALANCE).then_some(least)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One for each number: of its workers, of one slot each.
    pub(crate) fn coordinators(workers: &[i64]) -> Vec<Coordinator> {
        let coordinator = |(i, n): (usize, &i64)| Coordinator {
            id: Uuid::from_u128(i as u128),
            address: String::new(),
            workers: *n,
            slots: *n,
        };
        workers.iter().enumerate().map(coordinator).collect()
    }

    #[test]
    fn a_worker_of_a_lone_coordinator_stays() {
        assert_eq!(better_home(Uuid::from_u128(0), 9, &coordinators(&[9])), None);
    }

    proptest! {
        #[test]
        fn moving_workers_ends_with_all_coordinators_within_one_of_another(mut workers in prop::collection::vec(0..40i64, 1..6)) {
            let mut moves = 0;
            while let Some((from, to)) = (0..workers.len()).find_map(|from| {
                let live = coordinators(&workers);
                better_home(live[from].id, workers[from], &live).map(|to| (from, to.id.as_u128() as usize))
            }) {
                workers[from] -= 1;
                workers[to] += 1;
                moves += 1;
                prop_assert!(moves <= 400);
            }
            prop_assert!(workers.iter().max().unwrap() - workers.iter().min().unwrap() <= 1);
        }
    }
}
