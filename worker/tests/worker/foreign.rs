//! A worker that was written from the documents alone, in another language, works as well.

use std::process::{Child, Command, Stdio};

use taskmaster_openapi::client::WorkerClient;
use taskmaster_openapi::report::{ReportStatus, TaskClaim};
use taskmaster_openapi::worker::{
    ReleaseCode, ReleaseRequest, SubmitCode, SubmitTaskRequest, SubmitTaskResponse, SubmittedTask,
};

use crate::coordinator::{Coordinator, JOIN_TOKEN, PATIENCE, ReportFault};
use crate::fixture::{argv, claim, http_get, shell, until};
use crate::target::Target;

struct Python {
    child: Child,
    id: String,
    address: String,
    push_secret: String,
    client: WorkerClient,
}

impl Python {
    async fn start(coordinator: &Coordinator) -> Self {
        let child = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/worker.py"))
            .args(["--coordinator", &coordinator.address, "--join-token", JOIN_TOKEN, "--allow-commands"])
            .stdout(Stdio::null())
            .spawn()
            .expect("these tests need python3");
        let (id, address, push_secret) = coordinator
            .until("two heartbeats", |inner| {
                let beat = inner.heartbeats.get(1)?;
                Some((beat.worker_id.clone(), beat.body.address.clone(), beat.body.push_secret.clone()))
            })
            .await;
        let client = WorkerClient::new(taskmaster_service::client::build(PATIENCE).unwrap());
        Self { child, id, address, push_secret, client }
    }

    async fn submit(&self, tasks: &[SubmittedTask]) -> SubmitTaskResponse {
        let request = SubmitTaskRequest { worker_id: self.id.clone(), tasks: tasks.to_vec() };
        self.client.submit_task(&self.address, &self.push_secret, &request).await.unwrap()
    }

    async fn release(&self, claim: TaskClaim) -> ReleaseCode {
        let request = ReleaseRequest { tasks: vec![claim], stop: false };
        self.client.release_tasks(&self.address, &self.push_secret, &request).await.unwrap().results[0].code
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_python_worker_runs_http_and_commands_and_reports_until_heard() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    coordinator.set(|inner| inner.report_faults = [ReportFault::LoseAnswer, ReportFault::NotRecorded].into());
    let worker = Python::start(&coordinator).await;
    let tasks = [
        shell("echo hello; exit 3"),
        argv(&["echo", "a b"]),
        http_get(format!("{}/path", target.url)),
        http_get(format!("{}/status/410", target.url)),
    ];
    let answer = worker.submit(&tasks).await;
    assert!(answer.results.iter().all(|result| result.code == SubmitCode::Accepted), "{answer:?}");
    assert_eq!(worker.submit(&tasks[..1]).await.results[0].code, SubmitCode::AlreadyHeld);

    let command = coordinator.outcome(claim(&tasks[0])).await;
    let result = command.result.unwrap();
    assert_eq!((command.status, result.exit_code), (ReportStatus::Failed, Some(3)));
    assert_eq!(result.stdout.as_deref(), Some("hello\n"));
    let program = coordinator.outcome(claim(&tasks[1])).await;
    assert_eq!((program.status, program.result.unwrap().stdout.as_deref()), (ReportStatus::Complete, Some("a b\n")));
    let http = coordinator.outcome(claim(&tasks[2])).await;
    let result = http.result.unwrap();
    assert_eq!(
        (http.status, result.http_status, result.body.as_deref()),
        (ReportStatus::Complete, Some(200), Some("ok"))
    );
    let gone = coordinator.outcome(claim(&tasks[3])).await;
    assert_eq!((gone.status, gone.result.unwrap().http_status), (ReportStatus::Failed, Some(410)));
    let received = &target.received()[0];
    assert!(received.headers.contains_key("taskmaster-task-id"));
    coordinator.emptied().await;
}

#[tokio::test]
async fn the_python_worker_lets_go_and_drains_on_sigterm() {
    let (coordinator, target) = (Coordinator::start().await, Target::start().await);
    let mut worker = Python::start(&coordinator).await;
    let running = http_get(format!("{}/sleep/1500", target.url));
    let mut later = http_get(format!("{}/never", target.url));
    later.start_in_ms = 3_600_000.0;
    let mut handed_back = later.clone();
    handed_back.task_id = uuid::Uuid::now_v7();
    worker.submit(&[running.clone(), later.clone(), handed_back.clone()]).await;
    coordinator.started(claim(&running)).await;
    assert_eq!(worker.release(claim(&later)).await, ReleaseCode::Released);
    // SAFETY: a signal to a child that has not been waited for.
    unsafe { libc::kill(worker.child.id() as i32, libc::SIGTERM) };
    let mut status = None;
    until("its end", || {
        status = worker.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    let inner = coordinator.inner();
    assert_eq!(inner.outcome(claim(&running)).unwrap().status, ReportStatus::Complete);
    assert_eq!(inner.outcome(claim(&handed_back)).unwrap().status, ReportStatus::Released);
    assert_eq!(inner.removed, [worker.id.clone()]);
    assert!(target.received().iter().all(|request| request.path != "/never"));
}
