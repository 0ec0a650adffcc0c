//! Swagger UI and the OpenAPI documents, all from this program: nothing is fetched from anywhere else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use taskmaster_openapi::gateway::paths::DOCS;
use taskmaster_openapi::{Code, Problem, coordinator, documents, gateway, worker};
use taskmaster_service::layers;
use utoipa_swagger_ui::{Config, Url};

use crate::conditional::Fixed;

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
    let options = || layers::options(&[Method::GET]);
    let mut router = Router::new()
        .route("/", get(|| async { moved(DOCS) }).merge(options()))
        // Without the slash, the page would look for its parts in `/`.
        .route(DOCS, get(|| async { moved("/docs/") }).merge(options()));
    let ui = Arc::new(Ui::new());
    for path in ["/docs/", "/docs/{*file}"] {
        let ui = ui.clone();
        let serve = async move |file: Option<Path<String>>, headers: HeaderMap| ui.answer(file, &headers);
        router = router.route(path, get(serve).merge(options()));
    }
    for (name, document) in documents::all() {
        let text = Fixed::new("application/json", Bytes::from(documents::to_json(&document)?));
        let text = Arc::new(text);
        let serve = async move |headers: HeaderMap| text.answer(&headers);
        router = router.route(&format!("/openapi/v1/{name}"), get(serve).merge(options()));
    }
    Ok(router)
}

/// Swagger UI: its configuration, and those of its files that somebody has asked for.
struct Ui {
    config: Arc<Config<'static>>,
    files: Mutex<HashMap<String, Arc<Fixed>>>,
}

fn config() -> Config<'static> {
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

impl Ui {
    fn new() -> Self {
        Self { config: Arc::new(config()), files: Mutex::default() }
    }

    fn answer(&self, file: Option<Path<String>>, headers: &HeaderMap) -> Response {
        let name = file.map(|path| path.0).unwrap_or_default();
        match self.file(&name) {
            Ok(Some(file)) => {
                let mut response = file.answer(headers);
                let policy = HeaderValue::from_static(DOCS_CONTENT_POLICY);
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
                response
            }
            Ok(None) => Problem::new(Code::NotFound, "Swagger UI has no such file.").into_response(),
            Err(error) => {
                tracing::error!(%error, name, "Swagger UI cannot be served");
                Problem::internal().into_response()
            }
        }
    }

    /// A file, if there is one of that name; only those that there are are kept.
    fn file(&self, name: &str) -> Result<Option<Arc<Fixed>>, Box<dyn std::error::Error>> {
        let files = || self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = files().get(name) {
            return Ok(Some(file.clone()));
        }
        let Some(file) = utoipa_swagger_ui::serve(name, self.config.clone())? else { return Ok(None) };
        let file = Arc::new(Fixed::new(file.content_type, file.bytes.into_owned().into()));
        files().insert(name.to_owned(), file.clone());
        Ok(Some(file))
    }
}
