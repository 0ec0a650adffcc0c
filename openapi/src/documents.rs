//! The OpenAPI documents, generated from the code. `openapi/v1/*.json` are committed copies; a test says when they are stale.

use utoipa::openapi::OpenApi as Document;
use utoipa::openapi::RefOr;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::problem::Code;

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

/// Completes the failures of every operation, which are written as ranges (`4XX`, `5XX`): those statuses that its shape brings with
/// it also stand by themselves, because Swagger UI takes what it finds only in a range for undocumented; and 5XX has an example of
/// its own, since that of [`Problem`](crate::Problem) shows a mistake of the client.
pub(crate) struct Failures;

impl Modify for Failures {
    fn modify(&self, document: &mut Document) {
        let example = serde_json::json!({
            "type": Code::DatabaseUnavailable.type_uri(),
            "title": Code::DatabaseUnavailable.title(),
            "status": Code::DatabaseUnavailable.status().as_u16(),
            "detail": "The database did not answer in time.",
            "instance": "/v1/tasks",
            "code": Code::DatabaseUnavailable,
            "request_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        });
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.post, &mut item.put, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                let statuses = failures_of(&serde_json::to_value(&*operation).unwrap_or_default());
                let answers = &mut operation.responses.responses;
                if let Some(RefOr::T(answer)) = answers.get_mut("5XX") {
                    for content in answer.content.values_mut() {
                        if let RefOr::T(content) = content {
                            content.example = Some(example.clone());
                        }
                    }
                }
                let Some(RefOr::T(any)) = answers.get("4XX").cloned() else { continue };
                for (status, description) in statuses {
                    let mut one = any.clone();
                    one.description = description.into();
                    answers.entry(status.into()).or_insert(RefOr::T(one));
                }
            }
        }
    }
}

/// How an operation of this shape fails.
fn failures_of(operation: &serde_json::Value) -> Vec<(&'static str, &'static str)> {
    let parameters = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let has = |place: &str| parameters.iter().any(|parameter| parameter["in"] == place);
    let named = |name: &str| parameters.iter().any(|parameter| parameter["name"] == name);
    let mut found = Vec::new();
    if operation["requestBody"].is_object() {
        found.push(("400", "The body is not JSON, or a header is malformed"));
        found.push(("413", "The body is larger than the limit"));
        found.push(("415", "The body is not announced as `application/json`"));
        found.push(("422", "The body has another shape, or a value is not allowed; `errors` names each"));
    } else if has("query") || named("id") {
        found.push(("400", "A parameter is malformed; `errors` names it"));
    }
    let schemes = operation["security"].as_array().into_iter().flatten();
    let schemes: Vec<&str> =
        schemes.filter_map(|scheme| scheme.as_object()?.keys().next()).map(String::as_str).collect();
    if !schemes.is_empty() {
        found.push(("401", "No credentials, or wrong ones"));
    }
    if schemes.contains(&"api_key") {
        found.push(("403", "The API key lacks the scope, or a web page of another origin asks"));
    }
    if has("path") && !operation["requestBody"].is_object() {
        found.push(("404", "There is none with this id"));
    }
    found
}

fn add_bearer(document: &mut Document, name: &str, description: &str) {
    let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description)).build();
    document.components.get_or_insert_default().add_security_scheme(name, SecurityScheme::Http(scheme));
}

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
