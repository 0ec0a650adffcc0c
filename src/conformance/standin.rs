//! Plays the coordinator, and what HTTP tasks call. Writes down all that it hears, and misbehaves when told to.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, delete, post};
use serde::de::DeserializeOwned;
use taskmaster_openapi::checks::{self, Findings};
use taskmaster_openapi::coordinator::{
    HeartbeatRequest, HeartbeatResponse, Home, UpdateTaskStatusRequest, UpdateTaskStatusResponse, paths,
};
use taskmaster_openapi::report::{ReportCode, ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_service::auth::bearer;
use taskmaster_service::server::{ServerLimits, serve};
use taskmaster_service::{Shutdown, extract};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use uuid::Uuid;

/// Lets workers join.
pub const JOIN_TOKEN: &str = "the-join-token-of-the-conformance-test";
/// Between heartbeats, so that a claim takes seconds.
const HEARTBEAT_MS: u64 = 100;
/// Long enough that no busy machine loses it.
pub const LEASE_MS: u64 = 4_000;

/// How the next batch of reports is answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ReportFault {
    /// With 503; nothing is recorded.
    Refuse,
    /// It is recorded, and the connection is cut instead of an answer.
    LoseAnswer,
    /// Every item is answered `not_recorded`.
    NotRecorded,
}

/// A heartbeat as it came.
#[derive(Debug)]
pub struct Heartbeat {
    pub worker_id: String,
    pub token: String,
    pub body: HeartbeatRequest,
}

/// A call of an HTTP task.
#[derive(Debug)]
pub struct Call {
    /// From `TaskMaster-Task-Id`.
    pub task_id: Option<Uuid>,
    /// From `TaskMaster-Attempt`.
    pub attempt: Option<i64>,
    pub at: Instant,
}

/// What was heard, and how to answer.
#[derive(Debug)]
pub struct Heard {
    pub heartbeats: Vec<Heartbeat>,
    /// The first report of the end of each claim.
    pub outcomes: HashMap<TaskClaim, StatusReport>,
    /// Claims whose start or end was reported.
    pub started: HashSet<TaskClaim>,
    pub removed: Vec<String>,
    pub calls: Vec<Call>,
    pub calls_in_progress: usize,
    pub calls_in_progress_max: usize,
    /// What broke the shape of the contract.
    broken: Vec<String>,

    /// The worker's own token.
    pub token: String,
    pub stop: Vec<TaskClaim>,
    pub drain: bool,
    /// Other coordinators.
    pub others: Vec<String>,
    pub refuses_heartbeats: bool,
    pub report_faults: VecDeque<ReportFault>,
    /// Calls of `/target/held` are answered.
    pub opened: bool,
}

/// Plays the coordinator, and what HTTP tasks call. Clones are the same one.
#[derive(Clone)]
pub struct StandIn {
    pub url: String,
    heard: Arc<Mutex<Heard>>,
    changed: watch::Sender<()>,
    patience: Duration,
    serving: Option<AbortHandle>,
}

