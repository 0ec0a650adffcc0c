//! `/v1/url-workers`: workers that are only a URL.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::url_worker::{NewUrlWorker, UrlWorker, UrlWorkerList};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter};
use taskmaster_store::url_workers::Put;

use crate::app::App;
use crate::validate;

/// `PUT /v1/url-workers/{worker_id}`
pub(crate) async fn put(
    State(app): State<App>,
    PathParameter(worker_id): PathParameter<String>,
    Json(new): Json<NewUrlWorker>,
) -> Result<Response, Problem> {
    match app.store.put_url_worker(&validate::url_worker::new(worker_id, new)?).await? {
        Put::Created(worker) => {
            let location = paths::URL_WORKER.replace("{worker_id}", &worker.worker_id);
            Ok((StatusCode::CREATED, [(header::LOCATION, location)], axum::Json(worker)).into_response())
        }
        Put::Changed(worker) => Ok(axum::Json(worker).into_response()),
        Put::TooMany => {
            let detail = format!("There are {} of them, the most there may be: delete one.", limits::URL_WORKERS_MAX);
            Err(Problem::new(Code::TooManyUrlWorkers, detail))
        }
    }
}

/// `GET /v1/url-workers`
pub(crate) async fn list(State(app): State<App>) -> Result<axum::Json<UrlWorkerList>, Problem> {
    Ok(axum::Json(UrlWorkerList { url_workers: app.store.url_workers().await? }))
}

/// `GET /v1/url-workers/{worker_id}`
pub(crate) async fn get(
    State(app): State<App>,
    PathParameter(worker_id): PathParameter<String>,
) -> Result<axum::Json<UrlWorker>, Problem> {
    let is_id = validate::wrong_worker_id(&worker_id).is_none();
    let worker = if is_id { app.store.url_worker(&worker_id).await? } else { None };
    worker.map(axum::Json).ok_or_else(not_found)
}

/// `DELETE /v1/url-workers/{worker_id}`
pub(crate) async fn delete(
    State(app): State<App>,
    PathParameter(worker_id): PathParameter<String>,
) -> Result<StatusCode, Problem> {
    let is_id = validate::wrong_worker_id(&worker_id).is_none();
    match is_id && app.store.delete_url_worker(&worker_id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found()),
    }
}

fn not_found() -> Problem {
    Problem::new(Code::WorkerNotFound, "No URL is called by this id. GET /v1/url-workers lists those that there are.")
}
