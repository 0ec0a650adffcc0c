//! `GET /v1/stats`: counts, backlog and rates.

use axum::extract::State;
use taskmaster_openapi::Problem;
use taskmaster_openapi::gateway::Stats;

use crate::app::App;

/// `GET /v1/stats`
pub(crate) async fn get(State(app): State<App>) -> Result<axum::Json<Stats>, Problem> {
    Ok(axum::Json(app.store.stats().await?))
}