impl StandIn {
    /// Listens on a free port of this machine.
    pub async fn start(patience: Duration) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("cannot listen on 127.0.0.1: {error}");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(cannot)?;
        let url = format!("http://{}", listener.local_addr().map_err(cannot)?);
        let heard = Heard {
            heartbeats: Vec::new(),
            outcomes: HashMap::new(),
            started: HashSet::new(),
            removed: Vec::new(),
            calls: Vec::new(),
            calls_in_progress: 0,
            calls_in_progress_max: 0,
            broken: Vec::new(),
            token: "the-token-of-this-worker-alone-which-has-43-or-more-characters".into(),
            stop: Vec::new(),
            drain: false,
            others: Vec::new(),
            refuses_heartbeats: false,
            report_faults: VecDeque::new(),
            opened: false,
        };
        let mut standin =
            Self { url, heard: Arc::new(Mutex::new(heard)), changed: watch::Sender::new(()), patience, serving: None };
        let router = Router::new()
            .route(paths::HEARTBEAT, post(heartbeat))
            .route(paths::TASK_STATUS, post(task_status))
            .route(paths::WORKER, delete(remove))
            .route("/target/{what}", any(called))
            .layer(axum::extract::DefaultBodyLimit::max(limits::INTERNAL_BODY_BYTES_MAX))
            .with_state(standin.clone());
        let limits = ServerLimits { connections_max: 2_000, ..ServerLimits::default() };
        let serving = tokio::spawn(async move { serve(listener, router, limits, Shutdown::new()).await });
        standin.serving = Some(serving.abort_handle());
        Ok(standin)
    }

    /// Nobody listens at its address any more.
    pub fn die(&self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }

    pub fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes how it answers, or what it has heard.
    pub fn set<T>(&self, change: impl FnOnce(&mut Heard) -> T) -> T {
        let changed = change(&mut self.heard());
        self.changed.send_replace(());
        changed
    }

    /// Waits until what was heard gives a value.
    pub async fn until<T>(&self, what: &str, mut look: impl FnMut(&Heard) -> Option<T>) -> Result<T, String> {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                if let Some(found) = look(&self.heard()) {
                    return Some(found);
                }
                changes.changed().await.ok()?;
            }
        };
        let found = tokio::time::timeout(self.patience, waiting).await.ok().flatten();
        found.ok_or_else(|| format!("within {:?} there was not {what}", self.patience))
    }

    /// Waits for so many heartbeats from now on.
    pub async fn heartbeats(&self, count: usize) -> Result<(), String> {
        let before = self.heard().heartbeats.len();
        self.until("a heartbeat", |heard| (heard.heartbeats.len() >= before + count).then_some(())).await
    }

    pub async fn outcome(&self, claim: TaskClaim) -> Result<StatusReport, String> {
        self.until("a report of the task's end", |heard| heard.outcomes.get(&claim).cloned()).await
    }

    /// How often the task has called.
    pub fn calls_of(&self, claim: TaskClaim) -> usize {
        self.heard().calls.iter().filter(|call| call.task_id == Some(claim.task_id)).count()
    }

    /// Whether all that was heard has the shape of the contract.
    pub fn check(&self) -> Result<(), String> {
        self.heard().broken.first().map_or(Ok(()), |broken| Err(broken.clone()))
    }

    /// Reads a body, and notes what is wrong with it.
    fn read<T: DeserializeOwned>(&self, what: &str, body: &[u8]) -> Result<T, Problem> {
        extract::parse_json(body).inspect_err(|problem| self.note(what, &problem.errors, &problem.detail))
    }

    fn note(&self, what: &str, errors: &[FieldError], detail: &str) {
        let errors = errors.iter().map(|error| format!("`{}` {}", error.pointer, error.detail));
        let errors: Vec<String> = std::iter::once(detail.to_owned()).chain(errors).collect();
        self.set(|heard| heard.broken.push(format!("{what} is not as the contract says: {}", errors.join("; "))));
    }

    fn expect(&self, what: &str, errors: Vec<FieldError>) -> Result<(), Problem> {
        if errors.is_empty() {
            return Ok(());
        }
        self.note(what, &errors, "a value is not allowed");
        Err(Problem::validation(errors))
    }
}

fn unauthorized() -> Problem {
    Problem::new(Code::Unauthorized, "This token is not known (any more).")
}

