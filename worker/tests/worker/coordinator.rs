//! A fake coordinator: speaks the contract, records everything, and misbehaves when told to.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use taskmaster_openapi::coordinator::{
    HeartbeatRequest, HeartbeatResponse, Home, UpdateTaskStatusRequest, UpdateTaskStatusResponse, paths,
};
use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::{Code, Problem};
use tokio::sync::watch;
use uuid::Uuid;

/// How long anything may take before a test fails; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
pub const JOIN_TOKEN: &str = "the join token of the tests";

/// How the next batch of reports is answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReportFault {
    /// Refused, nothing is recorded.
    Refuse(Code),
    /// Recorded, but the answer is lost.
    LoseAnswer,
    /// Every item is answered `not_recorded`.
    NotRecorded,
    /// Every item is answered as stale, with `stop`.
    Stale,
}

#[derive(Debug)]
pub struct Heartbeat {
    pub worker_id: String,
    pub token: String,
    pub body: HeartbeatRequest,
}

/// What it has heard, and how it is to answer.
#[derive(Debug, Default)]
pub struct Inner {
    pub heartbeats: Vec<Heartbeat>,
    pub batches: Vec<Vec<StatusReport>>,
    pub removed: Vec<String>,
    outcomes: HashMap<TaskClaim, StatusReport>,

    pub token: String,
    pub home: Option<String>,
    pub coordinators: Vec<String>,
    pub heartbeat_ms: u64,
    pub lease_ms: u64,
    pub stop: Vec<TaskClaim>,
    pub drain: bool,
    /// Heartbeats are refused with this.
    pub refuse_heartbeats: Option<Code>,
    pub report_faults: VecDeque<ReportFault>,
    /// Batches with this task are refused as invalid.
    pub poison: Option<Uuid>,
    /// Reports wait until this is taken away.
    pub hold_reports: bool,
}

impl Inner {
    pub fn reports(&self) -> impl Iterator<Item = &StatusReport> {
        self.batches.iter().flatten()
    }

    pub fn reports_of(&self, claim: TaskClaim) -> Vec<&StatusReport> {
        self.reports().filter(|r| r.task_id == claim.task_id && r.claim == claim.claim).collect()
    }

    /// The first report of the end of a claim.
    pub fn outcome(&self, claim: TaskClaim) -> Option<StatusReport> {
        self.outcomes.get(&claim).cloned()
    }

    pub fn outcomes_count(&self) -> usize {
        self.outcomes.len()
    }
}

#[derive(Clone)]
pub struct Coordinator {
    pub address: String,
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
    serving: Arc<tokio::task::JoinHandle<()>>,
}

impl Coordinator {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let inner = Arc::new(Mutex::new(Inner {
            token: "token-1".into(),
            heartbeat_ms: 100,
            lease_ms: 60_000,
            ..Inner::default()
        }));
        let state = Fake { address: address.clone(), inner: inner.clone(), changed: watch::Sender::new(()) };
        let changed = state.changed.clone();
        let router = Router::new()
            .route(paths::HEARTBEAT, post(heartbeat))
            .route(paths::TASK_STATUS, post(task_status))
            .route(paths::WORKER, delete(remove))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(state);
        let shutdown = taskmaster_service::Shutdown::new();
        let serving = tokio::spawn(taskmaster_service::server::serve(listener, router, Default::default(), shutdown));
        Self { address, inner, changed, serving: Arc::new(serving) }
    }

    /// Nobody listens at its address any more.
    pub fn die(&self) {
        self.serving.abort();
    }

    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub fn set(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner());
        self.changed.send_replace(());
    }

    /// Waits until what was heard gives a value.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&Inner) -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(&self.inner()) {
                    return found;
                }
                changes.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(PATIENCE, waiting).await {
            Ok(found) => found,
            Err(_) => panic!("never came: {what}; heard {:#?}", self.inner()),
        }
    }

    pub async fn outcome(&self, claim: TaskClaim) -> StatusReport {
        self.until("an outcome", |inner| inner.outcome(claim)).await
    }

    pub async fn started(&self, claim: TaskClaim) {
        self.until("a start", |inner| (!inner.reports_of(claim).is_empty()).then_some(())).await;
    }

    /// Waits for further heartbeats, so that what an answer said has been heard.
    pub async fn heartbeats(&self, count: usize) {
        let before = self.inner().heartbeats.len();
        self.until("heartbeats", |inner| (inner.heartbeats.len() >= before + count).then_some(())).await;
    }

    /// Waits until a heartbeat that is sent from now on says that the worker holds nothing.
    pub async fn emptied(&self) {
        self.heartbeats(2).await;
        let is_empty = |inner: &Inner| inner.heartbeats.last()?.body.held.is_empty().then_some(());
        self.until("an empty worker", is_empty).await;
    }
}

