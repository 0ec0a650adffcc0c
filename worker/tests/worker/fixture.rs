//! A worker of a test, and tasks to give it.

use std::time::Duration;

use taskmaster_openapi::client::WorkerClient;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::{HttpMethod, HttpWork, Work};
use taskmaster_openapi::worker::{
    ReleaseCode, ReleaseRequest, SubmitCode, SubmitTaskRequest, SubmitTaskResponse, SubmittedTask,
};
use taskmaster_service::{Health, Secret, Shutdown};
use taskmaster_worker::{Config, GUARD_SUBCOMMAND, Worker, WorkerError};
use uuid::Uuid;

use crate::coordinator::{Coordinator, JOIN_TOKEN, PATIENCE};

/// A worker that runs in the test's process.
pub struct TestWorker {
    pub id: String,
    pub address: String,
    pub push_secret: String,
    pub health: Health,
    pub shutdown: Shutdown,
    pub running: tokio::task::JoinHandle<Result<(), WorkerError>>,
    client: WorkerClient,
}

/// Settings of a worker that may do everything.
pub fn config(coordinator: &Coordinator) -> Config {
    Config {
        coordinator_url: vec![coordinator.address.clone()],
        join_token: Some(Secret::new(JOIN_TOKEN)),
        allow_commands: true,
        allow_targets: vec!["loopback".parse().unwrap()],
        guard_command: Some(vec![env!("CARGO_BIN_EXE_taskmaster-worker").into(), GUARD_SUBCOMMAND.into()]),
        ..Config::default()
    }
}

/// As [`config`], but every task only takes its time.
pub fn simulating(coordinator: &Coordinator, duration: Duration) -> Config {
    Config { simulate: Some(duration), ..config(coordinator) }
}

impl TestWorker {
    pub async fn start(coordinator: &Coordinator) -> Self {
        Self::with(coordinator, config(coordinator)).await
    }

    /// Starts a worker, and waits until the coordinator has heard of it and it has heard the answer.
    pub async fn with(coordinator: &Coordinator, config: Config) -> Self {
        let worker = Worker::bind(config, Health::new()).await.unwrap();
        let (id, health, shutdown) = (worker.id().to_owned(), worker.health().clone(), Shutdown::new());
        let running = tokio::spawn(worker.run(shutdown.clone()));
        let (address, push_secret) = coordinator
            .until("two heartbeats", |inner| {
                let beat = inner.heartbeats.iter().filter(|beat| beat.worker_id == id).nth(1)?;
                Some((beat.body.address.clone(), beat.body.push_secret.clone()))
            })
            .await;
        let client = WorkerClient::new(taskmaster_service::client::build(PATIENCE).unwrap());
        Self { id, address, push_secret, health, shutdown, running, client }
    }

    pub async fn submit_all(&self, tasks: Vec<SubmittedTask>) -> SubmitTaskResponse {
        let request = SubmitTaskRequest { worker_id: self.id.clone(), tasks };
        self.client.submit_task(&self.address, &self.push_secret, &request).await.unwrap()
    }

    /// Submits one task; says how it was taken.
    pub async fn offer(&self, task: &SubmittedTask) -> SubmitCode {
        self.submit_all(vec![task.clone()]).await.results[0].code
    }

    /// Submits one task that is taken.
    pub async fn submit(&self, task: SubmittedTask) -> TaskClaim {
        assert_eq!(self.offer(&task).await, SubmitCode::Accepted);
        claim(&task)
    }

    pub async fn release(&self, claim: TaskClaim, stop: bool) -> ReleaseCode {
        let request = ReleaseRequest { tasks: vec![claim], stop };
        self.client.release_tasks(&self.address, &self.push_secret, &request).await.unwrap().results[0].code
    }

    /// Asks the worker to stop, and waits until it has.
    pub async fn stop(self) {
        self.shutdown.request();
        self.ended().await;
    }

    pub async fn ended(self) {
        tokio::time::timeout(PATIENCE, self.running).await.expect("the worker ends").unwrap().unwrap();
    }
}

pub fn claim(task: &SubmittedTask) -> TaskClaim {
    TaskClaim { task_id: task.task_id, claim: task.claim }
}

/// A task that is due at once and has a minute.
pub fn task(work: Work) -> SubmittedTask {
    SubmittedTask {
        task_id: Uuid::now_v7(),
        claim: 1,
        attempt: 1,
        start_in_ms: 0.0,
        timeout_ms: 60_000,
        work,
        traceparent: None,
        tracestate: None,
        try_always: false,
    }
}

pub fn shell(line: &str) -> SubmittedTask {
    task(Work::Command(line.into()))
}

pub fn argv(arguments: &[&str]) -> SubmittedTask {
    task(Work::Argv(arguments.iter().map(|a| (*a).to_owned()).collect()))
}

pub fn http_get(url: impl Into<String>) -> SubmittedTask {
    task(Work::Http(HttpWork { method: HttpMethod::Get, url: url.into(), ..HttpWork::default() }))
}

/// Waits for what only looking can tell, in small steps.
pub async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
