//! `/v1/schedules`: what makes tasks again and again.

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use http::{HeaderMap, StatusCode, header};
use reqwest::Url;
use serde::Deserialize;
use serde_json::{Map, Value};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::schedule::{
    BackfillRequest, BackfillResponse, NewSchedule, Occurrence, PauseRequest, Preview, PreviewQuery, PreviewRequest,
    RunList, Schedule, ScheduleList,
};
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter, Query};
use taskmaster_store::schedules::edit::{Changed, Made, Refusal};
use taskmaster_store::schedules::recurrence::{local_time, zone};
use taskmaster_store::schedules::runs::{Backfilled, Triggered};
use taskmaster_store::schedules::{Beat, Timing};
use uuid::Uuid;

use crate::app::App;
use crate::edge::client::Client;
use crate::edge::scope;
use crate::validate::schedule as validate;
use crate::{attempts, conditional, list, merge_patch, once, page_token, queues, tasks};

/// `POST /v1/schedules`
pub(crate) async fn create(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(new): Json<NewSchedule>,
) -> Result<Response, Problem> {
    let once = once::key(&headers)?.map(|key| once::once_key(&app, &client, key, once::digest(&new)));
    let (book, known) = queues::book(&app).await;
    let keep = validate::schedule(new, &book)?;
    may_run(&client, &keep.task)?;
    attempts::prepare(&app, std::iter::once(&keep.task.work), |_| "/task".into()).await?;
    known?;
    let max = app.settings.schedules_max;
    let made = app.store.create_schedule(Uuid::now_v7(), &keep, max.into(), once.as_ref()).await?;
    let (schedule, replayed) = match made {
        Made::Created(schedule) => (*schedule, false),
        Made::Known(known) => {
            let id = once::known(known)?;
            (app.store.schedule(id).await?.ok_or_else(not_found)?, true)
        }
        Made::Refused(refusal) => return Err(refused(refusal, &keep.timing, max)),
    };
    let mut answer = shown(&HeaderMap::new(), &schedule)?;
    *answer.status_mut() = StatusCode::CREATED;
    let location = paths::SCHEDULE.replace("{id}", &schedule.id.to_string());
    let answer = ([(header::LOCATION, location)], answer).into_response();
    Ok(if replayed { once::replayed(answer) } else { answer })
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SchedulesQuery {
    name: Option<String>,
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// `GET /v1/schedules`
pub(crate) async fn list(State(app): State<App>, Query(query): Query<SchedulesQuery>) -> Result<Response, Problem> {
    let page_size = list::page_size(query.page_size)?;
    if let Some(detail) = query.name.as_deref().and_then(validate::wrong_name) {
        return Err(Problem::field(Code::InvalidQuery, "name", detail));
    }
    let token = query.page_token.filter(|token| !token.is_empty());
    let before = token.map(|token| page_token::read_schedule(&token)).transpose()?;
    let mut schedules = app.store.schedules(before, query.name.as_deref(), page_size + 1).await?;
    let more = schedules.len() as i64 > page_size;
    schedules.truncate(page_size as usize);
    let next_page_token = schedules.last().filter(|_| more).map(|last| page_token::write_schedule(last.id));
    Ok(paged(paths::SCHEDULES, page_size, next_page_token, |next_page_token| ScheduleList {
        schedules,
        next_page_token,
    }))
}

/// `GET /v1/schedules/{id}`
pub(crate) async fn get(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<Response, Problem> {
    conditional::bound_if_none_match(&headers)?;
    shown(&headers, &app.store.schedule(id).await?.ok_or_else(not_found)?)
}

/// `PATCH /v1/schedules/{id}`
pub(crate) async fn change(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    let wanted = conditional::if_match(&headers)?;
    let (book, known) = queues::book(&app).await;
    merge_patch::check::<NewSchedule>(&patch)?;
    known?;
    for _ in 0..merge_patch::TRIES_MAX {
        let known = app.store.whole_schedule(id).await?.ok_or_else(not_found)?;
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&known.revision)) {
            return Err(changed_meanwhile());
        }
        let revision = known.revision;
        let keep = validate::schedule(merge_patch::applied(&writable(known), &patch)?, &book)?;
        may_run(&client, &keep.task)?;
        attempts::prepare(&app, std::iter::once(&keep.task.work), |_| "/task".into()).await?;
        match app.store.change_schedule(id, revision, &keep).await? {
            Changed::Done(schedule) => return shown(&HeaderMap::new(), &schedule),
            Changed::Refused(Refusal::WrongRevision) => {}
            Changed::Refused(refusal) => return Err(refused(refusal, &keep.timing, app.settings.schedules_max)),
        }
    }
    Err(changed_meanwhile())
}

/// `DELETE /v1/schedules/{id}`
pub(crate) async fn delete(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<StatusCode, Problem> {
    let wanted = conditional::if_match(&headers)?;
    let revision = match wanted {
        None => None,
        Some(wanted) => {
            let known = app.store.schedule(id).await?.ok_or_else(not_found)?.revision;
            Some(Some(known).filter(|known| wanted.contains(known)).ok_or_else(changed_meanwhile)?)
        }
    };
    match app.store.delete_schedule(id, revision).await? {
        None => Ok(StatusCode::NO_CONTENT),
        Some(Refusal::WrongRevision) => Err(changed_meanwhile()),
        Some(_) => Err(not_found()),
    }
}

/// `POST /v1/schedules/{id}/pause`
pub(crate) async fn pause(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Json(asked): Json<PauseRequest>,
) -> Result<Response, Problem> {
    validate::pause_reason(asked.reason.as_deref())?;
    done(app.store.pause_schedule(id, asked.reason.as_deref()).await?)
}

/// `POST /v1/schedules/{id}/resume`
pub(crate) async fn resume(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<Response, Problem> {
    done(app.store.resume_schedule(id).await?)
}

/// `POST /v1/schedules/{id}/trigger`
pub(crate) async fn trigger(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<Response, Problem> {
    let digest = once::digest(&("trigger", id));
    let once = once::key(&headers)?.map(|key| once::once_key(&app, &client, key, digest));
    let (task_id, replayed) = match app.store.trigger_schedule(id, once.as_ref()).await? {
        Triggered::Created(task_id) => (task_id, false),
        Triggered::Known(known) => (once::known(known)?, true),
        Triggered::NotFound => return Err(not_found()),
    };
    let task = app.store.get(task_id).await?.ok_or_else(|| tasks::not_found(task_id))?;
    let location = paths::TASK.replace("{id}", &task_id.to_string());
    let answer = (StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(task)).into_response();
    Ok(if replayed { once::replayed(answer) } else { answer })
}

/// `POST /v1/schedules/{id}/backfill`
pub(crate) async fn backfill(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Json(asked): Json<BackfillRequest>,
) -> Result<axum::Json<BackfillResponse>, Problem> {
    let BackfillRequest { from, to, dry_run } = asked;
    if !crate::validate::is_storable(from) {
        return Err(wrong("/from", "must lie in the years 1970 to 9999"));
    }
    if to <= from {
        return Err(wrong("/to", "must lie after from"));
    }
    match app.store.backfill_schedule(id, from, to, dry_run).await? {
        Backfilled::Done { occurrences, runs } => {
            Ok(axum::Json(BackfillResponse { dry_run, occurrences: occurrences as i64, runs }))
        }
        Backfilled::TooMany => {
            let max = limits::BACKFILL_MAX;
            Err(wrong("/to", format!("there are more than {max} occurrences in the range; take a shorter one")))
        }
        Backfilled::InFuture => Err(wrong("/to", "must not lie in the future")),
        Backfilled::NotFound => Err(not_found()),
    }
}

/// `POST /v1/schedules/preview`
pub(crate) async fn preview_new(Json(asked): Json<PreviewRequest>) -> Result<axum::Json<Preview>, Problem> {
    let (timing, after, count) = validate::preview(asked)?;
    let now = Utc::now();
    let recurrence = timing.recurrence(now).map_err(|error| wrong("/cron", error.to_string()))?;
    let zone = zone(&timing.time_zone).unwrap_or_default();
    let occurrences = recurrence.after(after.unwrap_or(now)).take(count).map(|at| Occurrence {
        occurrence_at: at,
        local_time: local_time(at, zone),
        run_at: at,
    });
    Ok(axum::Json(Preview { occurrences: occurrences.collect() }))
}

/// `GET /v1/schedules/{id}/preview`
pub(crate) async fn preview(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Query(query): Query<PreviewQuery>,
) -> Result<axum::Json<Preview>, Problem> {
    let invalid = |name: &str, detail: String| Problem::field(Code::InvalidQuery, name, detail);
    let count = match query.count.unwrap_or(limits::PREVIEW_DEFAULT) {
        count @ 1..=limits::PREVIEW_MAX => count as usize,
        _ => return Err(invalid("count", format!("must be a whole number from 1 to {}", limits::PREVIEW_MAX))),
    };
    let is_storable = |at: &DateTime<Utc>| crate::validate::is_storable(*at);
    if !query.after.as_ref().is_none_or(is_storable) {
        return Err(invalid("after", "must lie in the years 1970 to 9999".into()));
    }
    let occurrences = app.store.preview_schedule(id, query.after, count).await?.ok_or_else(not_found)?;
    Ok(axum::Json(Preview { occurrences }))
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RunsQuery {
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// `GET /v1/schedules/{id}/runs`
pub(crate) async fn runs(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Query(query): Query<RunsQuery>,
) -> Result<Response, Problem> {
    let page_size = list::page_size(query.page_size)?;
    let token = query.page_token.filter(|token| !token.is_empty());
    let after = token.map(|token| page_token::read_run(&token)).transpose()?;
    let mut runs = app.store.schedule_runs(id, after, page_size + 1).await?.ok_or_else(not_found)?;
    let more = runs.len() as i64 > page_size;
    runs.truncate(page_size as usize);
    let next_page_token = runs.last().filter(|_| more).map(|(_, key)| page_token::write_run(*key));
    let runs = runs.into_iter().map(|(run, _)| run).collect();
    let path = paths::SCHEDULE_RUNS.replace("{id}", &id.to_string());
    Ok(paged(&path, page_size, next_page_token, |next_page_token| RunList { runs, next_page_token }))
}

/// A page, with a link to the next where there is one.
pub(crate) fn paged<T: serde::Serialize>(
    path: &str,
    page_size: i64,
    token: Option<String>,
    page: impl FnOnce(String) -> T,
) -> Response {
    let link = token.as_ref().map(|token| {
        let parameters = [("page_size", page_size.to_string()), ("page_token", token.clone())];
        // Any base does: only the query is taken.
        let url = Url::parse_with_params("http://localhost/", parameters).ok();
        let query = url.and_then(|url| url.query().map(str::to_owned)).unwrap_or_default();
        format!("<{path}?{query}>; rel=\"next\"")
    });
    let answer = axum::Json(page(token.unwrap_or_default())).into_response();
    match link {
        Some(link) => ([(header::LINK, link)], answer).into_response(),
        None => answer,
    }
}

fn shown(headers: &HeaderMap, schedule: &Schedule) -> Result<Response, Problem> {
    conditional::revised(headers, schedule.revision, schedule)
}

fn done(changed: Changed) -> Result<Response, Problem> {
    match changed {
        Changed::Done(schedule) => shown(&HeaderMap::new(), &schedule),
        Changed::Refused(_) => Err(not_found()),
    }
}

fn may_run(client: &Client, task: &taskmaster_store::TaskToCreate) -> Result<(), Problem> {
    scope::require_for_commands(client, std::slice::from_ref(task), |_| "/task".into())
}

/// What of a schedule a user can write.
fn writable(schedule: Schedule) -> NewSchedule {
    NewSchedule {
        name: schedule.name,
        cron: schedule.cron,
        every_seconds: schedule.every_seconds,
        time_zone: Some(schedule.time_zone),
        task: schedule.task,
        overlap: Some(schedule.overlap),
        catch_up: Some(schedule.catch_up),
        catch_up_window_seconds: Some(schedule.catch_up_window_seconds),
        jitter_seconds: Some(schedule.jitter_seconds),
        starts_at: schedule.starts_at,
        ends_at: schedule.ends_at,
        pause_after_failures: schedule.pause_after_failures,
    }
}

fn wrong(pointer: &str, detail: impl Into<String>) -> Problem {
    Problem::validation(vec![FieldError::new(pointer, detail)])
}

fn not_found() -> Problem {
    Problem::new(Code::ScheduleNotFound, "No schedule has this id. GET /v1/schedules lists those that there are.")
}

fn changed_meanwhile() -> Problem {
    conditional::changed_meanwhile("schedule")
}

fn refused(refusal: Refusal, timing: &Timing, max: u32) -> Problem {
    match refusal {
        Refusal::NotFound => not_found(),
        Refusal::WrongRevision => changed_meanwhile(),
        Refusal::NameTaken => Problem::field(Code::ScheduleNameTaken, "/name", "is another schedule's"),
        Refusal::TooMany => Problem::new(
            Code::TooManySchedules,
            format!("This installation has {max} schedules, the most that it may have (TASKMASTER_SCHEDULES_MAX)."),
        ),
        Refusal::NeverFires => match (&timing.beat, timing.ends_at) {
            (_, Some(_)) => wrong("/ends_at", "leaves no occurrence that is still to come"),
            (Beat::Cron(_), None) => wrong("/cron", "never comes: no date is like this"),
            (Beat::Every(_), None) => wrong("/every_seconds", "leaves no occurrence that is still to come"),
        },
    }
}
