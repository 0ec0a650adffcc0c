//! The figures of a measurement.

use std::fmt;
use std::time::Duration;

/// Percentiles of times in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Percentiles {
    pub fn of(mut ms: Vec<f64>) -> Self {
        ms.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (share * ms.len() as f64).ceil() as usize;
            ms.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:9.2}   p90 {:9.2}   p99 {:9.2}   max {:9.2} ms", self.p50, self.p90, self.p99, self.max)
    }
}

/// What was measured.
#[derive(Debug)]
pub(super) struct Report {
    pub tasks: u32,
    pub failed: i64,
    pub created_in: Duration,
    pub recorded_in: Duration,
    pub create_ms: Percentiles,
    pub lateness_ms: Percentiles,
    pub end_to_end_ms: Percentiles,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = |within: Duration| f64::from(self.tasks) / within.as_secs_f64().max(1e-9);
        writeln!(f, "{} tasks, {} of them failed", self.tasks, self.failed)?;
        writeln!(f, "created      {:9.0} tasks/s   in {:.2} s", rate(self.created_in), self.created_in.as_secs_f64())?;
        writeln!(
            f,
            "recorded     {:9.0} tasks/s   in {:.2} s",
            rate(self.recorded_in),
            self.recorded_in.as_secs_f64()
        )?;
        writeln!(f, "create       {}   (a request)", self.create_ms)?;
        writeln!(f, "start late   {}   (after it was due)", self.lateness_ms)?;
        write!(f, "end to end   {}   (from created to recorded)", self.end_to_end_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let p = Percentiles::of((1..=100).map(f64::from).collect());
        assert_eq!((p.p50, p.p90, p.p99, p.max), (50.0, 90.0, 99.0, 100.0));
        assert_eq!(Percentiles::of(Vec::new()).max, 0.0);
    }
}
