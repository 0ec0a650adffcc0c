//! When a schedule fires: pure rules. No clock, no database, no randomness.
//!
//! A schedule's *occurrences* are instants that follow from its definition alone: of a cron expression in a time zone, or of an interval
//! that is counted from an anchor. What daylight saving does to a cron expression is decided here, and tested against golden cases:
//!
//! * An hour field that begins with `*` goes by elapsed time, as in Vixie cron: hours that the clock skips are not made up for, and hours
//!   that it repeats count twice.
//! * With any other hour field, a local time that is skipped fires once, right after the gap, however many were skipped; and one that is
//!   repeated fires once, the first time.
//! * Intervals know no local time: they never drift.

use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDateTime, Offset, SubsecRound, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use sha2::{Digest, Sha256};
use taskmaster_openapi::limits;
use uuid::Uuid;

/// Occurrences that are counted; more are not told apart.
pub const COUNTED_MAX: usize = 10_000;

/// Why a definition has no occurrences. The text says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WrongRecurrence {
    #[error("{0}")]
    Cron(String),
    #[error("must be the name of an IANA time zone, such as Europe/Berlin or UTC")]
    TimeZone,
}

/// A definition's occurrences.
#[derive(Debug, Clone)]
pub struct Recurrence {
    beat: Beat,
    /// None lies before.
    starts_at: Option<DateTime<Utc>>,
    /// None lies after.
    ends_at: Option<DateTime<Utc>>,
}

#[derive(Debug, Clone)]
enum Beat {
    Cron { cron: Box<Cron>, zone: Tz, by_elapsed_hours: bool },
    Every { seconds: i64, anchor: DateTime<Utc> },
}

/// The last year that the API can write.
const YEAR_MAX: i32 = 9_999;
/// Local times never differ from UTC by more.
const OFFSET_MAX: TimeDelta = TimeDelta::hours(15);

impl Recurrence {
    /// Of a cron expression: five fields, six with seconds first, or `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`,
    /// `@annually`. Whether it ever fires is for [`Self::next`] to say.
    ///
    /// # Errors
    /// When the expression or the time zone cannot be read.
    pub fn cron(expression: &str, time_zone: &str) -> Result<Self, WrongRecurrence> {
        let zone: Tz = time_zone.parse().map_err(|_| WrongRecurrence::TimeZone)?;
        let fields = fields_of(expression)?;
        // The hour stands before day, month and weekday.
        let by_elapsed_hours = fields.len().checked_sub(4).is_some_and(|hour| fields[hour].starts_with('*'));
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let cron = parser.parse(&fields.join(" ")).map_err(|error| wrong_field(&parser, &fields, &error))?;
        Ok(Self::of(Beat::Cron { cron: Box::new(cron), zone, by_elapsed_hours }))
    }

    /// Every so many seconds from the anchor on; the anchor itself is an occurrence only where [`Self::between`] says that it starts there.
    pub fn every(seconds: i64, anchor: DateTime<Utc>) -> Self {
        Self::of(Beat::Every { seconds: seconds.max(1), anchor })
    }

    fn of(beat: Beat) -> Self {
        Self { beat, starts_at: None, ends_at: None }
    }

    /// The same, without what lies before the one time and after the other.
    pub fn between(self, starts_at: Option<DateTime<Utc>>, ends_at: Option<DateTime<Utc>>) -> Self {
        Self { starts_at, ends_at, ..self }
    }

    /// The first occurrence after this time; `None` when there is none any more.
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        // To the second, since all occurrences of a cron expression are; an occurrence at the start counts.
        let before_start = self.starts_at.map(|start| start - TimeDelta::microseconds(1));
        let after = before_start.map_or(after, |before| after.max(before));
        let next = match &self.beat {
            Beat::Every { seconds, anchor } => next_beat(*seconds, *anchor, after),
            Beat::Cron { cron, zone, by_elapsed_hours: true } => {
                let local = floor(after).with_timezone(zone);
                cron.find_next_occurrence(&local, false).ok().map(|at| at.with_timezone(&Utc))
            }
            Beat::Cron { cron, zone, by_elapsed_hours: false } => next_fixed(cron, *zone, floor(after)),
        };
        next.filter(|at| *at > after && at.year() <= YEAR_MAX && self.ends_at.is_none_or(|end| *at <= end))
    }

    /// The last occurrence in `(after, until]`.
    pub fn last(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let occurs_within = |from: DateTime<Utc>| self.next(from).is_some_and(|at| at <= until);
        if !occurs_within(after) {
            return None;
        }
        // Halving: the latest moment after which one follows in time. Occurrences are a second apart at least.
        let (mut with, mut without) = (0, (until - after).num_seconds() + 1);
        while without - with > 1 {
            let middle = with + (without - with) / 2;
            match occurs_within(after + TimeDelta::seconds(middle)) {
                true => with = middle,
                false => without = middle,
            }
        }
        self.within(after + TimeDelta::seconds(with), until).last()
    }

    /// How many lie in `(after, until]`, up to [`COUNTED_MAX`].
    pub fn count(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> usize {
        self.within(after, until).take(COUNTED_MAX).count()
    }

    /// The occurrences in `(after, until]`, in order.
    pub fn within(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        self.after(after).take_while(move |at| *at <= until)
    }

    /// The occurrences after this time, in order.
    pub fn after(&self, after: DateTime<Utc>) -> impl Iterator<Item = DateTime<Utc>> + '_ {
        std::iter::successors(self.next(after), |at| self.next(*at))
    }
}

