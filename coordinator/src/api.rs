//! The contract's endpoints, and the coordinator's life from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{delete, get, post};
use http::{HeaderMap, StatusCode, header};
use taskmaster_openapi::checks::Findings;
use taskmaster_openapi::client::WorkerClient;
use taskmaster_openapi::coordinator::{
    HeartbeatRequest, HeartbeatResponse, UpdateTaskStatusRequest, UpdateTaskStatusResponse, WorkerList, paths,
};
use taskmaster_openapi::documents;
use taskmaster_openapi::report::StatusReport;
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter};
use taskmaster_service::server::{ServerLimits, serve};
use taskmaster_service::{Health, Shutdown, client, layers};
use taskmaster_store::Store;
use taskmaster_store::outcome::WorkerReport;
use tokio::net::TcpListener;

use crate::coordinator::{Coordinator, DATABASE};
use crate::firer::Firer;
use crate::heartbeat::{self, Beats, is_worker_id};
use crate::poller::Poller;
use crate::recorder::Recorder;
use crate::sweeper::Sweeper;
use crate::url_calls::UrlCaller;
use crate::{Config, cancel, url_workers, webhooks};

/// A message between coordinator and worker, with what it carries.
type Internal<T> = Json<T, { limits::INTERNAL_BODY_BYTES_MAX }>;

/// How long a worker may take to answer.
const WORKER_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Api {
    coordinator: Arc<Coordinator>,
    beats: Beats,
}

/// Every operation that the router serves, as (method, path): the same as the document's.
pub fn operations() -> Vec<(&'static str, &'static str)> {
    vec![
        ("POST", paths::HEARTBEAT),
        ("POST", paths::TASK_STATUS),
        ("GET", paths::WORKERS),
        ("DELETE", paths::WORKER),
        ("GET", taskmaster_openapi::health::LIVEZ),
        ("GET", taskmaster_openapi::health::READYZ),
    ]
}

fn router(api: Api) -> Router {
    let health = api.coordinator.health.router();
    let contract = Router::new()
        .route(paths::HEARTBEAT, post(send_heartbeat))
        .route(paths::TASK_STATUS, post(update_task_status))
        .route(paths::WORKERS, get(list_workers))
        .route(paths::WORKER, delete(remove_worker))
        .route(paths::DOCUMENT, get(document))
        .with_state(api);
    layers::wrap(contract.merge(health))
}

