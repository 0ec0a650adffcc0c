//! What a task must be like: [`NewTask`] in, [`TaskToCreate`] out, or every field that is wrong. Pure: no clock but the one in the
//! new id, no database.
//!
//! The bounds are those of [`limits`]. NUL is refused in every string: PostgreSQL cannot store it.

pub(crate) mod hook;
pub(crate) mod http;
pub(crate) mod queue;
pub(crate) mod schedule;
pub(crate) mod url_worker;
pub(crate) mod webhook;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use chrono::{DateTime, Datelike, Utc};
use taskmaster_openapi::gateway::TaskFilter;
use taskmaster_openapi::task::{NewTask, RetryPolicy};
use taskmaster_openapi::webhook::{CALLBACKS_QUEUE, WEBHOOKS_QUEUE};
use taskmaster_openapi::{FieldError, Problem, checks, limits};
use taskmaster_store::{Due, TaskToCreate};
use uuid::Uuid;

/// The years that both JSON clients and the database can write.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=9999;
pub(crate) const DEFAULT_QUEUE: &str = "default";
/// Queues that nobody creates tasks in, and that can be looked at.
const SYSTEM_QUEUES: [&str; 2] = [WEBHOOKS_QUEUE, CALLBACKS_QUEUE];

/// Checks one task.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub fn task(new: NewTask) -> Result<TaskToCreate, Problem> {
    let mut errors = Errors::default();
    let task = check(new, &mut errors);
    match task {
        Some(task) if errors.count == 0 => Ok(task),
        _ => Err(errors.into_problem()),
    }
}

/// Checks the tasks of a batch, of which the client sent `count`, perhaps more than are here.
///
/// # Errors
/// `validation_failed`; pointers begin with the item: `/tasks/17/http/url`.
pub(crate) fn batch(tasks: Vec<NewTask>, count: usize) -> Result<Vec<TaskToCreate>, Problem> {
    let mut errors = Errors::default();
    match count {
        0 => errors.add("/tasks", "must have at least one task"),
        1..=limits::BATCH_TASKS_MAX => {}
        more => errors.add("/tasks", format!("must have at most {} tasks, and has {more}", limits::BATCH_TASKS_MAX)),
    }
    let mut checked = Vec::with_capacity(tasks.len());
    for (i, new) in tasks.into_iter().enumerate() {
        errors.prefix = format!("/tasks/{i}");
        checked.extend(check(new, &mut errors));
    }
    if errors.count == 0 { Ok(checked) } else { Err(errors.into_problem()) }
}

/// What is wrong with the values of a filter: the first name, and why.
pub(crate) fn wrong_filter(filter: &TaskFilter) -> Option<(&'static str, String)> {
    let text =
        |name, value: &Option<String>, wrong: fn(&str) -> Option<String>| Some((name, wrong(value.as_deref()?)?));
    let time = |name, at: Option<DateTime<Utc>>| {
        at.is_some_and(|at| !is_storable(at)).then(|| (name, "must lie in the years 1970 to 9999".to_owned()))
    };
    text("queue", &filter.queue, |name| wrong_queue(if SYSTEM_QUEUES.contains(&name) { DEFAULT_QUEUE } else { name }))
        .or_else(|| text("tag", &filter.tag, wrong_tag))
        .or_else(|| text("worker_id", &filter.worker_id, wrong_worker_id))
        .or_else(|| time("created_after", filter.created_after))
        .or_else(|| time("created_before", filter.created_before))
}

