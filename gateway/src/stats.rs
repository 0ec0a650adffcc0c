//! `GET /v1/stats`: counts, backlog and rates.

use axum::extract::State;
use axum::response::Response;
use taskmaster_openapi::Problem;

use crate::aged;
use crate::app::App;

/// `GET /v1/stats`
pub(crate) async fn get(State(app): State<App>) -> Result<Response, Problem> {
    Ok(aged::json(app.store.read_stats().await?))
}
