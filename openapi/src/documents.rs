//! The OpenAPI documents, generated from the code. `openapi/v1/*.json` are committed copies; a test says when they are stale.

mod advice;
mod failures;
mod headers;
mod merge_patch;
mod schemas;

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::path::Operation;
use utoipa::openapi::security::{ApiKey as ApiKeyScheme, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

pub(crate) use failures::Failures;
pub(crate) use headers::Headers;
pub(crate) use schemas::Schemas;

/// Adds the scheme of the workers' tokens.
pub(crate) struct WorkerToken;

impl Modify for WorkerToken {
    fn modify(&self, document: &mut Document) {
        add_bearer(document, "worker_token", "The join token at first, then the worker's own.");
    }
}

/// Adds the scheme of the coordinators' token at a worker.
pub(crate) struct PushSecret;

impl Modify for PushSecret {
    fn modify(&self, document: &mut Document) {
        add_bearer(document, "push_secret", "The `push_secret` of the worker's heartbeats.");
    }
}

/// Adds the scheme of API keys.
pub(crate) struct ApiKey;

impl Modify for ApiKey {
    fn modify(&self, document: &mut Document) {
        add_bearer(
            document,
            "api_key",
            "An API key: `tm_<id>_<secret>`. The scope that an operation wants stands beside it; `admin` allows everything. `up` on loopback \
             goes without.",
        );
    }
}

/// Adds the scheme of incoming webhooks.
pub(crate) struct HookSignature;

impl Modify for HookSignature {
    fn modify(&self, document: &mut Document) {
        let description = "What the hook is set to: `X-Hub-Signature-256`, `Stripe-Signature`, `webhook-signature`, a header of its own, or \
                           `token` in the URL.";
        let scheme = ApiKeyScheme::Header(ApiKeyValue::with_description("X-Hub-Signature-256", description));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("hook_signature", SecurityScheme::ApiKey(scheme));
    }
}

/// Adds the scheme of attempts' tokens.
pub(crate) struct AttemptTokens;

impl Modify for AttemptTokens {
    fn modify(&self, document: &mut Document) {
        let scheme = ApiKeyScheme::Query(ApiKeyValue::with_description(
            "token",
            "The token in `TaskMaster-Callback-Url`, which an attempt's request carries.",
        ));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme("attempt_token", SecurityScheme::ApiKey(scheme));
    }
}

fn add_bearer(document: &mut Document, name: &str, description: &str) {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
    document.components.get_or_insert_default().add_security_scheme(name, SecurityScheme::Http(scheme));
}

/// Every operation, to be completed.
fn operations_mut(document: &mut Document) -> impl Iterator<Item = &mut Operation> {
    document.paths.paths.values_mut().flat_map(|item| {
        let methods = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
        methods.into_iter().flatten()
    })
}

/// The gateway's document as it is committed and served. A test holds it to what [`all`] makes; to make it takes longer, and more memory,
/// than all else that a gateway does at its start.
pub const GATEWAY: &str = include_str!("../v1/gateway.json");
/// The coordinator's, likewise.
pub const COORDINATOR: &str = include_str!("../v1/coordinator.json");
/// The worker's, likewise.
pub const WORKER: &str = include_str!("../v1/worker.json");

/// Every document: the name of its file under `openapi/v1/`, and the document.
pub fn all() -> Vec<(&'static str, Document)> {
    vec![
        ("gateway.json", crate::gateway::GatewayApi::openapi()),
        ("coordinator.json", crate::coordinator::CoordinatorApi::openapi()),
        ("worker.json", crate::worker::WorkerApi::openapi()),
    ]
}

/// A document as it is committed and served: indented JSON with a final line feed.
pub fn to_json(document: &Document) -> serde_json::Result<String> {
    let mut text = serde_json::to_string_pretty(document)?;
    text.push('\n');
    Ok(text)
}

/// Every operation of a document, as (method in capitals, path): what the router must serve, no more and no less.
pub fn operations(document: &Document) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let paths = serde_json::to_value(&document.paths).unwrap_or_default();
    for (path, item) in paths.as_object().into_iter().flatten() {
        for method in item.as_object().into_iter().flat_map(|o| o.keys()) {
            found.push((method.to_uppercase(), path.clone()));
        }
    }
    found.sort();
    found
}