fn check(new: NewTask, errors: &mut Errors) -> Option<TaskToCreate> {
    let work = work::work(new.command, new.argv, new.http, errors);
    let due = due(new.scheduled_at, new.delay_seconds, errors);
    let queue = new.queue.unwrap_or_else(|| DEFAULT_QUEUE.into());
    if let Some(detail) = wrong_queue(&queue) {
        errors.add("/queue", detail);
    }
    let requires = new.requires.unwrap_or_default();
    check_labels("/requires", &requires, limits::REQUIRES_MAX, errors);
    if let Some(detail) = new.flow_key.as_deref().and_then(wrong_flow_key) {
        errors.add("/flow_key", detail);
    }
    let priority = whole("/priority", new.priority, 0, 0..=limits::PRIORITY_MAX, errors);
    let max_attempts =
        whole("/max_attempts", new.max_attempts, limits::ATTEMPTS_DEFAULT, 1..=limits::ATTEMPTS_MAX, errors);
    let timeout_seconds = whole(
        "/timeout_seconds",
        new.timeout_seconds,
        limits::TIMEOUT_SECONDS_DEFAULT,
        1..=limits::TIMEOUT_SECONDS_MAX,
        errors,
    );
    if let Some(policy) = &new.retry {
        retry(policy, errors);
    }
    let tags = new.tags.unwrap_or_default();
    check_tags(&tags, errors);
    let callbacks = webhook::callbacks(new.callback, new.failure_callback, errors);
    Some(TaskToCreate {
        id: Uuid::now_v7(),
        work: work?,
        due,
        queue,
        requires,
        flow_key: new.flow_key,
        priority: i16::try_from(priority).ok()?,
        max_attempts: i16::try_from(max_attempts).ok()?,
        retry: new.retry.filter(|policy| *policy != RetryPolicy::default()),
        timeout_seconds: i32::try_from(timeout_seconds).ok()?,
        tags,
        callbacks,
        trace: None,
    })
}

fn due(scheduled_at: Option<DateTime<Utc>>, delay_seconds: Option<f64>, errors: &mut Errors) -> Due {
    if scheduled_at.is_some() && delay_seconds.is_some() {
        errors.add("/delay_seconds", "cannot be given together with scheduled_at");
    }
    if let Some(at) = scheduled_at {
        if !is_storable(at) {
            errors.add("/scheduled_at", "must lie in the years 1970 to 9999");
        }
        return Due::At(at);
    }
    let Some(delay) = delay_seconds else { return Due::Now };
    number("/delay_seconds", delay, 0.0..=limits::DELAY_SECONDS_MAX, errors);
    match Duration::try_from_secs_f64(delay) {
        Ok(Duration::ZERO) | Err(_) => Due::Now,
        Ok(delay) => Due::After(delay),
    }
}

/// Whether the database and JSON clients can write the time.
pub(crate) fn is_storable(at: DateTime<Utc>) -> bool {
    YEARS.contains(&at.year())
}

/// What is wrong with a queue's name, if anything is.
pub(crate) fn wrong_queue(name: &str) -> Option<String> {
    let max = limits::QUEUE_NAME_CHARS_MAX;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let right = (1..=max).contains(&name.len()) && name.bytes().all(allowed);
    (!right).then(|| format!("must be 1 to {max} letters, digits, `.`, `_` and `-`"))
}

/// What is wrong with a worker's id, if anything is.
pub(crate) fn wrong_worker_id(id: &str) -> Option<String> {
    let max = limits::WORKER_ID_CHARS_MAX;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    // In a path, `.` and `..` mean something else.
    let right = (1..=max).contains(&id.len()) && id.bytes().all(allowed) && !matches!(id, "." | "..");
    (!right).then(|| format!("must be 1 to {max} letters, digits, `.`, `_` and `-`"))
}

/// What is wrong with a flow key, if anything is.
fn wrong_flow_key(key: &str) -> Option<String> {
    let max = limits::FLOW_KEY_CHARS_MAX;
    if key.contains('\0') {
        return Some(NUL.into());
    }
    (!(1..=max).contains(&key.chars().count())).then(|| format!("must have 1 to {max} characters"))
}

fn check_tags(tags: &[String], errors: &mut Errors) {
    if tags.len() > limits::TAGS_MAX {
        errors.add("/tags", format!("must be at most {}, and are {}", limits::TAGS_MAX, tags.len()));
        return;
    }
    let mut seen = HashSet::new();
    for (i, tag) in tags.iter().enumerate() {
        if let Some(detail) = wrong_tag(tag) {
            errors.add(format!("/tags/{i}"), detail);
        } else if !seen.insert(tag) {
            errors.add(format!("/tags/{i}"), "is given twice");
        }
    }
}

