//! What a schedule must be like: [`NewSchedule`] in, [`ScheduleToKeep`] out, or every field that is wrong.

use chrono::{DateTime, Utc};
use taskmaster_openapi::schedule::{NewSchedule, PreviewRequest};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_store::queues::book::QueueBook;
use taskmaster_store::schedules::recurrence::WrongRecurrence;
use taskmaster_store::schedules::{Beat, ScheduleToKeep, Timing};

use super::{Errors, NUL, check, is_storable, whole};
use crate::queues;

const TIME_ZONE: &str = "UTC";

/// Checks a schedule that is to be created, or as it is to be. What its tasks do not say, their queue says.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub(crate) fn schedule(new: NewSchedule, book: &QueueBook) -> Result<ScheduleToKeep, Problem> {
    let mut errors = Errors::default();
    if let Some(detail) = new.name.as_deref().and_then(wrong_name) {
        errors.add("/name", detail);
    }
    let timing = timing(
        Asked {
            cron: new.cron,
            every_seconds: new.every_seconds,
            time_zone: new.time_zone,
            starts_at: new.starts_at,
            ends_at: new.ends_at,
        },
        &mut errors,
    );
    let jitter = whole("/jitter_seconds", new.jitter_seconds, 0, 0..=limits::JITTER_SECONDS_MAX, &mut errors);
    let window = whole(
        "/catch_up_window_seconds",
        new.catch_up_window_seconds,
        limits::CATCH_UP_SECONDS_DEFAULT,
        limits::CATCH_UP_SECONDS_MIN..=limits::CATCH_UP_SECONDS_MAX,
        &mut errors,
    );
    let failures = new.pause_after_failures.map(|count| {
        let range = 1..=limits::PAUSE_AFTER_FAILURES_MAX;
        whole("/pause_after_failures", Some(count), count, range, &mut errors)
    });
    errors.prefix = "/task".into();
    let mut task = new.task.into();
    queues::fill(book, &mut task);
    let task = check(task, &mut errors);
    match (timing, task) {
        (Some(timing), Some(task)) if errors.count == 0 => Ok(ScheduleToKeep {
            name: new.name,
            timing,
            overlap: new.overlap.unwrap_or_default(),
            catch_up: new.catch_up.unwrap_or_default(),
            catch_up_window_seconds: narrow(window),
            jitter_seconds: narrow(jitter),
            pause_after_failures: failures.map(narrow),
            task,
        }),
        _ => Err(errors.into_problem()),
    }
}

/// Checks when a schedule is to occur that need not exist, and how many occurrences are asked for.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub(crate) fn preview(asked: PreviewRequest) -> Result<(Timing, Option<DateTime<Utc>>, usize), Problem> {
    let mut errors = Errors::default();
    let PreviewRequest { cron, every_seconds, time_zone, starts_at, ends_at, after, count } = asked;
    let timing = timing(Asked { cron, every_seconds, time_zone, starts_at, ends_at }, &mut errors);
    time("/after", after, &mut errors);
    let count = whole("/count", count, limits::PREVIEW_DEFAULT, 1..=limits::PREVIEW_MAX, &mut errors);
    match timing {
        Some(timing) if errors.count == 0 => Ok((timing, after, narrow(count).unsigned_abs() as usize)),
        _ => Err(errors.into_problem()),
    }
}

/// What is wrong with a schedule's name, if anything is.
pub(crate) fn wrong_name(name: &str) -> Option<String> {
    let max = limits::SCHEDULE_NAME_CHARS_MAX;
    if name.contains('\0') {
        return Some(NUL.into());
    }
    (!(1..=max).contains(&name.chars().count())).then(|| format!("must have 1 to {max} characters"))
}

/// Checks why something is paused.
///
/// # Errors
/// `validation_failed`.
pub(crate) fn pause_reason(reason: Option<&str>) -> Result<(), Problem> {
    let max = limits::PAUSE_REASON_CHARS_MAX;
    if reason.is_some_and(|reason| reason.chars().count() > max || reason.contains('\0')) {
        let detail = format!("must have at most {max} characters, and not the character NUL");
        return Err(Problem::field(Code::ValidationFailed, "/reason", detail));
    }
    Ok(())
}

/// When a schedule is to occur, as asked for.
struct Asked {
    cron: Option<String>,
    every_seconds: Option<i64>,
    time_zone: Option<String>,
    starts_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
}

