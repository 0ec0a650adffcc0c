//! What a process waits for. Liveness never asks; readiness tells.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{Method, StatusCode};
use taskmaster_openapi::health::{LIVEZ, READYZ, Readiness};

use crate::layers::{self, OwnContract};

/// Reasons logged of one wait: causes that alternate do not fill the log.
const REASONS_LOGGED_MAX: usize = 10;

/// What a process waits for, by name; shared by those who know and by `/readyz`.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Mutex<BTreeMap<&'static str, Wait>>>);

#[derive(Debug, Default)]
struct Wait {
    reason: String,
    /// Reasons that were logged since the wait began.
    logged: Vec<String>,
}

impl Health {
    /// A process that waits for nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The process cannot do its work until `name` is there. Logged when the reason is a new one.
    pub fn waiting(&self, name: &'static str, reason: impl Into<String>) {
        let reason = reason.into();
        let mut waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = waits.entry(name).or_default();
        if !wait.logged.contains(&reason) && wait.logged.len() < REASONS_LOGGED_MAX {
            tracing::info!(waiting_for = name, reason, "not ready");
            wait.logged.push(reason.clone());
        }
        wait.reason = reason;
    }

    /// `name` is there.
    pub fn available(&self, name: &'static str) {
        if self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name).is_some() {
            tracing::info!(name, "available");
        }
    }

    /// Whether the process waits for `name`.
    pub fn is_waiting_for(&self, name: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(name)
    }

    pub fn readiness(&self) -> Readiness {
        let waits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting_for: Vec<String> = waits.iter().map(|(name, wait)| format!("{name}: {}", wait.reason)).collect();
        Readiness { ready: waiting_for.is_empty(), waiting_for }
    }

    /// The routes of `/livez` and `/readyz`.
    pub fn router(&self) -> Router {
        let health = self.clone();
        let router = Router::new()
            .route(LIVEZ, get(|| async { "ok\n" }))
            .route(READYZ, get(move || async move { health.ready() }));
        [LIVEZ, READYZ].into_iter().fold(router, |router, path| router.route(path, layers::options(&[Method::GET])))
    }

    fn ready(&self) -> Response {
        let readiness = self.readiness();
        let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut response = (status, axum::Json(readiness)).into_response();
        response.extensions_mut().insert(OwnContract);
        response
    }
}
