//! The operations on schedules, of the public API.

use crate::gateway::{Page, paths};
use crate::problem::Problem;
use crate::schedule::{
    BackfillRequest, BackfillResponse, NewSchedule, PauseRequest, Preview, PreviewQuery, PreviewRequest, RunList,
    Schedule, ScheduleFilter, ScheduleList, SchedulePatch,
};
use crate::task::Task;

/// Create a schedule: a task again and again, by a cron expression in a time zone, or at a fixed interval.
///
/// Each occurrence makes one task, whatever happens to coordinators. What daylight saving does is said in `docs/schedules.md`.
#[utoipa::path(
    post, path = paths::SCHEDULES, operation_id = "createSchedule", tag = "schedules",
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "The same key and payload create nothing again for 24 h: the answer is made from the schedule as it now is. Another payload is refused with 422, a request still in progress with 409"),
    ),
    request_body = NewSchedule,
    responses(
        (status = 201, description = "The schedule is committed", body = Schedule, headers(
            ("Location" = String, description = "The schedule's path"),
            ("ETag" = String, description = "Of the schedule as it is now"),
            ("Idempotency-Replayed" = String, description = "`true`, where the schedule was created before"))),
        (status = 409, description = "Another schedule has this name, or a request with this `Idempotency-Key` is in progress", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was created; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; `Retry-After` may say when", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn create_schedule() {}

/// List schedules, newest first.
#[utoipa::path(
    get, path = paths::SCHEDULES, operation_id = "listSchedules", tag = "schedules",
    params(ScheduleFilter, Page),
    responses(
        (status = 200, description = "A page", body = ScheduleList, headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = "4XX", description = "A parameter is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_schedules() {}

/// When a schedule would fire that need not exist: its next occurrences.
#[utoipa::path(
    post, path = paths::SCHEDULES_PREVIEW, operation_id = "previewNewSchedule", tag = "schedules",
    request_body = PreviewRequest,
    responses(
        (status = 200, description = "The occurrences, the first one first", body = Preview),
        (status = "4XX", description = "A value is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn preview_new_schedule() {}

/// One schedule: what it is, whether it is paused, its next run and its last.
#[utoipa::path(
    get, path = paths::SCHEDULE, operation_id = "getSchedule", tag = "schedules",
    params(
        ("id" = Uuid, Path, description = "The schedule's id"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer the client has"),
    ),
    responses(
        (status = 200, description = "The schedule", body = Schedule, headers(
            ("ETag" = String, description = "The revision, and what the figures are: `If-Match` goes by the revision alone"))),
        (status = 304, description = "The client has this answer already"),
        (status = "4XX", description = "No such schedule, or not an id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_schedule() {}

/// Change a schedule by a JSON merge patch (RFC 7396). It goes on from now; tasks that are due go on as they are.
#[utoipa::path(
    patch, path = paths::SCHEDULE, operation_id = "changeSchedule", tag = "schedules",
    params(
        ("id" = Uuid, Path, description = "The schedule's id"),
        ("If-Match" = Option<String>, Header, description = "Change it only if nobody has since: the `ETag` of an answer"),
    ),
    request_body = SchedulePatch,
    responses(
        (status = 200, description = "The schedule as it is now", body = Schedule, headers(("ETag" = String, description = "Of the schedule as it is now"))),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another schedule has this name", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody has changed it: `If-Match` does not hold", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn change_schedule() {}

/// Delete a schedule. Tasks that are due go on.
#[utoipa::path(
    delete, path = paths::SCHEDULE, operation_id = "deleteSchedule", tag = "schedules",
    params(
        ("id" = Uuid, Path, description = "The schedule's id"),
        ("If-Match" = Option<String>, Header, description = "Delete it only if nobody has changed it since: the `ETag` of an answer"),
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = 412, description = "Somebody has changed it: `If-Match` does not hold", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such schedule, or not an id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn delete_schedule() {}

/// Pause a schedule: nothing fires until it is resumed. Pausing it again changes nothing.
#[utoipa::path(
    post, path = paths::SCHEDULE_PAUSE, operation_id = "pauseSchedule", tag = "schedules",
    params(("id" = Uuid, Path, description = "The schedule's id")),
    request_body = PauseRequest,
    responses(
        (status = 200, description = "The schedule, paused", body = Schedule),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn pause_schedule() {}

/// Let a paused schedule go on from now. What would have occurred meanwhile did not; a backfill runs it.
#[utoipa::path(
    post, path = paths::SCHEDULE_RESUME, operation_id = "resumeSchedule", tag = "schedules",
    params(("id" = Uuid, Path, description = "The schedule's id")),
    responses(
        (status = 200, description = "The schedule", body = Schedule),
        (status = "4XX", description = "No such schedule, or not an id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn resume_schedule() {}

/// Run a schedule's task now, besides its occurrences and whatever else runs; also while it is paused.
#[utoipa::path(
    post, path = paths::SCHEDULE_TRIGGER, operation_id = "triggerSchedule", tag = "schedules",
    params(
        ("id" = Uuid, Path, description = "The schedule's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "The same key runs nothing again for 24 h"),
    ),
    responses(
        (status = 201, description = "The task", body = Task, headers(
            ("Location" = String, description = "The task's path"),
            ("Idempotency-Replayed" = String, description = "`true`, where it was run before"))),
        (status = 409, description = "A request with this `Idempotency-Key` is in progress", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such schedule, or not an id", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn trigger_schedule() {}

/// Run the occurrences of a range of the past that have not run, up to 10,000. Try dry_run first.
#[utoipa::path(
    post, path = paths::SCHEDULE_BACKFILL, operation_id = "backfillSchedule", tag = "schedules",
    params(("id" = Uuid, Path, description = "The schedule's id")),
    request_body = BackfillRequest,
    responses(
        (status = 200, description = "What is run, or would be", body = BackfillResponse),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was run; `errors` names what is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn backfill_schedule() {}

/// A schedule's next occurrences, as they will happen unless it is changed.
#[utoipa::path(
    get, path = paths::SCHEDULE_PREVIEW, operation_id = "previewSchedule", tag = "schedules",
    params(("id" = Uuid, Path, description = "The schedule's id"), PreviewQuery),
    responses(
        (status = 200, description = "The occurrences, the first one first", body = Preview),
        (status = "4XX", description = "No such schedule, or a parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn preview_schedule() {}

/// What became of a schedule's occurrences, the latest first: run, waiting, left out, missed.
#[utoipa::path(
    get, path = paths::SCHEDULE_RUNS, operation_id = "listScheduleRuns", tag = "schedules",
    params(("id" = Uuid, Path, description = "The schedule's id"), Page),
    responses(
        (status = 200, description = "A page", body = RunList, headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = "4XX", description = "No such schedule, or a parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_schedule_runs() {}