async fn heartbeat(
    State(standin): State<StandIn>,
    Path(worker_id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<axum::Json<HeartbeatResponse>, Problem> {
    let token = bearer(&headers).unwrap_or_default().to_owned();
    if standin.heard().refuses_heartbeats {
        return Err(Problem::new(Code::DatabaseUnavailable, "Not now."));
    }
    let body: HeartbeatRequest = standin.read("the heartbeat", &body)?;
    standin.expect("the heartbeat", wrong_heartbeat(&worker_id, &body))?;
    standin.set(|heard| {
        if token != heard.token && token != JOIN_TOKEN {
            return Err(unauthorized());
        }
        heard.heartbeats.push(Heartbeat { worker_id, token, body });
        let home = Home { coordinator_id: Uuid::nil(), address: standin.url.clone() };
        Ok(axum::Json(HeartbeatResponse {
            known: heard.heartbeats.len() > 1,
            token: heard.token.clone(),
            home,
            coordinators: std::iter::once(standin.url.clone()).chain(heard.others.clone()).collect(),
            heartbeat_ms: HEARTBEAT_MS,
            lease_ms: LEASE_MS,
            stop: heard.stop.clone(),
            drain: heard.drain,
        }))
    })
}

fn wrong_heartbeat(worker_id: &str, heartbeat: &HeartbeatRequest) -> Vec<FieldError> {
    let secret = heartbeat.push_secret.as_str();
    let is_secret = limits::PUSH_SECRET_CHARS.contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    let is_address = heartbeat.address.starts_with("http://") && !heartbeat.address.ends_with('/');
    let table = [
        (checks::is_name(worker_id, limits::WORKER_ID_CHARS_MAX), "worker_id", "letters, digits, `.`, `_` and `-`"),
        ((1..=limits::SLOTS_MAX).contains(&heartbeat.slots), "/slots", "1 to 1000"),
        ((0..=limits::HELD_TASKS_MAX as i64).contains(&heartbeat.room), "/room", "0 to 10000"),
        (heartbeat.held.len() <= limits::HELD_TASKS_MAX, "/held", "at most 10000"),
        (heartbeat.labels.len() <= limits::LABELS_MAX, "/labels", "at most 20"),
        (is_secret, "/push_secret", "16 to 128 visible ASCII characters"),
        (is_address, "/address", "like http://10.0.0.7:4000"),
    ];
    let wrong = table.into_iter().filter(|(holds, ..)| !holds);
    let mut errors: Vec<FieldError> =
        wrong.map(|(_, pointer, right)| FieldError::new(pointer, format!("must be {right}"))).collect();
    errors.extend(checks::claims("held", &heartbeat.held));
    errors
}

async fn task_status(State(standin): State<StandIn>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let request: UpdateTaskStatusRequest = standin.read("the report", &body)?;
    let wrong = request.reports.iter().enumerate().flat_map(|(i, report)| {
        let mut findings = Findings::of("reports", i);
        findings.report(report);
        findings.into_errors()
    });
    let mut wrong: Vec<FieldError> = wrong.collect();
    if !(1..=limits::REPORTS_MAX).contains(&request.reports.len()) {
        wrong.push(FieldError::new("/reports", "must be 1 to 2000"));
    }
    standin.expect("the report", wrong)?;
    standin.set(|heard| {
        if bearer(&headers) != Some(heard.token.as_str()) {
            return Err(unauthorized());
        }
        let fault = heard.report_faults.pop_front();
        if fault == Some(ReportFault::Refuse) {
            return Err(Problem::new(Code::DatabaseUnavailable, "Nothing was recorded. Send the reports again."));
        }
        let results = request.reports.iter().map(|report| record(heard, report, fault)).collect();
        if fault == Some(ReportFault::LoseAnswer) {
            let cut = futures::stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            return Ok((StatusCode::OK, Body::from_stream(cut)).into_response());
        }
        Ok(axum::Json(UpdateTaskStatusResponse { results }).into_response())
    })
}

fn record(heard: &mut Heard, report: &StatusReport, fault: Option<ReportFault>) -> ReportResult {
    let claim = TaskClaim { task_id: report.task_id, claim: report.claim };
    if fault == Some(ReportFault::NotRecorded) {
        return ReportResult::new(claim, ReportCode::NotRecorded);
    }
    let mut is_new = false;
    if report.status != ReportStatus::Released && report.status != ReportStatus::Cancelled {
        is_new = heard.started.insert(claim);
    }
    if report.status != ReportStatus::Started && !heard.outcomes.contains_key(&claim) {
        heard.outcomes.insert(claim, report.clone());
        is_new = true;
    }
    ReportResult::new(claim, if is_new { ReportCode::Recorded } else { ReportCode::AlreadyRecorded })
}

async fn remove(
    State(standin): State<StandIn>,
    Path(worker_id): Path<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    standin.set(|heard| {
        if bearer(&headers) != Some(heard.token.as_str()) {
            return Err(unauthorized());
        }
        heard.removed.push(worker_id);
        Ok(StatusCode::NO_CONTENT)
    })
}

/// A call in progress, until it is answered or given up.
struct InProgress(StandIn);

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.set(|heard| heard.calls_in_progress -= 1);
    }
}

/// `/target/ok`, `/target/fails`, and `/target/held`, which answers once it is opened.
async fn called(State(standin): State<StandIn>, Path(what): Path<String>, headers: HeaderMap) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let call = Call {
        task_id: header("taskmaster-task-id").and_then(|text| text.parse().ok()),
        attempt: header("taskmaster-attempt").and_then(|text| text.parse().ok()),
        at: Instant::now(),
    };
    let _in_progress = standin.set(|heard| {
        heard.calls.push(call);
        heard.calls_in_progress += 1;
        heard.calls_in_progress_max = heard.calls_in_progress_max.max(heard.calls_in_progress);
        InProgress(standin.clone())
    });
    match what.as_str() {
        "fails" => (StatusCode::INTERNAL_SERVER_ERROR, "no").into_response(),
        "held" => match standin.until("an opening", |heard| heard.opened.then_some(())).await {
            Ok(()) => "ok".into_response(),
            Err(_) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        },
        _ => "ok".into_response(),
    }
}
