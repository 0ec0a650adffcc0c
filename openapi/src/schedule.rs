//! Schedules: what makes tasks again and again, and what came of it.

use std::collections::BTreeMap;

use chrono::{DateTime, FixedOffset, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::bounds;
use crate::task::{Callback, HttpWork, NewTask, RetryPolicy, TaskStatus};

/// What happens at an occurrence while the task of the one before has not ended. Only occurrences count, not runs that were asked for by
/// hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Overlap {
    /// Both run.
    #[default]
    Allow,
    /// The new one is left out.
    Skip,
    /// The new one waits until the one before has ended. At most one waits; further ones are left out.
    QueueOne,
    /// The one before is cancelled, and the new one starts at once.
    CancelOld,
}

impl Overlap {
    /// Every policy, by its number in the database.
    pub const ALL: [Overlap; 4] = [Overlap::Allow, Overlap::Skip, Overlap::QueueOne, Overlap::CancelOld];
}

/// What happens to occurrences that were more than a minute late, because nothing ran that could fire them. Those that are not run are
/// listed as missed, and `schedule.missed` tells of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CatchUp {
    /// Of all that have passed within `catch_up_window_seconds` the last one is run.
    #[default]
    Last,
    /// None is run.
    None,
    /// All that have passed within `catch_up_window_seconds` are run.
    All,
}

impl CatchUp {
    /// Every policy, by its number in the database.
    pub const ALL: [CatchUp; 3] = [CatchUp::Last, CatchUp::None, CatchUp::All];
}

/// What a schedule's tasks are like: as [`NewTask`], without a time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"command": "echo tick"}))]
pub struct TaskTemplate {
    /// A shell command line, run by `/bin/sh -c` on a worker that allows commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 131071, example = "echo tick")]
    pub command: Option<String>,
    /// A program and its arguments, run without a shell on a worker that allows commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 1000, value_type = Option<Vec<bounds::Argument>>)]
    pub argv: Option<Vec<String>>,
    /// An HTTP request to make; sensitive header values can be written, and read `***`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub http: Option<HttpWork>,
    /// The queue, `default` when left out: letters, digits, `.`, `_` and `-`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "default")]
    pub queue: Option<String>,
    /// Labels that a worker must have to be given the tasks, with these values; at most 8. They wait until there is such a worker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<BTreeMap<String, bounds::LabelText>>)]
    pub requires: Option<BTreeMap<String, String>>,
    /// Whose tasks these are, for limits by key: a tenant, a host. Queues with such limits let each key have its share: `docs/queues.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 128, pattern = "^[^\\u0000]+$", example = "tenant-7")]
    pub flow_key: Option<String>,
    /// 0 to 9; higher first.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 9, default = 0)]
    pub priority: Option<i64>,
    /// Attempts before the task is FAILED.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100, default = 3)]
    pub max_attempts: Option<i64>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub retry: Option<RetryPolicy>,
    /// Longest duration of one attempt, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 86400, default = 300)]
    pub timeout_seconds: Option<i64>,
    /// Words to find the tasks by, at most 20.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 20, value_type = Option<Vec<bounds::Tag>>)]
    pub tags: Option<Vec<String>>,
    /// Whom to tell when a task has ended.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub callback: Option<Callback>,
    /// Whom to tell when a task is FAILED.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::object::optional")]
    pub failure_callback: Option<Callback>,
}

impl From<TaskTemplate> for NewTask {
    fn from(template: TaskTemplate) -> Self {
        NewTask {
            command: template.command,
            argv: template.argv,
            http: template.http,
            scheduled_at: None,
            delay_seconds: None,
            queue: template.queue,
            requires: template.requires,
            flow_key: template.flow_key,
            priority: template.priority,
            max_attempts: template.max_attempts,
            retry: template.retry,
            timeout_seconds: template.timeout_seconds,
            tags: template.tags,
            callback: template.callback,
            failure_callback: template.failure_callback,
        }
    }
}

