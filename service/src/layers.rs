//! What every router is wrapped in: a request id, one log line a request, and problem documents for whatever fails.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use taskmaster_openapi::limits::REQUEST_ID_CHARS_MAX;
use taskmaster_openapi::problem::PROBLEM_JSON;
use taskmaster_openapi::{Code, Problem};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use uuid::Uuid;

use crate::stage::{Entry, Exit, Stage, Staging};

/// The header of a request's id, in requests and in every answer.
pub const REQUEST_ID: &str = "x-request-id";

/// A request's id, as an extension of the request.
#[derive(Debug, Clone)]
pub struct RequestId(pub Arc<str>);

/// Wraps a router: the id first, so that all else can name it, and with the answer the completion of problems and the log line, which so
/// see what every inner layer answers; inside of that, panics become problems like any failure.
pub fn wrap(router: Router) -> Router {
    // One layer of the router, which clones each of its layers with every request.
    let layers = ServiceBuilder::new().layer(Staging(Noted)).layer(CatchPanicLayer::custom(panicked));
    router.fallback(not_found).layer(layers)
}

/// The answer to `OPTIONS` at a path that has these methods: 204, and all of them in `Allow` (RFC 9110, 9.3.7).
pub fn options<S: Clone + Send + Sync + 'static>(methods: &[Method]) -> MethodRouter<S> {
    let mut allowed: Vec<&str> = methods.iter().map(Method::as_str).collect();
    if methods.contains(&Method::GET) {
        allowed.push("HEAD");
    }
    allowed.push("OPTIONS");
    let allowed = allowed.join(", ");
    axum::routing::options(async move || (StatusCode::NO_CONTENT, [(header::ALLOW, allowed)]))
}

async fn not_found(request: Request) -> Problem {
    Problem::new(
        Code::NotFound,
        format!("There is nothing at {}. GET /docs lists what there is.", request.uri().path()),
    )
}

fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let cause =
        cause.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| cause.downcast_ref::<String>().cloned());
    tracing::error!(cause = cause.unwrap_or_default(), "a handler panicked");
    Problem::internal().into_response()
}

/// Gives a request an id, completes its answer, and logs it.
#[derive(Debug, Clone)]
struct Noted;

/// What is kept of a request.
struct Note {
    id: Arc<str>,
    method: Method,
    uri: Uri,
    began: Instant,
}

impl Stage for Noted {
    type Kept = Note;

    fn enter(&self, mut request: Request) -> Entry<Note> {
        let id = id_of(&request);
        request.extensions_mut().insert(RequestId(id.clone()));
        let note = Note { id, method: request.method().clone(), uri: request.uri().clone(), began: Instant::now() };
        Entry::Passed(request, note)
    }

    fn leave(&self, note: Note, response: Response) -> Exit {
        let mut response = complete(response, note.uri.path(), &note.id);
        log(&note.method, note.uri.path(), &note.id, response.status(), note.began.elapsed());
        if let Ok(header) = HeaderValue::from_str(&note.id) {
            response.headers_mut().insert(REQUEST_ID, header);
        }
        response.into()
    }
}

/// The id that a request brings, or a new one. A longer id, or one with other characters than visible ASCII, is replaced.
fn id_of(request: &Request) -> Arc<str> {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_right =
        |id: &&str| (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    match given.filter(is_right) {
        Some(id) => id.into(),
        None => Arc::from(&*Uuid::now_v7().as_hyphenated().encode_lower(&mut Uuid::encode_buffer())),
    }
}

fn log(method: &http::Method, path: &str, request_id: &str, status: StatusCode, elapsed: Duration) {
    let elapsed_ms = elapsed.as_secs_f64() * 1000.0;
    let status = status.as_u16();
    // 501 and 503 are answers that were meant: what this process does not do, and what it is too busy for.
    if status >= 500 && !matches!(status, 501 | 503) {
        tracing::warn!(%method, path, request_id, status, elapsed_ms, "request failed");
    } else {
        tracing::debug!(%method, path, request_id, status, elapsed_ms, "request");
    }
}

/// Makes every failure a complete problem document: those of handlers are written with the request's path and id, those of the framework
/// (405, 413, …) become problems.
fn complete(mut response: Response, path: &str, request_id: &str) -> Response {
    if response.status().as_u16() < 400 {
        return response;
    }
    let problem = match response.extensions_mut().remove::<Problem>() {
        Some(problem) => problem,
        None if is_problem(&response) || has_own_contract(&response) => return response,
        None => framework_problem(&response, path),
    };
    let problem = Problem { instance: Some(path.to_owned()), request_id: Some(request_id.to_owned()), ..problem };
    problem.bounded().written(response)
}

fn is_problem(response: &Response) -> bool {
    response.headers().get(header::CONTENT_TYPE).is_some_and(|v| v.as_bytes().starts_with(PROBLEM_JSON.as_bytes()))
}

/// Marks an answer of 400 or more that is not a problem (`/readyz`).
#[derive(Debug, Clone, Copy)]
pub struct OwnContract;

fn has_own_contract(response: &Response) -> bool {
    response.extensions().get::<OwnContract>().is_some()
}

fn framework_problem(response: &Response, path: &str) -> Problem {
    match response.status() {
        StatusCode::METHOD_NOT_ALLOWED => {
            // Which it has is in `Allow`, which the router adds outside of every layer.
            Problem::new(
                Code::MethodNotAllowed,
                format!("{path} does not have this method; `Allow` lists those that it has."),
            )
        }
        StatusCode::NOT_FOUND => Problem::new(Code::NotFound, format!("There is nothing at {path}.")),
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(Code::BodyTooLarge, "The body is larger than this path takes."),
        StatusCode::REQUEST_TIMEOUT => Problem::new(Code::RequestTimeout, "The request took too long to arrive."),
        StatusCode::GATEWAY_TIMEOUT => Problem::new(Code::Timeout, "The request was not finished in time."),
        StatusCode::SERVICE_UNAVAILABLE => {
            Problem::new(Code::Overloaded, "Try again in a second.").retry_after_seconds(1)
        }
        status => {
            tracing::error!(%status, "an answer without a problem document");
            Problem::internal()
        }
    }
}
