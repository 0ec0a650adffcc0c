//! An HTTP server that tasks call: it remembers what arrived, and answers as told.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use chrono::{DateTime, Utc};
use http_body_util::BodyExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use super::process::PATIENCE;
use super::{BACKGROUND, in_background};

/// A request that arrived.
#[derive(Debug, Clone)]
pub struct Arrival {
    pub at: Instant,
    pub wall: DateTime<Utc>,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// `TaskMaster-Task-Id`.
    pub task_id: Option<Uuid>,
    /// `TaskMaster-Attempt`.
    pub attempt: Option<i64>,
    /// Requests in progress, this one included.
    pub in_progress: usize,
}

/// How to answer.
#[derive(Debug, Clone)]
pub struct Answer {
    status: u16,
    delay: Duration,
    hang: bool,
    gate: Option<Gate>,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    pub fn ok() -> Self {
        Self::status(200)
    }

    pub fn status(status: u16) -> Self {
        Self { status, delay: Duration::ZERO, hang: false, gate: None, headers: Vec::new(), body: b"ok".to_vec() }
    }

    /// Never answers.
    pub fn hang() -> Self {
        Self { hang: true, ..Self::ok() }
    }

    /// Answers once the gate is open.
    pub fn behind(self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self }
    }

    /// Answers after so long.
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }
}

/// Holds answers back until it is opened.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub fn is_open(&self) -> bool {
        *self.0.borrow()
    }
}

type Choose = dyn Fn(&Arrival) -> Answer + Send + Sync;

#[derive(Default)]
struct Record {
    arrivals: Vec<Arrival>,
    in_progress: usize,
    most_in_progress: usize,
}

struct Shared {
    record: Mutex<Record>,
    count: watch::Sender<usize>,
    choose: Box<Choose>,
}

/// The server. It ends when this is dropped.
pub struct Target {
    base: String,
    shared: Arc<Shared>,
    serving: tokio::task::JoinHandle<()>,
}

impl Target {
    /// Listens on loopback. `choose` is asked for every request, once it has arrived in whole.
    pub async fn start(choose: impl Fn(&Arrival) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(std::net::TcpListener::bind("127.0.0.1:0").expect("a port"), choose).await
    }

    /// As [`Self::start`], where this listens.
    pub async fn start_on(
        listener: std::net::TcpListener,
        choose: impl Fn(&Arrival) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let shared =
            Arc::new(Shared { record: Mutex::default(), count: watch::Sender::new(0), choose: Box::new(choose) });
        listener.set_nonblocking(true).expect("a socket");
        let listener = in_background(async { TcpListener::from_std(listener) }).await.expect("a listener");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(arrive).with_state(shared.clone());
        let serving = BACKGROUND.spawn(async move { axum::serve(listener, router).await.expect("serves") });
        Self { base, shared, serving }
    }

    /// One that answers 200 at once.
    pub async fn quick() -> Self {
        Self::start(|_| Answer::ok()).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// The document of a task that calls this target with GET.
    pub fn task(&self) -> serde_json::Value {
        serde_json::json!({"http": {"method": "GET", "url": self.url("/")}})
    }

    /// Everything that arrived, in order.
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.record().arrivals.clone()
    }

    /// What arrived for a task.
    pub fn of(&self, task_id: Uuid) -> Vec<Arrival> {
        self.record().arrivals.iter().filter(|arrival| arrival.task_id == Some(task_id)).cloned().collect()
    }

    pub fn count(&self) -> usize {
        *self.shared.count.borrow()
    }

    /// Requests in progress now.
    pub fn in_progress(&self) -> usize {
        self.record().in_progress
    }

    /// The most requests that ever were in progress at once.
    pub fn most_in_progress(&self) -> usize {
        self.record().most_in_progress
    }

    /// Waits until so many requests have arrived.
    pub async fn arrived(&self, count: usize) -> Vec<Arrival> {
        let mut counts = self.shared.count.subscribe();
        let enough = tokio::time::timeout(PATIENCE, counts.wait_for(|so_far| *so_far >= count)).await;
        assert!(enough.is_ok(), "{} of {count} requests arrived within {PATIENCE:?}", self.count());
        self.arrivals()
    }

    fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.shared.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Counts a request as in progress until it is answered, or its client is gone.
struct InProgress(Arc<Shared>);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner).in_progress -= 1;
    }
}

async fn arrive(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (at, wall) = (Instant::now(), Utc::now());
    let in_progress = {
        let mut record = shared.record.lock().unwrap_or_else(PoisonError::into_inner);
        record.in_progress += 1;
        record.most_in_progress = record.most_in_progress.max(record.in_progress);
        record.in_progress
    };
    let _in_progress = InProgress(shared.clone());
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let arrival = Arrival {
        at,
        wall,
        task_id: header("taskmaster-task-id").and_then(|id| id.parse().ok()),
        attempt: header("taskmaster-attempt").and_then(|attempt| attempt.parse().ok()),
        method: parts.method,
        path: parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        headers: parts.headers,
        body,
        in_progress,
    };
    let answer = (shared.choose)(&arrival);
    shared.record.lock().unwrap_or_else(PoisonError::into_inner).arrivals.push(arrival);
    shared.count.send_modify(|count| *count += 1);
    if answer.hang {
        std::future::pending::<()>().await;
    }
    if let Some(gate) = answer.gate {
        let _ = gate.0.subscribe().wait_for(|open| *open).await;
    }
    // Not before its time: the timer of tokio rounds up.
    tokio::time::sleep_until(tokio::time::Instant::from_std(at) + answer.delay).await;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    for (name, value) in answer.headers {
        response.headers_mut().append(name, value.parse().expect("a header value"));
    }
    response
}
