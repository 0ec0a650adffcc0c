//! How often something happens.

use std::time::Instant;

/// The time over which the rate is averaged, in seconds: short, so that what was idle is soon known to be busy, and long enough
/// that a few at once are not taken for many.
const AVERAGED_SECONDS: f64 = 0.2;

/// A rate of events that forgets exponentially.
#[derive(Debug, Clone)]
pub struct Rate {
    per_second: f64,
    at: Instant,
}

impl Rate {
    pub fn new(now: Instant) -> Self {
        Self { per_second: 0.0, at: now }
    }

    /// So many events happened just now.
    pub fn add(&mut self, events: usize, now: Instant) {
        self.per_second = self.get(now) + events as f64 / AVERAGED_SECONDS;
        self.at = now;
    }

    /// Events a second, as of now.
    pub fn get(&self, now: Instant) -> f64 {
        let idle_seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.per_second * (-idle_seconds / AVERAGED_SECONDS).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_steady_stream_is_measured_and_silence_is_forgotten() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for ms in (0..5_000).step_by(10) {
            rate.add(10, start + Duration::from_millis(ms));
        }
        let now = start + Duration::from_millis(4_990);
        assert!((rate.get(now) - 1_000.0).abs() < 120.0, "{}", rate.get(now));
        assert!(rate.get(now + Duration::from_secs(5)) < 1.0);
    }
}
