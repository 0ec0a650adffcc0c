//! Clients of the contracts. Every call has a deadline: the one of the `reqwest::Client` it is given.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::coordinator::{
    self, HeartbeatRequest, HeartbeatResponse, UpdateTaskStatusRequest, UpdateTaskStatusResponse,
};
use crate::limits;
use crate::problem::Problem;
use crate::worker::{self, ReleaseRequest, ReleaseResponse, SubmitTaskRequest, SubmitTaskResponse};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens at the address: the request was not sent.
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: String, reason: String },
    /// The request may or may not have had its effect.
    #[error("no answer from {address}: {reason}")]
    NoAnswer { address: String, reason: String },
    /// The server refused.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not what the contract says.
    #[error("{address} answered {status}, which the contract does not have")]
    Unexpected { address: String, status: StatusCode },
}

impl ClientError {
    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            ClientError::Problem(problem) => Some(problem.status_code()),
            ClientError::Unexpected { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Sends one request with a bearer token, and reads its answer.
async fn call<B: Serialize, A: DeserializeOwned>(
    http: &reqwest::Client,
    method: Method,
    address: &str,
    path: &str,
    token: &str,
    body: &B,
) -> Result<A, ClientError> {
    finish(address, http.request(method, format!("{address}{path}")).bearer_auth(token).json(body)).await
}

/// Sends a request, and reads its answer.
async fn finish<A: DeserializeOwned>(address: &str, request: reqwest::RequestBuilder) -> Result<A, ClientError> {
    let answer = request.send().await.map_err(|error| match error.is_connect() {
        true => ClientError::Connect { address: address.into(), reason: root_cause(&error) },
        false => ClientError::NoAnswer { address: address.into(), reason: root_cause(&error) },
    })?;
    let status = answer.status();
    let bytes = read(answer, limits::INTERNAL_BODY_BYTES_MAX)
        .await
        .map_err(|reason| ClientError::NoAnswer { address: address.into(), reason })?;
    if status.is_success() {
        let bytes: &[u8] = if bytes.is_empty() { b"null" } else { &bytes };
        return serde_json::from_slice(bytes).map_err(|_| ClientError::Unexpected { address: address.into(), status });
    }
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => Err(ClientError::Problem(Box::new(problem))),
        Err(_) => Err(ClientError::Unexpected { address: address.into(), status }),
    }
}

/// Reads an answer's body, of at most so many bytes: whoever answers need not be who was meant.
async fn read(mut answer: reqwest::Response, limit_bytes: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(bytes) = answer.chunk().await.map_err(|error| root_cause(&error))? {
        if bytes.len() > limit_bytes - body.len() {
            return Err(format!("the answer is longer than {limit_bytes} bytes"));
        }
        body.extend_from_slice(&bytes);
    }
    Ok(body)
}

/// The innermost reason of an error: the outer ones only repeat the URL.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// Speaks to a coordinator, as a worker does.
#[derive(Debug, Clone)]
pub struct CoordinatorClient {
    http: reqwest::Client,
}

impl CoordinatorClient {
    pub fn new(http: reqwest::Client) -> Self {
        Self { http }
    }

    pub async fn send_heartbeat(
        &self,
        address: &str,
        worker_id: &str,
        token: &str,
        heartbeat: &HeartbeatRequest,
    ) -> Result<HeartbeatResponse, ClientError> {
        let path = coordinator::paths::HEARTBEAT.replace("{worker_id}", worker_id);
        call(&self.http, Method::POST, address, &path, token, heartbeat).await
    }

    pub async fn update_task_status(
        &self,
        address: &str,
        token: &str,
        reports: &UpdateTaskStatusRequest,
    ) -> Result<UpdateTaskStatusResponse, ClientError> {
        call(&self.http, Method::POST, address, coordinator::paths::TASK_STATUS, token, reports).await
    }

    pub async fn remove_worker(&self, address: &str, worker_id: &str, token: &str) -> Result<(), ClientError> {
        let path = coordinator::paths::WORKER.replace("{worker_id}", worker_id);
        call(&self.http, Method::DELETE, address, &path, token, &()).await
    }
}

/// Speaks to a worker, as a coordinator does.
#[derive(Debug, Clone)]
pub struct WorkerClient {
    http: reqwest::Client,
}

impl WorkerClient {
    pub fn new(http: reqwest::Client) -> Self {
        Self { http }
    }

    pub async fn submit_task(
        &self,
        address: &str,
        push_secret: &str,
        request: &SubmitTaskRequest,
    ) -> Result<SubmitTaskResponse, ClientError> {
        call(&self.http, Method::POST, address, worker::paths::TASKS, push_secret, request).await
    }

    /// Calls a worker that is only a URL, and waits for its answer for at most so long.
    pub async fn call_url(
        &self,
        url: &str,
        push_secret: &str,
        request: &SubmitTaskRequest,
        timeout: Duration,
    ) -> Result<SubmitTaskResponse, ClientError> {
        finish(url, self.http.post(url).timeout(timeout).bearer_auth(push_secret).json(request)).await
    }

    pub async fn release_tasks(
        &self,
        address: &str,
        push_secret: &str,
        request: &ReleaseRequest,
    ) -> Result<ReleaseResponse, ClientError> {
        call(&self.http, Method::POST, address, worker::paths::RELEASE, push_secret, request).await
    }
}
