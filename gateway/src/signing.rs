//! `/v1/signing-secrets`: what HTTP tasks are signed with.

use std::time::Duration;

use axum::extract::State;
use taskmaster_openapi::signing::{RotateSigningSecretRequest, SigningSecretList};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::Json;

use crate::app::App;

/// `GET /v1/signing-secrets`
pub(crate) async fn list(State(app): State<App>) -> Result<axum::Json<SigningSecretList>, Problem> {
    Ok(axum::Json(SigningSecretList { secrets: app.store.signing_secrets().await? }))
}

/// `POST /v1/signing-secrets/rotate`
pub(crate) async fn rotate(
    State(app): State<App>,
    Json(asked): Json<RotateSigningSecretRequest>,
) -> Result<axum::Json<SigningSecretList>, Problem> {
    let secrets = app.store.rotate_signing_secret(overlap(asked.overlap_seconds)?).await?;
    Ok(axum::Json(SigningSecretList { secrets }))
}

/// How long the secret before is still used.
///
/// # Errors
/// `validation_failed`.
pub(crate) fn overlap(seconds: Option<i64>) -> Result<Duration, Problem> {
    let max = limits::KEY_OVERLAP_SECONDS_MAX;
    match seconds.unwrap_or(limits::KEY_OVERLAP_SECONDS_DEFAULT) {
        seconds if (0..=max).contains(&seconds) => Ok(Duration::from_secs(seconds.unsigned_abs())),
        _ => {
            let detail = format!("must be a whole number from 0 to {max}");
            Err(Problem::field(Code::ValidationFailed, "/overlap_seconds", detail))
        }
    }
}
