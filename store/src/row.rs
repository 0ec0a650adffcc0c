//! A row of `tasks` or `task_history`, as the API shows it.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use taskmaster_openapi::task::{Callback, HttpWork, RetryPolicy, Task, TaskError, TaskResult, TaskStatus, Work};

use crate::create::Callbacks;
use crate::lanes::Lanes;
use crate::trace;

/// The columns both tables share, and when the task ended: what [`TaskRow`] reads.
macro_rules! task_columns {
    (live) => {
        task_columns!("null::timestamptz")
    };
    (history) => {
        task_columns!("finished_at")
    };
    ($finished_at:literal) => {
        concat!(
            "id, run_at, created_at, scheduled_at, claim, picked_at, started_at, cancel_requested_at, lane, timeout_seconds, \
             priority, status, attempt, max_attempts, hand_backs, lost_workers, worker_id, work, retry, tags, result, error, \
             schedule_id, callbacks, flow_key, trace, ",
            $finished_at,
            " as finished_at"
        )
    };
}
pub(crate) use task_columns;

/// Reads a struct from the columns of the same names.
macro_rules! from_row {
    ($struct:ident { $($field:ident),+ $(,)? }) => {
        impl<'r> sqlx::FromRow<'r, sqlx::postgres::PgRow> for $struct {
            fn from_row(row: &'r sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                Ok(Self { $($field: sqlx::Row::try_get(row, stringify!($field))?),+ })
            }
        }
    };
}
pub(crate) use from_row;

/// A status as the tables have it.
pub(crate) fn status_code(status: TaskStatus) -> i16 {
    status as i16
}

/// A status from the tables, whose CHECKs allow no other.
pub(crate) fn status_from(code: i16) -> TaskStatus {
    TaskStatus::ALL.get(code as usize).copied().unwrap_or(TaskStatus::Queued)
}

#[derive(Debug)]
pub(crate) struct TaskRow {
    pub task: Task,
    pub lane: i32,
    pub claim: i64,
}

impl<'r> FromRow<'r, PgRow> for TaskRow {
    fn from_row(row: &'r PgRow) -> sqlx::Result<Self> {
        let status = status_from(row.try_get("status")?);
        let finished_at: Option<DateTime<Utc>> = row.try_get("finished_at")?;
        let at = |wanted: TaskStatus| finished_at.filter(|_| status == wanted);
        let Json(work): Json<Work> = row.try_get("work")?;
        let mut task = Task {
            id: row.try_get("id")?,
            status,
            command: None,
            argv: None,
            http: None,
            queue: String::new(),
            requires: BTreeMap::new(),
            flow_key: row.try_get("flow_key")?,
            priority: row.try_get::<i16, _>("priority")?.into(),
            attempt: row.try_get::<i16, _>("attempt")?.into(),
            max_attempts: row.try_get::<i16, _>("max_attempts")?.into(),
            retry: row.try_get::<Option<Json<RetryPolicy>>, _>("retry")?.map(|j| j.0).unwrap_or_default(),
            timeout_seconds: row.try_get::<i32, _>("timeout_seconds")?.into(),
            tags: row.try_get::<Option<Json<Vec<String>>>, _>("tags")?.map(|j| j.0).unwrap_or_default(),
            worker_id: row.try_get("worker_id")?,
            created_at: row.try_get("created_at")?,
            scheduled_at: row.try_get("scheduled_at")?,
            run_at: row.try_get("run_at")?,
            picked_at: row.try_get("picked_at")?,
            started_at: row.try_get("started_at")?,
            completed_at: at(TaskStatus::Complete),
            failed_at: at(TaskStatus::Failed),
            cancelled_at: at(TaskStatus::Cancelled),
            cancel_requested_at: row.try_get("cancel_requested_at")?,
            result: row.try_get::<Option<Json<TaskResult>>, _>("result")?.map(|j| j.0),
            error: row.try_get::<Option<Json<TaskError>>, _>("error")?.map(|j| j.0),
            schedule_id: row.try_get("schedule_id")?,
            callback: None,
            failure_callback: None,
            traceparent: row.try_get::<Option<&str>, _>("trace")?.map(|kept| trace::parts(kept).0.to_owned()),
            progress: None,
        };
        show_work(&mut task, work);
        show_callbacks(&mut task, row.try_get::<Option<Json<Callbacks>>, _>("callbacks")?.map(|j| j.0));
        Ok(TaskRow { task, lane: row.try_get("lane")?, claim: row.try_get("claim")? })
    }
}

impl TaskRow {
    pub(crate) fn into_task(self, lanes: &Lanes) -> Task {
        let (queue, requires) = lanes.shown(self.lane);
        Task { queue, requires, ..self.task }
    }
}

/// Puts the work where readers see it, without what can be written but not read back.
pub(crate) fn show_work(task: &mut Task, work: Work) {
    match work {
        Work::Command(command) => task.command = Some(command),
        Work::Argv(argv) => task.argv = Some(argv),
        Work::Http(http) => task.http = Some(redacted_work(http)),
    }
}

/// Puts the callbacks where readers see them, without what can be written but not read back.
pub(crate) fn show_callbacks(task: &mut Task, callbacks: Option<Callbacks>) {
    let Some(Callbacks { callback, failure_callback }) = callbacks else { return };
    task.callback = callback.map(redacted_callback);
    task.failure_callback = failure_callback.map(redacted_callback);
}

/// A request without what can be written but not read back.
pub(crate) fn redacted_work(http: HttpWork) -> HttpWork {
    HttpWork { headers: redacted(http.headers), ..http }
}

/// A callback without what can be written but not read back.
pub(crate) fn redacted_callback(callback: Callback) -> Callback {
    Callback { headers: redacted(callback.headers), secret: None, ..callback }
}

const HIDDEN: &str = "***";

/// Headers without the values that are secrets.
pub(crate) fn redacted(headers: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let show = |(name, value): (String, String)| match is_sensitive(&name) {
        true => (name, HIDDEN.to_owned()),
        false => (name, value),
    };
    headers.into_iter().map(show).collect()
}

/// Headers whose values are secrets; the rule of [`HttpWork::headers`].
fn is_sensitive(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["authorization", "cookie", "proxy-authorization"].contains(&name.as_str())
        || ["key", "token", "secret", "signature"].iter().any(|word| name.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sensitive_headers_are_not_read_back() {
        let names = ["Authorization", "X-Api-Key", "x-hub-signature-256", "Cookie", "X-Auth-Token", "Accept"];
        let shown = redacted(names.iter().map(|n| ((*n).to_owned(), "value".to_owned())).collect());
        assert_eq!(shown["Accept"], "value");
        assert!(names[..5].iter().all(|n| shown[*n] == HIDDEN), "{shown:?}");
    }
}
