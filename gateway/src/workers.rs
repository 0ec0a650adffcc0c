//! The fleet: who is there, drain one, have more or fewer.

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use taskmaster_openapi::coordinator::WorkerList;
use taskmaster_openapi::gateway::{ScaleRequest, ScaleResponse};
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter};
use taskmaster_store::Seen;

use crate::aged;
use crate::app::App;
use crate::validate;

/// `GET /v1/workers`
pub(crate) async fn list(State(app): State<App>) -> Result<Response, Problem> {
    let Seen { value: workers, age } = app.store.read_workers().await?;
    Ok(aged::json(Seen { value: WorkerList { workers }, age }))
}

/// `POST /v1/workers/{worker_id}/drain`
pub(crate) async fn drain(
    State(app): State<App>,
    PathParameter(worker_id): PathParameter<String>,
) -> Result<StatusCode, Problem> {
    let is_id = validate::wrong_worker_id(&worker_id).is_none();
    if is_id && app.store.drain_worker(&worker_id).await? {
        return Ok(StatusCode::ACCEPTED);
    }
    Err(Problem::new(Code::WorkerNotFound, "No worker with this id is there. GET /v1/workers lists those that are."))
}

/// `POST /v1/workers/scale`
pub(crate) async fn scale(
    State(app): State<App>,
    Json(request): Json<ScaleRequest>,
) -> Result<axum::Json<ScaleResponse>, Problem> {
    let max = limits::SCALE_WORKERS_MAX;
    let workers = usize::try_from(request.workers).ok().filter(|_| request.workers <= max).ok_or_else(|| {
        Problem::validation(vec![FieldError::new("/workers", format!("must be a whole number from 0 to {max}"))])
    })?;
    match &app.scaler {
        Some(scaler) => scaler.scale(workers).await.map(axum::Json),
        None => Err(Problem::new(Code::ScalingUnsupported, app.settings.scale_hint.clone())),
    }
}