#[derive(Clone)]
struct Fake {
    address: String,
    inner: Arc<Mutex<Inner>>,
    changed: watch::Sender<()>,
}

fn token_of(headers: &HeaderMap) -> String {
    taskmaster_service::auth::bearer(headers).unwrap_or_default().to_owned()
}

async fn heartbeat(
    State(fake): State<Fake>,
    Path(worker_id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<HeartbeatRequest>,
) -> Result<Json<HeartbeatResponse>, Problem> {
    let mut inner = fake.inner.lock().unwrap();
    let token = token_of(&headers);
    if let Some(code) = inner.refuse_heartbeats {
        return Err(Problem::new(code, "as the test says"));
    }
    if token != inner.token && token != JOIN_TOKEN {
        return Err(Problem::new(Code::Unauthorized, "unknown token"));
    }
    inner.heartbeats.push(Heartbeat { worker_id, token, body });
    let answer = HeartbeatResponse {
        known: inner.heartbeats.len() > 1,
        token: inner.token.clone(),
        home: Home { coordinator_id: Uuid::nil(), address: inner.home.clone().unwrap_or_else(|| fake.address.clone()) },
        coordinators: inner.coordinators.clone(),
        heartbeat_ms: inner.heartbeat_ms,
        lease_ms: inner.lease_ms,
        stop: inner.stop.clone(),
        drain: inner.drain,
    };
    drop(inner);
    fake.changed.send_replace(());
    Ok(Json(answer))
}

async fn task_status(
    State(fake): State<Fake>,
    headers: HeaderMap,
    Json(request): Json<UpdateTaskStatusRequest>,
) -> Result<Response, Problem> {
    let mut changes = fake.changed.subscribe();
    while fake.inner.lock().unwrap().hold_reports {
        let _ = changes.changed().await;
    }
    let answer = fake.inner.lock().unwrap().take(&token_of(&headers), request);
    fake.changed.send_replace(());
    answer
}

impl Inner {
    fn take(&mut self, token: &str, request: UpdateTaskStatusRequest) -> Result<Response, Problem> {
        if token != self.token {
            return Err(Problem::new(Code::Unauthorized, "unknown token"));
        }
        if request.reports.iter().any(|report| Some(report.task_id) == self.poison) {
            return Err(Problem::new(Code::InvalidBody, "poison"));
        }
        let fault = self.report_faults.pop_front();
        if let Some(ReportFault::Refuse(code)) = fault {
            return Err(Problem::new(code, "as the test says"));
        }
        let results = request.reports.iter().map(|report| self.take_one(report, fault)).collect();
        self.batches.push(request.reports);
        if fault == Some(ReportFault::LoseAnswer) {
            let broken = futures::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("lost")) });
            return Ok((StatusCode::OK, Body::from_stream(broken)).into_response());
        }
        Ok(Json(UpdateTaskStatusResponse { results }).into_response())
    }

    fn take_one(&mut self, report: &StatusReport, fault: Option<ReportFault>) -> ReportResult {
        let claim = TaskClaim { task_id: report.task_id, claim: report.claim };
        let code = match fault {
            Some(ReportFault::NotRecorded) => ReportCode::NotRecorded,
            Some(ReportFault::Stale) => ReportCode::StaleClaim,
            _ if self.outcomes.contains_key(&claim) => ReportCode::AlreadyRecorded,
            _ => {
                if report.status != ReportStatus::Started {
                    self.outcomes.insert(claim, report.clone());
                }
                ReportCode::Recorded
            }
        };
        ReportResult::new(claim, code)
    }
}

async fn remove(
    State(fake): State<Fake>,
    Path(worker_id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let mut inner = fake.inner.lock().unwrap();
    if token_of(&headers) != inner.token {
        return Err(Problem::new(Code::Unauthorized, "unknown token"));
    }
    inner.removed.push(worker_id);
    drop(inner);
    fake.changed.send_replace(());
    Ok(StatusCode::NO_CONTENT)
}
