//! `/v1/queues`: pauses, limits and defaults of queues; purge.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::queue::{PurgeRequest, PurgeResponse, Queue, QueueList, QueueSettings};
use taskmaster_openapi::schedule::PauseRequest;
use taskmaster_openapi::task::NewTask;
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter, Query};
use taskmaster_store::StoreError;
use taskmaster_store::queues::book::QueueBook;
use taskmaster_store::queues::edit::Changed;

use crate::app::App;
use crate::schedules::paged;
use crate::{conditional, list, merge_patch, page_token, validate};

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueuesQuery {
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// `GET /v1/queues`
pub(crate) async fn list(State(app): State<App>, Query(query): Query<QueuesQuery>) -> Result<Response, Problem> {
    let page_size = list::page_size(query.page_size)?;
    let token = query.page_token.filter(|token| !token.is_empty());
    let after = token.map(|token| page_token::read_queue(&token)).transpose()?.unwrap_or_default();
    let mut queues = app.store.queues(&after, page_size + 1).await?;
    let more = queues.len() as i64 > page_size;
    queues.truncate(page_size as usize);
    let next_page_token = queues.last().filter(|_| more).map(|last| page_token::write_queue(&last.queue));
    Ok(paged(paths::QUEUES, page_size, next_page_token, |next_page_token| QueueList { queues, next_page_token }))
}

/// `GET /v1/queues/{queue}`
pub(crate) async fn get(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(name): PathParameter<String>,
) -> Result<Response, Problem> {
    check_name(&name)?;
    conditional::bound_if_none_match(&headers)?;
    shown(&headers, &app.store.queue(&name).await?.ok_or_else(not_found)?)
}

/// `PATCH /v1/queues/{queue}`
pub(crate) async fn change(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(name): PathParameter<String>,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    check_name(&name)?;
    let wanted = conditional::if_match(&headers)?;
    merge_patch::check::<QueueSettings>(&patch)?;
    for _ in 0..merge_patch::TRIES_MAX {
        let known = app.store.queue(&name).await?;
        let revision = known.as_ref().map_or(0, |known| known.revision);
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&revision)) {
            return Err(changed_meanwhile());
        }
        let settings = known.map(|known| known.settings()).unwrap_or_default();
        let settings = validate::queue::settings(merge_patch::applied(&settings, &patch)?)?;
        match app.store.set_queue(&name, revision, &settings).await? {
            Changed::WrongRevision => {}
            changed => return done(changed),
        }
    }
    Err(changed_meanwhile())
}

/// `DELETE /v1/queues/{queue}`
pub(crate) async fn reset(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(name): PathParameter<String>,
) -> Result<StatusCode, Problem> {
    check_name(&name)?;
    let revision = match conditional::if_match(&headers)? {
        None => None,
        Some(wanted) => {
            let known = app.store.queue(&name).await?.ok_or_else(not_found)?.revision;
            Some(Some(known).filter(|known| wanted.contains(known)).ok_or_else(changed_meanwhile)?)
        }
    };
    match app.store.reset_queue(&name, revision).await? {
        Changed::Done(_) => Ok(StatusCode::NO_CONTENT),
        Changed::NotFound => Err(not_found()),
        Changed::WrongRevision => Err(changed_meanwhile()),
    }
}

/// `POST /v1/queues/{queue}/pause`
pub(crate) async fn pause(
    State(app): State<App>,
    PathParameter(name): PathParameter<String>,
    Json(asked): Json<PauseRequest>,
) -> Result<Response, Problem> {
    check_name(&name)?;
    validate::schedule::pause_reason(asked.reason.as_deref())?;
    done(app.store.pause_queue(&name, asked.reason.as_deref()).await?)
}

/// `POST /v1/queues/{queue}/resume`
pub(crate) async fn resume(
    State(app): State<App>,
    PathParameter(name): PathParameter<String>,
) -> Result<Response, Problem> {
    check_name(&name)?;
    done(app.store.resume_queue(&name).await?)
}

/// `POST /v1/queues/{queue}/purge`
pub(crate) async fn purge(
    State(app): State<App>,
    PathParameter(name): PathParameter<String>,
    Json(asked): Json<PurgeRequest>,
) -> Result<axum::Json<PurgeResponse>, Problem> {
    check_name(&name)?;
    let PurgeRequest { dry_run, created_before } = asked;
    if created_before.is_some_and(|at| !validate::is_storable(at)) {
        return Err(Problem::field(Code::ValidationFailed, "/created_before", "must lie in the years 1970 to 9999"));
    }
    let purged = app.store.purge_queue(&name, created_before, limits::PURGE_MAX as usize, dry_run).await?;
    let purged = purged.ok_or_else(not_found)?;
    Ok(axum::Json(PurgeResponse {
        dry_run,
        matched: purged.matched as i64,
        cancelled: purged.cancelled as i64,
        more: purged.more,
    }))
}

/// What is set of queues, and whether it is known: of a request that is wrong that is said first.
pub(crate) async fn book(app: &App) -> (Arc<QueueBook>, Result<(), StoreError>) {
    match app.store.recent_queues().await {
        Ok(book) => (book, Ok(())),
        Err(error) => (Arc::default(), Err(error)),
    }
}

/// Gives a task what its queue says of tasks that do not say.
pub(crate) fn fill(book: &QueueBook, new: &mut NewTask) {
    let Some(defaults) = book.settings(new.queue.as_deref().unwrap_or(validate::DEFAULT_QUEUE)) else { return };
    new.max_attempts = new.max_attempts.or(defaults.max_attempts);
    new.timeout_seconds = new.timeout_seconds.or(defaults.timeout_seconds);
    if new.retry.is_none() {
        new.retry.clone_from(&defaults.retry);
    }
}

fn check_name(name: &str) -> Result<(), Problem> {
    match validate::wrong_queue(name) {
        Some(detail) => Err(Problem::field(Code::InvalidPath, "queue", detail)),
        None => Ok(()),
    }
}

fn shown(headers: &HeaderMap, queue: &Queue) -> Result<Response, Problem> {
    conditional::revised(headers, queue.revision, queue)
}

fn done(changed: Changed) -> Result<Response, Problem> {
    match changed {
        Changed::Done(queue) => shown(&HeaderMap::new(), &queue),
        Changed::NotFound => Err(not_found()),
        Changed::WrongRevision => Err(changed_meanwhile()),
    }
}

fn not_found() -> Problem {
    Problem::new(Code::QueueNotFound, "No queue has this name. GET /v1/queues lists those that there are.")
}

fn changed_meanwhile() -> Problem {
    conditional::changed_meanwhile("queue")
}
