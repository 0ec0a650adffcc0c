//! Swagger UI and the OpenAPI documents, all from this program: nothing is fetched from anywhere else.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use taskmaster_openapi::gateway::paths::DOCS;
use taskmaster_openapi::{Code, Problem, coordinator, documents, gateway, worker};
use utoipa_swagger_ui::{Config, Url};

use crate::conditional;

/// Swagger UI writes styles into its elements and shows pictures from `data:`; scripts and requests are this origin's only.
const DOCS_CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths below which the documents are served, with the names under which Swagger UI lists them.
const DOCUMENTS: [(&str, &str); 3] = [
    ("TaskMaster (gateway)", gateway::paths::DOCUMENT),
    ("Coordinator: what workers say to it", coordinator::paths::DOCUMENT),
    ("Worker: what coordinators say to it", worker::paths::DOCUMENT),
];

/// `/docs`, and the documents that it shows.
///
/// # Errors
/// When a document cannot be written as JSON.
pub(crate) fn router() -> serde_json::Result<Router> {
    let mut router = Router::new()
        .route("/", get(|| async { moved(DOCS) }))
        // Without the slash, the page would look for its parts in `/`.
        .route(DOCS, get(|| async { moved("/docs/") }));
    let ui = Arc::new(ui());
    for path in ["/docs/", "/docs/{*file}"] {
        let ui = ui.clone();
        let serve = async move |file: Option<Path<String>>, headers: HeaderMap| asset(&ui, file, &headers);
        router = router.route(path, get(serve));
    }
    for (name, document) in documents::all() {
        let text = Bytes::from(documents::to_json(&document)?);
        let serve = async move |headers: HeaderMap| conditional::bytes(&headers, "application/json", text.clone());
        router = router.route(&format!("/openapi/v1/{name}"), get(serve));
    }
    Ok(router)
}

fn ui() -> Config<'static> {
    let urls = DOCUMENTS.iter().enumerate().map(|(i, (name, path))| Url::with_primary(name, path, i == 0));
    Config::new(urls)
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .display_operation_id(true)
        .deep_linking(true)
        // Without this, Swagger UI shows documents of public hosts to validator.swagger.io.
        .validator_url("none")
}

fn moved(to: &'static str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

fn asset(ui: &Arc<Config<'static>>, file: Option<Path<String>>, headers: &HeaderMap) -> Response {
    let file = file.map(|path| path.0).unwrap_or_default();
    match utoipa_swagger_ui::serve(&file, ui.clone()) {
        Ok(Some(asset)) => {
            let mut response = conditional::bytes(headers, &asset.content_type, asset.bytes.into_owned().into());
            let policy = HeaderValue::from_static(DOCS_CONTENT_POLICY);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Ok(None) => Problem::new(Code::NotFound, "Swagger UI has no such file.").into_response(),
        Err(error) => {
            tracing::error!(%error, file, "Swagger UI cannot be served");
            Problem::internal().into_response()
        }
    }
}