/// Checks the labels at this pointer, at most so many.
fn check_labels(at: &str, labels: &BTreeMap<String, String>, max: usize, errors: &mut Errors) {
    if labels.len() > max {
        errors.add(at, format!("must be at most {max}, and are {}", labels.len()));
        return;
    }
    for (name, text) in labels {
        let pointer = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        if !checks::is_plain(name, limits::LABEL_NAME_CHARS_MAX) {
            let max = limits::LABEL_NAME_CHARS_MAX;
            errors.add(&pointer, format!("must have a name of at most {max} characters, none a control character"));
        }
        if !checks::is_plain(text, limits::LABEL_CHARS_MAX) {
            let max = limits::LABEL_CHARS_MAX;
            errors.add(&pointer, format!("must have at most {max} characters, none a control character"));
        }
    }
}

/// What is wrong with a tag, if anything is.
pub(crate) fn wrong_tag(tag: &str) -> Option<String> {
    let max = limits::TAG_CHARS_MAX;
    if tag.contains('\0') {
        return Some(NUL.into());
    }
    (!(1..=max).contains(&tag.chars().count())).then(|| format!("must have 1 to {max} characters"))
}

fn retry(policy: &RetryPolicy, errors: &mut Errors) {
    let seconds = 0.0..=limits::RETRY_SECONDS_MAX;
    number("/retry/initial_seconds", policy.initial_seconds, seconds.clone(), errors);
    number("/retry/multiplier", policy.multiplier, 1.0..=100.0, errors);
    number("/retry/max_seconds", policy.max_seconds, seconds.clone(), errors);
    number("/retry/jitter", policy.jitter, 0.0..=1.0, errors);
    let Some(delays) = &policy.delays_seconds else {
        if policy.initial_seconds > policy.max_seconds {
            let detail = format!("is longer than max_seconds, which is {}", policy.max_seconds);
            errors.add("/retry/initial_seconds", detail);
        }
        return;
    };
    if !(1..=100).contains(&delays.len()) {
        errors.add("/retry/delays_seconds", "must have 1 to 100 entries");
        return;
    }
    for (i, delay) in delays.iter().enumerate() {
        number(&format!("/retry/delays_seconds/{i}"), *delay, seconds.clone(), errors);
    }
    // Jitter goes with either; the others would have no effect.
    let exponential = RetryPolicy { delays_seconds: None, jitter: RetryPolicy::default().jitter, ..policy.clone() };
    if exponential != RetryPolicy::default() {
        let detail = "cannot be given together with initial_seconds, multiplier or max_seconds";
        errors.add("/retry/delays_seconds", detail);
    }
}

fn whole(
    pointer: &str,
    given: Option<i64>,
    default: i64,
    range: std::ops::RangeInclusive<i64>,
    errors: &mut Errors,
) -> i64 {
    let value = given.unwrap_or(default);
    if range.contains(&value) {
        return value;
    }
    errors.add(pointer, format!("must be a whole number from {} to {}", range.start(), range.end()));
    default
}

fn number(pointer: &str, value: f64, range: std::ops::RangeInclusive<f64>, errors: &mut Errors) {
    // A range contains neither NaN nor the infinities.
    if !range.contains(&value) {
        errors.add(pointer, format!("must be a number from {} to {}", range.start(), range.end()));
    }
}

const NUL: &str = "must not contain the character NUL";

/// The fields that are wrong: those that a problem lists, and how many there are.
#[derive(Debug, Default)]
struct Errors {
    /// Stands before every pointer.
    prefix: String,
    listed: Vec<FieldError>,
    count: usize,
}

impl Errors {
    fn add(&mut self, pointer: impl AsRef<str>, detail: impl Into<String>) {
        self.count += 1;
        if self.listed.len() < limits::PROBLEM_ERRORS_MAX {
            let pointer: String = format!("{}{}", self.prefix, pointer.as_ref()).chars().take(500).collect();
            self.listed.push(FieldError::new(pointer, detail));
        }
    }

    fn into_problem(self) -> Problem {
        let (count, listed) = (self.count, self.listed.len());
        let mut problem = Problem::validation(self.listed);
        if count > listed {
            problem.detail = format!("{count} values are not allowed; the first {listed} are listed.");
        }
        problem
    }
}

#[cfg(test)]
mod tests;
