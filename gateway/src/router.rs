//! The whole API on one page.

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodRouter, any, delete, get, post};
use http::Method;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::{Code, Problem, coordinator};

use crate::app::App;
use crate::{batch, bulk, events, forward, list, stats, tasks, workers};

/// A method, its path, and what handles it.
pub(crate) type Operation = (Method, &'static str, MethodRouter<App>);

/// The public API: what `openapi/v1/gateway.json` documents, health apart.
pub(crate) fn public() -> Vec<Operation> {
    vec![
        (Method::POST, paths::TASKS, post(tasks::create)),
        (Method::GET, paths::TASKS, get(list::list)),
        (Method::POST, paths::TASKS_BATCH, post(batch::create)),
        (Method::POST, paths::TASKS_CANCEL, post(bulk::cancel)),
        (Method::POST, paths::TASKS_RETRY, post(bulk::retry)),
        (Method::GET, paths::TASK, get(tasks::get)),
        (Method::GET, paths::TASK_ATTEMPTS, get(tasks::attempts)),
        (Method::POST, paths::TASK_CANCEL, post(tasks::cancel)),
        (Method::POST, paths::TASK_RETRY, post(tasks::retry)),
        (Method::GET, paths::EVENTS, get(events::stream)),
        (Method::GET, paths::STATS, get(stats::get)),
        (Method::GET, paths::WORKERS, get(workers::list)),
        (Method::POST, paths::WORKERS_SCALE, post(workers::scale)),
        (Method::POST, paths::WORKER_DRAIN, post(workers::drain)),
    ]
}

/// What of the coordinator's contract is passed on.
pub(crate) fn forwarded() -> Vec<Operation> {
    vec![
        (Method::POST, coordinator::paths::HEARTBEAT, post(forward::heartbeat)),
        (Method::POST, coordinator::paths::TASK_STATUS, post(forward::task_status)),
        (Method::DELETE, coordinator::paths::WORKER, delete(forward::remove)),
    ]
}

/// A router of these operations.
pub(crate) fn of(operations: Vec<Operation>) -> Router<App> {
    operations.into_iter().fold(Router::new(), |router, (_, path, handler)| router.route(path, handler))
}

/// Whatever else lies below `/v1`, so that it passes the same edge as the API.
pub(crate) fn rest() -> Router<App> {
    Router::new().route("/v1/{*rest}", any(not_found))
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path().to_owned();
    Problem::new(Code::NotFound, format!("There is nothing at {path}. GET /docs lists what there is."))
}
