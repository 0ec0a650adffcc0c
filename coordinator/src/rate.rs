//! How fast a worker gets through its tasks, and how long they take it.

use std::time::Instant;

/// The time over which the rate is averaged, in seconds: short, so that an idle worker is soon known to be fast.
const AVERAGED_SECONDS: f64 = 0.05;

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

/// The last so many tasks count, more or less.
const AVERAGED_TASKS: f64 = 16.0;
/// What reports say is in whole milliseconds: those that took none took so long.
const LEAST_SECONDS: f64 = 0.000_25;

/// How long tasks took lately: an average that forgets with every task.
#[derive(Debug, Clone, Default)]
pub struct Took {
    seconds: Option<f64>,
}

impl Took {
    pub fn add(&mut self, seconds: f64) {
        let before = self.seconds.unwrap_or(seconds);
        self.seconds = Some(before + (seconds - before) / AVERAGED_TASKS);
    }

    /// [`LEAST_SECONDS`] at least, also when nothing is known.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or_default().max(LEAST_SECONDS)
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

    #[test]
    fn what_took_long_is_forgotten_over_the_tasks_that_do_not() {
        let mut took = Took::default();
        assert_eq!(took.seconds(), LEAST_SECONDS);
        took.add(10.0);
        assert_eq!(took.seconds(), 10.0);
        (0..16).for_each(|_| took.add(0.0));
        assert!((3.0..4.0).contains(&took.seconds()), "{took:?}");
        (0..1_000).for_each(|_| took.add(0.0));
        assert_eq!(took.seconds(), LEAST_SECONDS);
    }
}
