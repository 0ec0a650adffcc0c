//! The coordinator's contract, passed on: workers outside the network pass the same edge as everybody else.
//!
//! Who the worker is, the coordinator checks: the token goes along untouched.

use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Method, header};
use taskmaster_openapi::coordinator::paths;
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::{self, PathParameter};
use taskmaster_service::layers::{REQUEST_ID, RequestId};
use taskmaster_store::{Store, StoreError};
use tokio::sync::Mutex;

use crate::app::App;
use crate::edge::bodies::BodyBudget;
use crate::validate;

/// How long the addresses of live coordinators are taken for granted.
const ADDRESSES_MAX_AGE: Duration = Duration::from_secs(1);
/// Bodies in memory at once, in bytes: two of the largest, hundreds of thousands of heartbeats.
const BODIES_BYTES_MAX: usize = 2 * limits::INTERNAL_BODY_BYTES_MAX;
/// What a coordinator may know of the request.
const REQUEST_HEADERS: [HeaderName; 3] = [header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT];
/// What the client may know of the answer.
const RESPONSE_HEADERS: [HeaderName; 4] =
    [header::CONTENT_TYPE, header::RETRY_AFTER, header::WWW_AUTHENTICATE, header::ALLOW];

/// `POST /v1/workers/{worker_id}/heartbeat`
pub(crate) async fn heartbeat(
    State(app): State<App>,
    PathParameter(worker_id): PathParameter<String>,
    request: Request,
) -> Result<Response, Problem> {
    extract::require_json(&request)?;
    app.forwarder.forward(path_of(paths::HEARTBEAT, &worker_id)?, request).await
}

/// `POST /v1/task-status`
pub(crate) async fn task_status(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    extract::require_json(&request)?;
    app.forwarder.forward(paths::TASK_STATUS.into(), request).await
}

/// `DELETE /v1/workers/{worker_id}`
pub(crate) async fn remove(
    State(app): State<App>,
    PathParameter(worker_id): PathParameter<String>,
    request: Request,
) -> Result<Response, Problem> {
    app.forwarder.forward(path_of(paths::WORKER, &worker_id)?, request).await
}

/// The path at the coordinator. Only ids that are one get there: `..` would lead elsewhere.
fn path_of(template: &str, worker_id: &str) -> Result<String, Problem> {
    match validate::wrong_worker_id(worker_id) {
        None => Ok(template.replace("{worker_id}", worker_id)),
        Some(detail) => Err(Problem::field(Code::InvalidPath, "worker_id", detail)),
    }
}

/// Passes requests on to a live coordinator.
#[derive(Debug)]
pub(crate) struct Forwarder {
    http: reqwest::Client,
    store: Store,
    bodies: BodyBudget,
    addresses: Mutex<Option<(Instant, Vec<String>)>>,
    turn: AtomicUsize,
}

impl Forwarder {
    /// A forwarder through this client, whose time-out bounds each try.
    pub(crate) fn new(http: reqwest::Client, store: Store) -> Self {
        let bodies = BodyBudget::new(BODIES_BYTES_MAX);
        Self { http, store, bodies, addresses: Mutex::new(None), turn: AtomicUsize::new(0) }
    }

    async fn forward(&self, path: String, request: Request) -> Result<Response, Problem> {
        let (method, headers) = (request.method().clone(), passed_on(&request));
        let body = self.bodies.read(request, limits::INTERNAL_BODY_BYTES_MAX).await?;
        let addresses = self.addresses().await?;
        try_each(in_turn(addresses, &self.turn), |address| {
            self.send(method.clone(), format!("{address}{path}"), headers.clone(), body.bytes.clone())
        })
        .await
    }

    async fn send(&self, method: Method, url: String, headers: HeaderMap, body: Bytes) -> Result<Response, Failure> {
        let sent = self.http.request(method, &url).headers(headers).body(body).send().await;
        match sent {
            Ok(answer) => Ok(passed_back(answer)),
            Err(error) if error.is_connect() => Err(Failure::NotSent),
            Err(error) => {
                tracing::warn!(%error, "a coordinator did not answer");
                Err(Failure::NoAnswer)
            }
        }
    }