/// A schedule to create. Exactly one of `cron` and `every_seconds` is required.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"cron": "30 9 * * MON-FRI", "time_zone": "Europe/Berlin", "task": {"command": "echo good morning"}}))]
pub struct NewSchedule {
    /// A name of its own: no two schedules have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000]+$")]
    pub name: Option<String>,
    /// Five fields (minute, hour, day of month, month, weekday), or six with seconds first; names of months and weekdays; `L`, `#`, `W`;
    /// or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`. Where day and weekday are both given, either will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200, format = "cron", example = "30 9 * * MON-FRI")]
    pub cron: Option<String>,
    /// An occurrence every so many seconds, counted from `starts_at`, or from the creation where there is none. Never drifts.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 31622400)]
    pub every_seconds: Option<i64>,
    /// The IANA time zone in which `cron` is read; `UTC` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, format = "time-zone", example = "Europe/Berlin")]
    pub time_zone: Option<String>,
    /// What is to be done each time.
    #[serde(deserialize_with = "crate::object::required")]
    pub task: TaskTemplate,
    /// `allow` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// `last` when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// Occurrences that are later than so many seconds are not caught up on: a day when left out, a week at most.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 60, maximum = 604800, default = 86400)]
    pub catch_up_window_seconds: Option<i64>,
    /// Each run is due up to so many seconds after its occurrence: how many follows from schedule and occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 86400, default = 0)]
    pub jitter_seconds: Option<i64>,
    /// No occurrence before this time (RFC 3339, 1970 to 9999).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<DateTime<Utc>>,
    /// No occurrence after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    /// Pause after so many runs in a row have FAILED. Never when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100)]
    pub pause_after_failures: Option<i64>,
}

/// What to change of a schedule: a JSON merge patch (RFC 7396). What is left out stays, `null` takes away.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"cron": "0 9 * * MON-FRI", "overlap": "skip", "jitter_seconds": null}))]
pub struct SchedulePatch {
    // Those of `NewSchedule`, and of all that is in it: `documents::merge_patch` writes them.
}

/// A schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "revision": 1,
    "name": "good morning",
    "cron": "30 9 * * MON-FRI",
    "time_zone": "Europe/Berlin",
    "task": {"command": "echo good morning", "queue": "default", "priority": 0, "max_attempts": 3, "timeout_seconds": 300},
    "overlap": "allow",
    "catch_up": "last",
    "catch_up_window_seconds": 86400,
    "jitter_seconds": 0,
    "created_at": "2026-01-30T12:00:00.000000Z",
    "changed_at": "2026-01-30T12:00:00.000000Z",
    "next_occurrence_at": "2026-02-02T08:30:00Z",
    "next_run_at": "2026-02-02T08:30:00Z",
    "last_occurrence_at": "2026-01-30T08:30:00Z",
}))]
pub struct Schedule {
    /// A UUIDv7.
    pub id: Uuid,
    /// Rises with every change that a user makes.
    #[schema(minimum = 1, maximum = 9007199254740991i64)]
    pub revision: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 100)]
    pub name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 200)]
    pub cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 31622400)]
    pub every_seconds: Option<i64>,
    #[schema(max_length = 64)]
    pub time_zone: String,
    pub task: TaskTemplate,
    pub overlap: Overlap,
    pub catch_up: CatchUp,
    #[schema(minimum = 60, maximum = 604800)]
    pub catch_up_window_seconds: i64,
    #[schema(minimum = 0, maximum = 86400)]
    pub jitter_seconds: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 100)]
    pub pause_after_failures: Option<i64>,
    pub created_at: DateTime<Utc>,
    /// When a user changed it last.
    pub changed_at: DateTime<Utc>,
    /// Nothing fires since then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<DateTime<Utc>>,
    /// Why it is paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub pause_reason: Option<String>,
    /// The next occurrence; none while it is paused, and when none is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_occurrence_at: Option<DateTime<Utc>>,
    /// When the run of the next occurrence is due: later by its jitter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<DateTime<Utc>>,
    /// The last occurrence that has passed and was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_occurrence_at: Option<DateTime<Utc>>,
}

/// A page of schedules, newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"schedules": [{"id": "01890a5d-ac96-774b-bcce-b302099a8057", "revision": 1, "name": "good morning", "cron": "30 9 * * MON-FRI", "time_zone": "Europe/Berlin", "task": {"command": "echo good morning", "queue": "default", "priority": 0, "max_attempts": 3, "timeout_seconds": 300}, "overlap": "allow", "catch_up": "last", "catch_up_window_seconds": 86400, "jitter_seconds": 0, "created_at": "2026-01-30T12:00:00.000000Z", "changed_at": "2026-01-30T12:00:00.000000Z", "next_occurrence_at": "2026-02-02T08:30:00Z", "next_run_at": "2026-02-02T08:30:00Z"}], "next_page_token": ""}))]
pub struct ScheduleList {
    #[schema(max_items = 500)]
    pub schedules: Vec<Schedule>,
    /// Asks for the next page; empty at the end, and only there.
    #[schema(max_length = 500)]
    pub next_page_token: String,
}

/// Which schedules to list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ScheduleFilter {
    /// The schedule of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(min_length = 1, max_length = 100, pattern = "^[^\\u0000]+$")]
    pub name: Option<String>,
}