/// Runs a coordinator until the stop is requested and its drain is over.
///
/// # Errors
/// When its settings contradict one another.
pub async fn run(
    config: Config,
    listener: TcpListener,
    store: Store,
    health: Health,
    shutdown: Shutdown,
) -> Result<(), String> {
    config.check()?;
    let address = advertised(&config, &listener)?;
    let http = client::build(WORKER_TIMEOUT).map_err(|error| error.to_string())?;
    health.waiting(DATABASE, "not asked yet");
    let (recorder, recording) = Recorder::new(store.clone());
    let (beats, beating) = heartbeat::beats(store.clone());
    let drain_timeout = config.drain_timeout;
    let workers = WorkerClient::new(http);
    let longest = Duration::from_secs(limits::TIMEOUT_SECONDS_MAX.unsigned_abs());
    let url_caller = UrlCaller::new(&config.worker_networks, longest).map_err(|error| error.to_string())?;
    let coordinator = Coordinator::new(config, address, store, workers, url_caller, recorder, health, shutdown.clone());
    tracing::info!(id = %coordinator.id, address = coordinator.address, "coordinator");

    let drivers = [tokio::spawn(recording), tokio::spawn(beating)];
    let pump = tokio::spawn({
        let store = coordinator.store.clone();
        async move { store.pump_events().await }
    });
    let poller = tokio::spawn(Poller::new(coordinator.clone()).run());
    coordinator.tasks.spawn(Sweeper::new(coordinator.clone()).run());
    coordinator.tasks.spawn(cancel::run(coordinator.clone()));
    coordinator.tasks.spawn(Firer::new(coordinator.clone()).run());
    coordinator.tasks.spawn(webhooks::run(coordinator.clone()));

    let api = Api { coordinator: coordinator.clone(), beats };
    let limits = ServerLimits { drain_timeout, ..ServerLimits::default() };
    let served = async {
        serve(listener, router(api), limits, shutdown).await;
        let left = async {
            let _ = poller.await;
            leave(&coordinator).await;
        };
        if tokio::time::timeout(drain_timeout, left).await.is_err() {
            tracing::warn!("the coordinator stops with work in progress; others take over");
        }
    };
    coordinator.store.tell_news_while(served).await;
    pump.abort();
    drivers.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// What was claimed is still pushed to its workers, who report to others; then this coordinator is gone.
async fn leave(coordinator: &Coordinator) {
    coordinator.shared().close_lines();
    coordinator.tasks.close();
    tokio::select! {
        () = coordinator.tasks.wait() => {}
        () = url_workers::stay(coordinator) => {}
    }
    if let Err(error) = coordinator.store.coordinator_gone(coordinator.id).await {
        tracing::warn!(%error, "others will notice by themselves that this coordinator is gone");
    }
}

/// The URL that workers and gateways are told.
fn advertised(config: &Config, listener: &TcpListener) -> Result<String, String> {
    if let Some(url) = &config.advertise {
        return Ok(url.trim_end_matches('/').to_owned());
    }
    let bound: SocketAddr = listener.local_addr().map_err(|error| error.to_string())?;
    match bound.ip().is_unspecified() {
        false => Ok(format!("http://{bound}")),
        true => Err(format!(
            "the coordinator listens on all addresses ({bound}): --advertise must say which URL workers are to use, such as http://10.0.0.5:{}",
            bound.port()
        )),
    }
}

async fn send_heartbeat(
    State(api): State<Api>,
    PathParameter(worker_id): PathParameter<String>,
    headers: HeaderMap,
    Json(heartbeat): Internal<HeartbeatRequest>,
) -> Result<Json<HeartbeatResponse>, Problem> {
    if api.coordinator.shutdown.is_requested() {
        return Err(Problem::new(Code::ShuttingDown, "Turn to another coordinator."));
    }
    heartbeat::handle(&api.coordinator, &api.beats, &headers, worker_id, heartbeat).await.map(Json)
}

async fn update_task_status(
    State(api): State<Api>,
    headers: HeaderMap,
    Json(request): Internal<UpdateTaskStatusRequest>,
) -> Result<Json<UpdateTaskStatusResponse>, Problem> {
    api.coordinator.tokens.check_worker(&headers, &request.worker_id)?;
    if !(1..=limits::REPORTS_MAX).contains(&request.reports.len()) {
        return Err(Problem::field(Code::ValidationFailed, "/reports", "must have 1 to 2000 items"));
    }
    let errors: Vec<FieldError> = request.reports.iter().enumerate().flat_map(|(i, report)| wrong(i, report)).collect();
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let worker_id = request.worker_id;
    let reports =
        request.reports.into_iter().map(|report| WorkerReport { worker_id: worker_id.clone(), report }).collect();
    let results = api.coordinator.record(&worker_id, reports).await?;
    Ok(Json(UpdateTaskStatusResponse { results }))
}

/// What is wrong with a report.
fn wrong(index: usize, report: &StatusReport) -> Vec<FieldError> {
    let mut findings = Findings::of("reports", index);
    findings.report(report);
    findings.into_errors()
}

async fn list_workers(State(api): State<Api>, headers: HeaderMap) -> Result<Json<WorkerList>, Problem> {
    api.coordinator.tokens.check_reader(&headers)?;
    let workers = api.coordinator.noted(api.coordinator.store.workers().await)?;
    Ok(Json(WorkerList { workers }))
}

async fn remove_worker(
    State(api): State<Api>,
    PathParameter(worker_id): PathParameter<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    if !is_worker_id(&worker_id) {
        return Err(Problem::field(Code::InvalidPath, "worker_id", "1 to 128 letters, digits, '.', '_' and '-'"));
    }
    api.coordinator.tokens.check_worker(&headers, &worker_id)?;
    api.coordinator.noted(api.coordinator.store.remove_workers(std::slice::from_ref(&worker_id)).await)?;
    api.coordinator.shared().remove(&worker_id);
    api.coordinator.sweep.notify_one();
    Ok(StatusCode::NO_CONTENT)
}

async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], documents::COORDINATOR)
}