    /// The live coordinators. One request asks the database, the others wait for what it finds.
    async fn addresses(&self) -> Result<Vec<String>, StoreError> {
        let mut known = self.addresses.lock().await;
        if let Some((at, addresses)) = known.as_ref()
            && at.elapsed() < ADDRESSES_MAX_AGE
        {
            return Ok(addresses.clone());
        }
        let addresses = self.store.coordinator_addresses().await?;
        *known = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

/// Why a coordinator did not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// Nobody listens there: another coordinator can be tried.
    NotSent,
    /// What was asked for may have happened. The client repeats it; the contract makes that harmless.
    NoAnswer,
}

/// Tries one address after the other, until the request has been sent.
async fn try_each<F: Future<Output = Result<Response, Failure>>>(
    addresses: Vec<String>,
    send: impl Fn(String) -> F,
) -> Result<Response, Problem> {
    for address in addresses {
        match send(address).await {
            Ok(response) => return Ok(response),
            Err(Failure::NotSent) => {}
            Err(Failure::NoAnswer) => break,
        }
    }
    let detail = "No coordinator can be reached at the moment. Try again in a second.";
    Err(Problem::new(Code::CoordinatorUnavailable, detail).retry_after_seconds(1))
}

/// The addresses, each time beginning with another.
fn in_turn(mut addresses: Vec<String>, turn: &AtomicUsize) -> Vec<String> {
    let count = addresses.len().max(1);
    addresses.rotate_left(turn.fetch_add(1, Ordering::Relaxed) % count);
    addresses
}

fn passed_on(request: &Request) -> HeaderMap {
    let mut headers: HeaderMap = REQUEST_HEADERS
        .into_iter()
        .filter_map(|name| request.headers().get(&name).map(|value| (name, value.clone())))
        .collect();
    let id = request.extensions().get::<RequestId>().and_then(|id| id.0.parse().ok());
    headers.extend(id.map(|id| (HeaderName::from_static(REQUEST_ID), id)));
    headers
}

fn passed_back(answer: reqwest::Response) -> Response {
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut response = (status, Body::from_stream(answer.bytes_stream())).into_response();
    for name in RESPONSE_HEADERS {
        if let Some(value) = headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use std::sync::Mutex as Log;

    async fn tried(outcomes: &[Result<StatusCode, Failure>]) -> (Vec<String>, Result<StatusCode, Code>) {
        let log = Log::new(Vec::new());
        let addresses = (0..outcomes.len()).map(|i| i.to_string()).collect();
        let answer = try_each(addresses, async |address| {
            let outcome = outcomes[address.parse::<usize>().unwrap()];
            log.lock().unwrap().push(address);
            outcome.map(IntoResponse::into_response)
        })
        .await;
        (log.into_inner().unwrap(), answer.map(|response| response.status()).map_err(|problem| problem.code))
    }

    #[tokio::test]
    async fn the_next_coordinator_is_tried_only_while_nothing_was_sent() {
        let (down, silent) = (Err(Failure::NotSent), Err(Failure::NoAnswer));
        let (ok, refused) = (Ok(StatusCode::OK), Ok(StatusCode::UNAUTHORIZED));
        let none = Err(Code::CoordinatorUnavailable);
        let table: &[(&[_], usize, _)] = &[
            (&[ok, ok], 1, Ok(StatusCode::OK)),
            (&[down, ok], 2, Ok(StatusCode::OK)),
            (&[refused, ok], 1, Ok(StatusCode::UNAUTHORIZED)),
            (&[silent, ok], 1, none),
            (&[down, down], 2, none),
            (&[], 0, none),
        ];
        for (outcomes, count, expected) in table {
            let (tried, answer) = tried(outcomes).await;
            assert_eq!((tried.len(), answer), (*count, *expected), "{outcomes:?}");
        }
    }

    #[test]
    fn a_coordinator_hears_nothing_that_a_client_made_up() {
        let mut request =
            Request::builder().header("authorization", "Bearer t").header("content-type", "application/json");
        for name in [
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "proxy-authorization",
            "cookie",
            "host",
            "content-length",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
            "x-request-id",
            "taskmaster-task-id",
            "x-taskmaster-principal",
        ] {
            request = request.header(name, "made-up");
        }
        let mut request = request.body(Body::empty()).unwrap();
        request.extensions_mut().insert(RequestId("ours".into()));
        let mut headers: Vec<(String, String)> =
            passed_on(&request).iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect();
        headers.sort();
        let expected = [("authorization", "Bearer t"), ("content-type", "application/json"), ("x-request-id", "ours")];
        assert_eq!(headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn coordinators_take_turns() {
        let turn = AtomicUsize::new(0);
        let firsts: Vec<String> =
            (0..4).map(|_| in_turn(vec!["a".into(), "b".into(), "c".into()], &turn).remove(0)).collect();
        assert_eq!(firsts, ["a", "b", "c", "a"]);
        assert!(in_turn(Vec::new(), &turn).is_empty());
    }

    #[test]
    fn only_ids_become_part_of_the_path() {
        assert_eq!(path_of(paths::HEARTBEAT, "w-1.a_b").unwrap(), "/v1/workers/w-1.a_b/heartbeat");
        for wrong in ["..", ".", "", "a/b", "a?b", "a#b", "a%2fb", "\u{e9}", "a b"] {
            assert_eq!(path_of(paths::WORKER, wrong).unwrap_err().code, Code::InvalidPath, "{wrong}");
        }
    }
}
