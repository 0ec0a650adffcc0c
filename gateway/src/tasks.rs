//! One task: create, look, wait for its end, cancel, retry.

use std::time::Duration;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use taskmaster_openapi::gateway::{AttemptList, paths};
use taskmaster_openapi::task::{NewTask, Task, TaskStatus};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter, bound_header};
use taskmaster_store::{Cancel, Retry, TaskToCreate};
use uuid::Uuid;

use crate::app::App;
use crate::edge::admission::Admission;
use crate::edge::client::Client;
use crate::edge::scope;
use crate::once::{self, Created};
use crate::wait::Wait;
use crate::{attempts, conditional, prefer, queues, trace, validate};

/// `POST /v1/tasks`
pub(crate) async fn create(
    State(app): State<App>,
    Extension(admission): Extension<Admission>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(mut new): Json<NewTask>,
) -> Result<Response, Problem> {
    bound_header(&headers, "Prefer", limits::REQUEST_HEADER_CHARS_MAX)?;
    let once = once::key(&headers)?.map(|key| (key, once::digest(&new)));
    let (book, known) = queues::book(&app).await;
    queues::fill(&book, &mut new);
    let task = TaskToCreate { trace: trace::of(&headers), ..validate::task(new)? };
    scope::require_for_commands(&client, std::slice::from_ref(&task), |_| String::new())?;
    attempts::prepare(&app, std::iter::once(&task.work), |_| String::new()).await?;
    known?;
    let (created, wait, replayed) = match once {
        None => {
            let wait = Wait::asked(&app, &headers, task.id);
            (app.creator.create(task).await?, wait, false)
        }
        Some((key, digest)) => create_once(&app, &client, &headers, key, digest, task).await?,
    };
    let waited = wait.as_ref().map(|wait| wait.duration);
    // The task is committed: whatever fails from here on, the answer is that it was created.
    let task = match wait {
        Some(wait) => wait.ended(&app, &admission, created).await,
        None => created,
    };
    let location = paths::TASK.replace("{id}", &task.id.to_string());
    let answer = (StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(task)).into_response();
    let answer = if replayed { once::replayed(answer) } else { answer };
    Ok(preference_applied(answer, waited))
}

/// The task of this key: created now, or before (`true`).
async fn create_once(
    app: &App,
    client: &Client,
    headers: &HeaderMap,
    key: String,
    digest: Vec<u8>,
    task: TaskToCreate,
) -> Result<(Task, Option<Wait>, bool), Problem> {
    let wait = Wait::asked(app, headers, task.id);
    let id = task.id;
    match once::create(app, client, key, digest, &[task]).await? {
        Created::Now(tasks) => {
            let task = tasks.into_iter().next().ok_or_else(|| not_found(id))?;
            Ok((task, wait, false))
        }
        Created::Before(ids) => {
            let id = ids.first().copied().unwrap_or(id);
            let wait = Wait::asked(app, headers, id);
            let task = app.store.get(id).await?.ok_or_else(|| not_found(id))?;
            Ok((task, wait, true))
        }
    }
}

/// `GET /v1/tasks/{id}`
pub(crate) async fn get(
    State(app): State<App>,
    Extension(admission): Extension<Admission>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<Response, Problem> {
    bound_header(&headers, "Prefer", limits::REQUEST_HEADER_CHARS_MAX)?;
    conditional::bound_if_none_match(&headers)?;
    let wait = Wait::asked(&app, &headers, id);
    let waited = wait.as_ref().map(|wait| wait.duration);
    let task = match wait {
        None => app.store.read_task(id).await?.ok_or_else(|| not_found(id))?,
        Some(wait) => {
            let known = app.store.get(id).await?.ok_or_else(|| not_found(id))?;
            wait.ended(&app, &admission, known).await
        }
    };
    Ok(preference_applied(conditional::json(&headers, &task)?, waited))
}

/// `GET /v1/tasks/{id}/attempts`
pub(crate) async fn attempts(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<axum::Json<AttemptList>, Problem> {
    let attempts = app.store.read_attempts(id).await?.ok_or_else(|| not_found(id))?;
    Ok(axum::Json(AttemptList { attempts }))
}

/// `POST /v1/tasks/{id}/cancel`
pub(crate) async fn cancel(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<(StatusCode, axum::Json<Task>), Problem> {
    match app.store.cancel(id).await? {
        Cancel::Cancelled(task) => Ok((StatusCode::OK, axum::Json(task))),
        Cancel::Requested(task) => Ok((StatusCode::ACCEPTED, axum::Json(task))),
        Cancel::Ended(task) => Err(conflict(task.status, "it has ended, and cannot be cancelled")),
        Cancel::NotFound => Err(not_found(id)),
    }
}

/// `POST /v1/tasks/{id}/retry`
pub(crate) async fn retry(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<axum::Json<Task>, Problem> {
    match app.store.retry(id).await? {
        Retry::Queued(task) => Ok(axum::Json(task)),
        Retry::WrongState(task) => Err(conflict(task.status, "only FAILED and CANCELLED tasks can be retried")),
        Retry::NotFound => Err(not_found(id)),
    }
}

pub(crate) fn not_found(id: Uuid) -> Problem {
    Problem::new(Code::TaskNotFound, format!("There is no task {id}, or its history is no longer kept."))
}

fn conflict(status: TaskStatus, why: &str) -> Problem {
    Problem::new(Code::TaskStateConflict, format!("The task is {}: {why}.", status.as_str()))
}

fn preference_applied(mut answer: Response, waited: Option<Duration>) -> Response {
    if let Some(waited) = waited {
        prefer::applied(answer.headers_mut(), waited);
    }
    answer
}