fn timing(asked: Asked, errors: &mut Errors) -> Option<Timing> {
    let Asked { cron, every_seconds, time_zone, starts_at, ends_at } = asked;
    time("/starts_at", starts_at, errors);
    time("/ends_at", ends_at, errors);
    if let (Some(start), Some(end)) = (starts_at, ends_at)
        && end < start
    {
        errors.add("/ends_at", "must not lie before starts_at");
    }
    let time_zone = time_zone.unwrap_or_else(|| TIME_ZONE.into());
    let beat = match (cron, every_seconds) {
        (Some(cron), None) => Beat::Cron(cron),
        (None, Some(seconds)) => {
            let seconds = whole("/every_seconds", Some(seconds), seconds, 1..=limits::EVERY_SECONDS_MAX, errors);
            Beat::Every(narrow(seconds))
        }
        (Some(_), Some(_)) => {
            errors.add("/every_seconds", "cannot be given together with cron");
            return None;
        }
        (None, None) => {
            errors.add("", "give exactly one of cron and every_seconds; none of them is there");
            return None;
        }
    };
    // An interval knows no local time; its zone is that in which its occurrences are shown.
    if taskmaster_store::schedules::recurrence::zone(&time_zone).is_none() {
        errors.add("/time_zone", WrongRecurrence::TimeZone.to_string());
    }
    let timing = Timing { beat, time_zone, starts_at, ends_at };
    match timing.recurrence(DateTime::UNIX_EPOCH) {
        Err(error @ WrongRecurrence::Cron(_)) => errors.add("/cron", error.to_string()),
        Ok(_) | Err(WrongRecurrence::TimeZone) => {}
    }
    Some(timing)
}

fn time(pointer: &str, at: Option<DateTime<Utc>>, errors: &mut Errors) {
    if at.is_some_and(|at| !is_storable(at)) {
        errors.add(pointer, "must lie in the years 1970 to 9999");
    }
}

/// A number that was found to be within its bounds, all of which are below 2³¹.
fn narrow(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(body: &str) -> Vec<String> {
        let checked = schedule(serde_json::from_str(body).unwrap(), &QueueBook::default());
        checked.err().map(|problem| problem.errors.into_iter().map(|error| error.pointer).collect()).unwrap_or_default()
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let table: [(&str, &[&str]); 15] = [
            (r#"{"cron":"* * * * *","task":{"command":"true"}}"#, &[]),
            (r#"{"every_seconds":1,"task":{"argv":["true"]},"overlap":"queue_one","catch_up":"none"}"#, &[]),
            (r#"{"task":{"command":"true"}}"#, &[""]),
            (r#"{"cron":"@daily","every_seconds":5,"task":{"command":"true"}}"#, &["/every_seconds"]),
            (r#"{"cron":"61 * * * *","time_zone":"Nowhere","task":{"command":"true"}}"#, &["/time_zone"]),
            (r#"{"cron":"61 * * * *","task":{"command":"true"}}"#, &["/cron"]),
            (r#"{"cron":"* * * * * * *","task":{"command":"true"}}"#, &["/cron"]),
            (r#"{"cron":"@daily","time_zone":"europe/berlin ","task":{"command":"true"}}"#, &["/time_zone"]),
            (
                r#"{"every_seconds":0,"jitter_seconds":-1,"task":{"command":"true"}}"#,
                &["/every_seconds", "/jitter_seconds"],
            ),
            (r#"{"every_seconds":31622401,"task":{"command":"true"}}"#, &["/every_seconds"]),
            (r#"{"every_seconds":5,"name":"","task":{"command":"true"}}"#, &["/name"]),
            (r#"{"every_seconds":5,"task":{"command":"true","http":{"url":"x"}}}"#, &["/task", "/task/http/url"]),
            (
                r#"{"every_seconds":5,"catch_up_window_seconds":59,"task":{"command":"true"}}"#,
                &["/catch_up_window_seconds"],
            ),
            (r#"{"every_seconds":5,"pause_after_failures":0,"task":{"command":"true"}}"#, &["/pause_after_failures"]),
            (
                r#"{"every_seconds":5,"starts_at":"2026-02-01T00:00:00Z","ends_at":"2026-01-01T00:00:00Z","task":{"command":"true"}}"#,
                &["/ends_at"],
            ),
        ];
        for (body, expected) in table {
            assert_eq!(pointers(body), expected, "{body}");
        }
    }

    #[test]
    fn a_preview_is_bounded() {
        let of = |body: &str| preview(serde_json::from_str(body).unwrap()).map(|(_, _, count)| count).ok();
        assert_eq!(of(r#"{"cron":"@daily"}"#), Some(10));
        assert_eq!(of(r#"{"every_seconds":60,"count":100}"#), Some(100));
        assert_eq!(of(r#"{"every_seconds":60,"count":101}"#), None);
        assert_eq!(of(r#"{"every_seconds":60,"count":0}"#), None);
    }
}