/// Why a schedule is paused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "the target is being moved"}))]
pub struct PauseRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500, pattern = "^[^\\u0000]*$")]
    pub reason: Option<String>,
}

/// When a schedule that may not exist yet would fire. As in [`NewSchedule`], without a task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "after": "2026-03-28T00:00:00Z", "count": 3}))]
pub struct PreviewRequest {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 200, format = "cron")]
    pub cron: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 31622400)]
    pub every_seconds: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 64, format = "time-zone")]
    pub time_zone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starts_at: Option<DateTime<Utc>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<DateTime<Utc>>,
    /// Occurrences after this time; now when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DateTime<Utc>>,
    /// So many.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    pub count: Option<i64>,
}

/// Which occurrences to show.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PreviewQuery {
    /// Occurrences after this time (RFC 3339); now when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<DateTime<Utc>>,
    /// So many: 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(minimum = 1, maximum = 100, default = 10)]
    pub count: Option<i64>,
}

/// An occurrence to come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Occurrence {
    pub occurrence_at: DateTime<Utc>,
    /// The same, as the clocks of the schedule's time zone show it.
    pub local_time: DateTime<FixedOffset>,
    /// When its run is due: later by its jitter, which a schedule that does not exist yet has not got.
    pub run_at: DateTime<Utc>,
}

/// Occurrences to come, the first one first; fewer than asked for when no more are left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"occurrences": [{"occurrence_at": "2026-02-02T08:30:00Z", "local_time": "2026-02-02T09:30:00+01:00", "run_at": "2026-02-02T08:30:00Z"}]}))]
pub struct Preview {
    #[schema(max_items = 100)]
    pub occurrences: Vec<Occurrence>,
}

/// A range of occurrences to run now, where they have not run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "dry_run": true}))]
pub struct BackfillRequest {
    /// The first occurrence is not before.
    pub from: DateTime<Utc>,
    /// The last one is before; not in the future.
    pub to: DateTime<Utc>,
    /// Only count them.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a backfill came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"dry_run": true, "occurrences": 3, "runs": 3}))]
pub struct BackfillResponse {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Occurrences in the range, at most 10,000.
    #[schema(minimum = 0, maximum = 10000)]
    pub occurrences: i64,
    /// Those that had not run, and run now (or would).
    #[schema(minimum = 0, maximum = 10000)]
    pub runs: i64,
}

/// What became of an occurrence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It has its task.
    Fired,
    /// The one before has not ended: its task is made when that has.
    Waiting,
    /// It was left out; `reason` says why.
    Skipped,
    /// It was not run in time, nor caught up on.
    Missed,
}

impl RunState {
    /// Every state, by its number in the database.
    pub const ALL: [RunState; 4] = [RunState::Fired, RunState::Waiting, RunState::Skipped, RunState::Missed];
}

/// What made a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunTrigger {
    /// The schedule itself.
    Schedule,
    /// Somebody, at once.
    Manual,
    /// A backfill.
    Backfill,
}

impl RunTrigger {
    /// Every trigger, by its number in the database.
    pub const ALL: [RunTrigger; 3] = [RunTrigger::Schedule, RunTrigger::Manual, RunTrigger::Backfill];
}

/// What became of an occurrence, or of several that were missed together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "occurrence_at": "2026-01-31T08:30:00Z",
    "state": "fired",
    "trigger": "schedule",
    "run_at": "2026-01-31T08:30:00Z",
    "task_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "task_status": "COMPLETE",
}))]
pub struct Run {
    /// The occurrence; of several that were missed the first one.
    pub occurrence_at: DateTime<Utc>,
    pub state: RunState,
    pub trigger: RunTrigger,
    /// When its task is due, or was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_id: Option<Uuid>,
    /// The task's state; none when its history is no longer kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_status: Option<TaskStatus>,
    /// Why it was left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    pub reason: Option<String>,
    /// Of several that were missed together, the last one ...
    #[serde(skip_serializing_if = "Option::is_none")]
    pub missed_until: Option<DateTime<Utc>>,
    /// ... and how many they are; 10,000 means that many or more.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 10000)]
    pub missed: Option<i64>,
}

/// A page of runs, the latest occurrence first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"runs": [{"occurrence_at": "2026-01-31T08:30:00Z", "state": "fired", "trigger": "schedule", "run_at": "2026-01-31T08:30:00Z", "task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "task_status": "COMPLETE"}], "next_page_token": ""}))]
pub struct RunList {
    #[schema(max_items = 500)]
    pub runs: Vec<Run>,
    /// Asks for the next page; empty at the end, and only there.
    #[schema(max_length = 500)]
    pub next_page_token: String,
}
