//! How long a worker's tasks take.

/// The last so many tasks count, more or less.
const AVERAGED_TASKS: f64 = 16.0;
/// What reports say is in whole milliseconds: those that took none took so long.
const LEAST_SECONDS: f64 = 0.000_1;

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
