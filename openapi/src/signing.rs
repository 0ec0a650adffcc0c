//! The secrets that HTTP tasks with `sign` are signed with: one for the installation, and for a while the one before.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::gateway::paths;
use crate::problem::Problem;

/// A secret that requests are signed with.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SigningSecret {
    /// As receivers take it: `whsec_` and 32 bytes in base64.
    #[schema(max_length = 100, pattern = "^whsec_[A-Za-z0-9+/]+={0,2}$")]
    pub secret: String,
    pub created_at: DateTime<Utc>,
    /// Until then requests are signed with it as well as with the one that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<DateTime<Utc>>,
}

impl std::fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningSecret").field("created_at", &self.created_at).finish_non_exhaustive()
    }
}

/// The secrets in use, the newest first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"secrets": [{"secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo=", "created_at": "2026-01-31T12:00:00Z"}]}))]
pub struct SigningSecretList {
    #[schema(max_items = 2)]
    pub secrets: Vec<SigningSecret>,
}

/// How to take a new secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"overlap_seconds": 3600}))]
pub struct RotateSigningSecretRequest {
    /// Requests are signed with the secret before as well for so many seconds, at most 30 days. A day when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "crate::whole::optional")]
    #[schema(minimum = 0, maximum = 2592000, default = 86400)]
    pub overlap_seconds: Option<i64>,
}

/// The secrets that HTTP tasks with `sign` are signed with.
#[utoipa::path(
    get, path = paths::SIGNING_SECRETS, operation_id = "listSigningSecrets", tag = "keys",
    responses(
        (status = 200, description = "The secrets in use, the newest first", body = SigningSecretList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn list_signing_secrets() {}

/// Take a new secret to sign HTTP tasks with. Until `overlap_seconds` are over, requests carry the signature of the one before as well.
///
/// Of two rotations within one overlap only the newer one's old secret goes on being used.
#[utoipa::path(
    post, path = paths::SIGNING_SECRETS_ROTATE, operation_id = "rotateSigningSecret", tag = "keys",
    request_body = RotateSigningSecretRequest,
    responses(
        (status = 200, description = "The secrets in use, the new one first", body = SigningSecretList),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["admin"]))
)]
pub fn rotate_signing_secret() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let secret = SigningSecret { secret: "hunter2".into(), created_at: Utc::now(), expires_at: None };
        assert!(!format!("{:?}", SigningSecretList { secrets: vec![secret] }).contains("hunter2"));
    }
}
