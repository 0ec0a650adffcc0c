//! Swagger UI and the OpenAPI documents, all from this program: nothing is fetched from anywhere else.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde_json::json;
use taskmaster_openapi::gateway::paths::DOCS;
use taskmaster_openapi::{Code, Problem, coordinator, documents, gateway, worker};
use taskmaster_service::layers;

use crate::conditional::Fixed;

/// Swagger UI writes styles into its elements and shows pictures from `data:`; scripts and requests are this origin's only.
const DOCS_CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The documents: the names under which Swagger UI lists them, their paths, and what they are.
const DOCUMENTS: [(&str, &str, &str); 3] = [
    ("TaskMaster: the API", gateway::paths::DOCUMENT, documents::GATEWAY),
    ("Coordinator: what workers say to it", coordinator::paths::DOCUMENT, documents::COORDINATOR),
    ("Worker: what coordinators say to it", worker::paths::DOCUMENT, documents::WORKER),
];

/// The page, with `{{settings}}` for what `docs.js` needs to know.
const PAGE: &str = include_str!("docs/index.html");
const STYLES: &str = include_str!("docs/docs.css");
const SCRIPT: &str = include_str!("docs/docs.js");

/// What of Swagger UI the page asks for.
const SWAGGER_UI: [&str; 4] =
    ["swagger-ui.css", "swagger-ui-bundle.js", "swagger-ui-standalone-preset.js", "favicon-32x32.png"];

/// `/docs`, and the documents that it shows. Where keys are required the page asks for one.
pub(crate) fn router(keys_required: bool) -> Router {
    let options = || layers::options(&[Method::GET]);
    let mut router = Router::new()
        .route("/", get(|| async { moved(DOCS) }).merge(options()))
        // Without the slash, the page would look for its parts in `/`.
        .route(DOCS, get(|| async { moved("/docs/") }).merge(options()));
    let parts = Arc::new(parts(keys_required));
    for path in ["/docs/", "/docs/{*file}"] {
        let parts = parts.clone();
        let serve = async move |file: Option<Path<String>>, headers: HeaderMap| {
            let name = file.map(|path| path.0).unwrap_or_default();
            parts.get(name.as_str()).map_or_else(no_such_part, |part| of_the_page(part.answer(&headers)))
        };
        router = router.route(path, get(serve).merge(options()));
    }
    for (_, path, text) in DOCUMENTS {
        let document = Arc::new(Part::new("application/json", text.into()));
        let serve = async move |headers: HeaderMap| document.answer(&headers);
        router = router.route(path, get(serve).merge(options()));
    }
    router
}

fn of_the_page(mut response: Response) -> Response {
    let policy = HeaderValue::from_static(DOCS_CONTENT_POLICY);
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    response
}

fn page(keys_required: bool) -> String {
    let documents: Vec<_> = DOCUMENTS.iter().map(|(name, url, _)| json!({"name": name, "url": url})).collect();
    PAGE.replace("{{settings}}", &json!({"documents": documents, "keys_required": keys_required}).to_string())
}

fn moved(to: &'static str) -> Response {
    (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
}

/// A part of the page, or a document.
struct Part {
    content_type: String,
    bytes: Bytes,
    /// Made when somebody asks for it first.
    fixed: OnceLock<Fixed>,
}

/// The parts of the page by their names; the page itself has none, and that of a file.
fn parts(keys_required: bool) -> HashMap<&'static str, Part> {
    let page = Bytes::from(page(keys_required));
    let own = [
        ("", "text/html; charset=utf-8", page.clone()),
        ("index.html", "text/html; charset=utf-8", page),
        ("docs.css", "text/css; charset=utf-8", STYLES.into()),
        ("docs.js", "text/javascript; charset=utf-8", SCRIPT.into()),
    ];
    let mut parts = HashMap::from(own.map(|(name, content_type, bytes)| (name, Part::new(content_type, bytes))));
    for name in SWAGGER_UI {
        match utoipa_swagger_ui::serve(name, Arc::default()) {
            Ok(Some(asset)) => {
                let bytes = match asset.bytes {
                    Cow::Borrowed(bytes) => Bytes::from_static(bytes),
                    Cow::Owned(bytes) => bytes.into(),
                };
                parts.insert(name, Part::new(asset.content_type, bytes));
            }
            Ok(None) => tracing::error!(name, "Swagger UI has no such file"),
            Err(error) => tracing::error!(%error, name, "Swagger UI cannot be served"),
        }
    }
    parts
}

impl Part {
    fn new(content_type: impl Into<String>, bytes: Bytes) -> Self {
        Self { content_type: content_type.into(), bytes, fixed: OnceLock::new() }
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        self.fixed.get_or_init(|| Fixed::new(&self.content_type, self.bytes.clone())).answer(headers)
    }
}

fn no_such_part() -> Response {
    Problem::new(Code::NotFound, "The documentation has no such file.").into_response()
}