/// How much later than its occurrence a run of this schedule is due: up to so many seconds, and always the same, so that the run that is
/// shown is the one that happens.
pub fn jitter(schedule_id: Uuid, occurrence: DateTime<Utc>, seconds_max: i32) -> Duration {
    let mut hash = Sha256::new();
    hash.update(schedule_id.as_bytes());
    hash.update(occurrence.timestamp_micros().to_be_bytes());
    let digest = hash.finalize();
    let random = digest.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    Duration::from_millis(random % (seconds_max.max(0).unsigned_abs() as u64 * 1_000 + 1))
}

/// The time zone of this name.
pub fn zone(name: &str) -> Option<Tz> {
    name.parse().ok()
}

/// An expression's fields, five or six; what stands for a nickname.
fn fields_of(expression: &str) -> Result<Vec<&str>, WrongRecurrence> {
    let text = expression.trim();
    let text = match text.strip_prefix('@') {
        None => text,
        Some(nickname) => match nickname.to_ascii_lowercase().as_str() {
            "hourly" => "0 * * * *",
            "daily" | "midnight" => "0 0 * * *",
            "weekly" => "0 0 * * 0",
            "monthly" => "0 0 1 * *",
            "yearly" | "annually" => "0 0 1 1 *",
            _ => {
                let known = "@hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually";
                return Err(WrongRecurrence::Cron(format!("is no nickname; there are {known}")));
            }
        },
    };
    let max = limits::CRON_CHARS_MAX;
    if text.len() > max {
        return Err(WrongRecurrence::Cron(format!("must have at most {max} characters")));
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields.len() {
        5 | 6 => Ok(fields),
        count => Err(WrongRecurrence::Cron(format!(
            "must have five fields (minute, hour, day, month, weekday), or six with seconds first, and has {count}"
        ))),
    }
}

/// Says which field it is that cannot be read: the parser does not. Tried one by one, with every other one as `*`.
fn wrong_field(parser: &CronParser, fields: &[&str], error: &CronError) -> WrongRecurrence {
    let all = ["second", "minute", "hour", "day of the month", "month", "weekday"];
    let names = &all[all.len().saturating_sub(fields.len())..];
    let alone = |at: usize| {
        let mut others = vec!["*"; fields.len()];
        others[at] = fields[at];
        parser.parse(&others.join(" ")).err()
    };
    let why = |error: &CronError| {
        let text = error.to_string();
        let text = text.strip_prefix("Component error: ").unwrap_or(&text).trim_end_matches('.');
        let mut rest = text.chars();
        rest.next().into_iter().flat_map(char::to_lowercase).chain(rest).collect::<String>()
    };
    let wrong = names.iter().zip(fields).enumerate().find_map(|(at, (name, field))| {
        alone(at).map(|error| format!("cannot be read: {name} `{field}`: {}", why(&error)))
    });
    WrongRecurrence::Cron(wrong.unwrap_or_else(|| format!("cannot be read: {}", why(error))))
}

fn floor(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(0)
}

fn next_beat(seconds: i64, anchor: DateTime<Utc>, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let passed_micros = (after - anchor).num_microseconds()?;
    let step_micros = seconds.checked_mul(1_000_000)?;
    let beats = passed_micros.div_euclid(step_micros) + 1;
    anchor.checked_add_signed(TimeDelta::microseconds(beats.max(0).checked_mul(step_micros)?))
}

/// Of an expression that names hours: the local times that it names, each where the zone has it.
///
/// Where a local time lies is never earlier than where an earlier local time lies, so that the first one that lies after is the next.
fn next_fixed(cron: &Cron, zone: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut local = after.with_timezone(&zone).naive_local();
    loop {
        local = cron.find_next_occurrence(&local, false).ok()?;
        let at = place(local, zone)?;
        if at > after {
            return Some(at);
        }
    }
}

/// Where a local time lies: the first of two places, and right after the gap where it is skipped.
fn place(local: NaiveDateTime, zone: Tz) -> Option<DateTime<Utc>> {
    if let Some(at) = zone.from_local_datetime(&local).earliest() {
        return Some(at.with_timezone(&Utc));
    }
    // The first instant whose local time is not earlier: there is one change of the clock within a day.
    let shows_later = |at: DateTime<Utc>| at.with_timezone(&zone).naive_local() >= local;
    let as_utc = local.and_utc();
    let (mut before, mut after) = (as_utc.checked_sub_signed(OFFSET_MAX)?, as_utc.checked_add_signed(OFFSET_MAX)?);
    while after - before > TimeDelta::seconds(1) {
        let middle = before + (after - before) / 2;
        let middle = floor(middle);
        match shows_later(middle) {
            true => after = middle,
            false => before = middle,
        }
    }
    Some(after)
}

/// A time as the clocks of a zone show it.
pub fn local_time(at: DateTime<Utc>, zone: Tz) -> DateTime<chrono::FixedOffset> {
    let local = at.with_timezone(&zone);
    local.with_timezone(&local.offset().fix())
}

#[cfg(test)]
#[path = "recurrence_tests.rs"]
mod tests;
