//! A worker that speaks the contract, and lies.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;
use taskmaster_openapi::client::{ClientError, CoordinatorClient};
use taskmaster_openapi::coordinator::{Abilities, HeartbeatRequest, UpdateTaskStatusRequest};
use taskmaster_openapi::report::{ReportResult, ReportStatus, StatusReport, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskError};
use taskmaster_openapi::worker::{
    SubmitCode, SubmitResult, SubmitTaskRequest, SubmitTaskResponse, SubmittedTask, paths,
};
use tokio::net::TcpListener;

use super::support::{JOIN_TOKEN, in_background};
use super::world::places;

/// A fake worker. It takes what it is given, and does nothing of it.
pub struct Liar {
    pub id: String,
    token: String,
    client: CoordinatorClient,
    address: SocketAddr,
    given: Arc<Mutex<Vec<SubmittedTask>>>,
    serving: tokio::task::AbortHandle,
}

impl Liar {
    /// Listens; joins nowhere yet.
    pub async fn new() -> Self {
        taskmaster_service::client::install_tls();
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a client");
        let address = SocketAddr::new(places(), 8001);
        let given = Arc::new(Mutex::new(Vec::new()));
        let taken = given.clone();
        let take = move |Json(request): Json<SubmitTaskRequest>| async move {
            let result = |task: &SubmittedTask| SubmitResult {
                task_id: task.task_id,
                claim: task.claim,
                code: SubmitCode::Accepted,
            };
            let results = request.tasks.iter().map(result).collect();
            taken.lock().unwrap_or_else(PoisonError::into_inner).extend(request.tasks);
            Json(SubmitTaskResponse { results, room: 0, reports: Vec::new() })
        };
        let router = Router::new().route(paths::TASKS, post(take));
        let serve = async move {
            let listener = TcpListener::bind(address).await.expect("a port");
            tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") }).abort_handle()
        };
        let serving = in_background(serve).await;
        let client = CoordinatorClient::new(http);
        Self { id: format!("liar-{}", address.ip()), token: JOIN_TOKEN.into(), client, address, given, serving }
    }

    /// A heartbeat that claims to hold `held`. With no room it is given nothing; with some, tasks of the queue `lies`.
    pub async fn beat(&mut self, coordinator: &str, room: i64, held: Vec<TaskClaim>) -> Result<(), ClientError> {
        let heartbeat = HeartbeatRequest {
            address: format!("http://{}", self.address),
            slots: room.max(1),
            room,
            abilities: Abilities { commands: false, http: true, http_rules: false, queues: vec!["lies".into()] },
            labels: Default::default(),
            push_secret: "not-much-of-a-secret".into(),
            held,
            draining: false,
        };
        let answer = self.client.send_heartbeat(coordinator, &self.id, &self.token, &heartbeat).await?;
        self.token = answer.token;
        Ok(())
    }

    /// What it was given so far.
    pub fn given(&self) -> Vec<SubmittedTask> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reports, as itself or under another's name.
    pub async fn report(
        &self,
        coordinator: &str,
        name: &str,
        reports: Vec<StatusReport>,
    ) -> Result<Vec<ReportResult>, ClientError> {
        let request = UpdateTaskStatusRequest { worker_id: name.to_owned(), reports };
        Ok(self.client.update_task_status(coordinator, &self.token, &request).await?.results)
    }

    pub async fn leave(&self, coordinator: &str) {
        let _ = self.client.remove_worker(coordinator, &self.id, &self.token).await;
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A report of every kind about a claim.
pub fn lies(claim: TaskClaim) -> Vec<StatusReport> {
    use ReportStatus::{Cancelled, Complete, Detached, Failed, Released, Started};
    let error = || TaskError { code: ErrorCode::WorkerLost, message: "a lie".into() };
    let lie = |status| {
        let plain = json!({"task_id": claim.task_id, "claim": claim.claim, "status": status, "ended_ms_ago": 0});
        let report: StatusReport = serde_json::from_value(plain).expect("a report");
        StatusReport { error: (status == Failed).then(error), permanent: status == Failed, ..report }
    };
    [Started, Complete, Failed, Cancelled, Released, Detached].map(lie).to_vec()
}
