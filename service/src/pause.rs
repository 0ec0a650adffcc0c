//! Waits between tries of what must succeed in the end.

use std::time::Duration;

/// Doubling waits up to a maximum.
#[derive(Debug, Clone)]
pub struct Pause {
    next: Duration,
    first: Duration,
    max: Duration,
}

impl Pause {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { next: first, first, max }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        wait
    }

    /// A try succeeded: the next wait is the first again.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}
