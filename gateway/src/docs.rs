//! Swagger UI and the OpenAPI documents, all from this program: nothing is fetched from anywhere else.

use std::sync::Arc;

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;
use taskmaster_openapi::gateway::paths::DOCS;
use taskmaster_openapi::{Code, Problem, coordinator, documents, gateway, worker};

use crate::conditional;

/// Swagger UI writes styles into its elements and shows pictures from `data:`; scripts and requests are this origin's only.
const DOCS_CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The paths below which the documents are served, with the names under which Swagger UI lists them.
const DOCUMENTS: [(&str, &str); 3] = [
    ("TaskMaster: the API", gateway::paths::DOCUMENT),
    ("Coordinator: what workers say to it", coordinator::paths::DOCUMENT),
    ("Worker: what coordinators say to it", worker::paths::DOCUMENT),
];

/// The page, with `{{settings}}` for what `docs.js` needs to know.
const PAGE: &str = include_str!("docs/index.html");
const STYLES: &str = include_str!("docs/docs.css");
const SCRIPT: &str = include_str!("docs/docs.js");

/// What of Swagger UI the page asks for.
const SWAGGER_UI: [&str; 4] =
    ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-32x32.png"];

/// `/docs`, and the documents that it shows. Where keys are required the page asks for one.
///
/// # Errors
/// When a document cannot be written as JSON.
pub(crate) fn router(keys_required: bool) -> serde_json::Result<Router> {
    let mut router = Router::new()
        .route("/", get(|| async { moved(DOCS) }))
        // Without the slash, the page would look for its parts in `/`.
        .route(DOCS, get(|| async { moved("/docs/") }));
    let page: Arc<str> = page(keys_required).into();
    for path in ["/docs/", "/docs/{*file}"] {
        let page = page.clone();
        let serve = async move |file: Option<Path<String>>, headers: HeaderMap| {
            let file = file.map(|path| path.0).unwrap_or_default();
            match part(&page, &file) {
                Ok((content_type, bytes)) => answer(&headers, &content_type, bytes),
                Err(problem) => problem.into_response(),
            }
        };
        router = router.route(path, get(serve));
    }
    for (name, document) in documents::all() {
        let text = Bytes::from(documents::to_json(&document)?);
        let serve = async move |headers: HeaderMap| conditional::bytes(&headers, "application/json", text.clone());
        router = router.route(&format!("/openapi/v1/{name}"), get(serve));
    }
    Ok(router)
}

fn page(keys_required: bool) -> String {
    let documents: Vec<_> = DOCUMENTS.iter().map(|(name, url)| json!({"name": name, "url": url})).collect();
    PAGE.replace("{{settings}}", &json!({"documents": documents, "keys_required": keys_required}).to_string())
}

fn moved(to: &'static str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

/// A part of the page by its name: its media type, and itself.
fn part(page: &str, file: &str) -> Result<(String, Bytes), Problem> {
    match file {
        "" | "index.html" => return Ok(("text/html; charset=utf-8".into(), Bytes::copy_from_slice(page.as_bytes()))),
        "docs.css" => return Ok(("text/css; charset=utf-8".into(), STYLES.into())),
        "docs.js" => return Ok(("text/javascript; charset=utf-8".into(), SCRIPT.into())),
        _ if SWAGGER_UI.contains(&file) => {}
        _ => return Err(Problem::new(Code::NotFound, "The documentation has no such file.")),
    }
    match utoipa_swagger_ui::serve(file, Arc::default()) {
        Ok(Some(asset)) => Ok((asset.content_type, asset.bytes.into_owned().into())),
        Ok(None) => Err(Problem::internal()),
        Err(error) => {
            tracing::error!(%error, file, "Swagger UI cannot be served");
            Err(Problem::internal())
        }
    }
}

fn answer(headers: &HeaderMap, content_type: &str, bytes: Bytes) -> Response {
    let mut response = conditional::bytes(headers, content_type, bytes);
    let policy = HeaderValue::from_static(DOCS_CONTENT_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}
