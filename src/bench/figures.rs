//! What a measurement found, for people and for programs.

use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value, json};

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

#[derive(Debug, Clone, Copy)]
enum Figure {
    /// So many in so much time.
    Rate(f64, Duration),
    Times(Percentiles),
    /// A number as it is.
    Amount(f64),
}

/// The figures of one measurement, each with its name and what it counts.
#[derive(Debug, Default)]
pub(super) struct Report {
    title: String,
    lines: Vec<(&'static str, Figure, &'static str)>,
}

impl Report {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), lines: Vec::new() }
    }

    /// So many of `what` within so much time.
    pub fn rate(mut self, name: &'static str, count: f64, within: Duration, what: &'static str) -> Self {
        self.lines.push((name, Figure::Rate(count, within), what));
        self
    }

    /// How long something took, in milliseconds.
    pub fn times(mut self, name: &'static str, ms: Vec<f64>, what: &'static str) -> Self {
        self.lines.push((name, Figure::Times(Percentiles::of(ms)), what));
        self
    }

    /// A number of `what`.
    pub fn amount(mut self, name: &'static str, value: f64, what: &'static str) -> Self {
        self.lines.push((name, Figure::Amount(value), what));
        self
    }

    /// An object with a member a figure: `{"per_second": …, "seconds": …}`, percentiles in milliseconds, or a number.
    pub fn to_json(&self) -> Value {
        let value = |figure: &Figure| match figure {
            Figure::Rate(count, within) => {
                json!({"per_second": per_second(*count, *within), "seconds": within.as_secs_f64()})
            }
            Figure::Times(p) => json!({"p50_ms": p.p50, "p90_ms": p.p90, "p99_ms": p.p99, "max_ms": p.max}),
            Figure::Amount(value) => json!(value),
        };
        let members = self.lines.iter().map(|(name, figure, _)| (name.replace(' ', "_"), value(figure)));
        Value::Object(members.collect::<Map<_, _>>())
    }
}

fn per_second(count: f64, within: Duration) -> f64 {
    count / within.as_secs_f64().max(1e-9)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.title)?;
        for (name, figure, what) in &self.lines {
            match figure {
                Figure::Rate(count, within) => {
                    let rate = per_second(*count, *within);
                    write!(f, "\n{name:<14} {rate:9.0} {what}/s   in {:.2} s", within.as_secs_f64())?;
                }
                Figure::Amount(value) => write!(f, "\n{name:<14} {value:9.2} {what}")?,
                Figure::Times(Percentiles { p50, p90, p99, max }) => {
                    write!(
                        f,
                        "\n{name:<14} p50 {p50:9.2}   p90 {p90:9.2}   p99 {p99:9.2}   max {max:9.2} ms   ({what})"
                    )?;
                }
            }
        }
        Ok(())
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

    #[test]
    fn a_report_is_lines_for_people_and_an_object_for_programs() {
        let report = Report::new("10 tasks").rate("recorded", 10.0, Duration::from_secs(2), "tasks").times(
            "end to end",
            vec![1.0, 3.0],
            "a task",
        );
        assert_eq!(report.to_string().lines().count(), 3);
        let json = report.to_json();
        assert_eq!(json["recorded"], json!({"per_second": 5.0, "seconds": 2.0}));
        assert_eq!(json["end_to_end"]["max_ms"], 3.0);
    }
}
