//! Liveness and readiness: the same two paths on every process. The status code is the contract.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::problem::Problem;

/// 200 while the process runs; never asks the database.
pub const LIVEZ: &str = "/livez";
/// 200 while the process can do its work, 503 while it cannot.
pub const READYZ: &str = "/readyz";

/// What a process waits for, by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({"ready": true, "waiting_for": []}))]
pub struct Readiness {
    pub ready: bool,
    /// What is missing, in words; empty when ready.
    #[schema(max_items = 20, value_type = Vec<crate::bounds::Reason>)]
    pub waiting_for: Vec<String>,
}

/// 200 while the process runs.
#[utoipa::path(get, path = LIVEZ, operation_id = "livez", tag = "health", security(()),
    responses((status = 200, description = "The process runs"),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json")))]
pub fn livez() {}

/// 200 while the process can do its work.
#[utoipa::path(get, path = READYZ, operation_id = "readyz", tag = "health", security(()),
    responses((status = 200, description = "Ready", body = Readiness), (status = 503, description = "Not ready", body = Readiness),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json")))]
pub fn readyz() {}
