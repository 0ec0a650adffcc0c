//! Looks that begin below where something was found last: now and then, and seldom enough to take no more than a hundredth of the
//! time.

use std::time::{Duration, Instant};

/// While somebody holds a transaction open, what lies below the marks piles up, nothing may remove it, and a look takes long.
const SHARE: u32 = 100;

/// When to begin further down, or at the bottom, and not where the last look found something.
#[derive(Debug, Default)]
pub struct DeepLooks {
    next: Option<Instant>,
}

impl DeepLooks {
    /// Whether a look that begins now begins there. The first one does.
    pub fn is_due(&self, now: Instant) -> bool {
        self.not_before(now).is_none()
    }

    /// When the next one is due; `None` when it is now.
    pub fn not_before(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|next| now < *next)
    }

    /// Such a look has ended. The next one comes so long after its beginning, or later when it took long.
    pub fn looked(&mut self, began: Instant, every: Duration) {
        let now = Instant::now();
        let took = now.saturating_duration_since(began);
        self.next = began.checked_add(every.max(took * SHARE)).or(self.next);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn looks_from_the_bottom_are_as_far_apart_as_asked_for_and_take_a_hundredth_of_the_time() {
        let mut looks = DeepLooks::default();
        let now = Instant::now();
        assert!(looks.is_due(now));
        looks.looked(now, MINUTE);
        assert!(!looks.is_due(now + MINUTE - Duration::from_secs(1)));
        assert!(looks.is_due(now + MINUTE));
        let began = now - Duration::from_secs(2);
        looks.looked(began, MINUTE);
        assert!(!looks.is_due(began + Duration::from_secs(199)));
        assert!(looks.is_due(began + Duration::from_secs(210)));
    }
}
