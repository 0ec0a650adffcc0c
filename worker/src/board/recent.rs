//! Claims that are over, so that a late copy of a submission is recognised.

use std::collections::{HashSet, VecDeque};

use taskmaster_openapi::report::TaskClaim;

/// Claims that are remembered; about 5 MB. At a thousand tasks a second that is the last 50 s, far beyond the repetition of a
/// request. A claim that is forgotten and submitted again would run again, and its reports would change nothing.
const RECENT_CLAIMS_MAX: usize = 50_000;

/// The last claims that ended here.
#[derive(Debug, Default)]
pub(super) struct Recent {
    known: HashSet<TaskClaim>,
    order: VecDeque<TaskClaim>,
}

impl Recent {
    pub fn contains(&self, claim: &TaskClaim) -> bool {
        self.known.contains(claim)
    }

    pub fn insert(&mut self, claim: TaskClaim) {
        if !self.known.insert(claim) {
            return;
        }
        self.order.push_back(claim);
        if self.order.len() > RECENT_CLAIMS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn the_memory_is_bounded_and_loses_the_oldest_first() {
        let mut recent = Recent::default();
        let claim = |claim| TaskClaim { task_id: Uuid::nil(), claim };
        for number in 0..RECENT_CLAIMS_MAX as i64 + 10 {
            recent.insert(claim(number));
            recent.insert(claim(number));
        }
        assert_eq!((recent.known.len(), recent.order.len()), (RECENT_CLAIMS_MAX, RECENT_CLAIMS_MAX));
        assert!(!recent.contains(&claim(9)) && recent.contains(&claim(10)));
    }
}
