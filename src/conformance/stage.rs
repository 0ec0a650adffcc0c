//! One worker, as a process, on its stand-in.

use std::process::{ExitStatus, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use taskmaster_openapi::client::{ClientError, WorkerClient};
use taskmaster_openapi::coordinator::HeartbeatRequest;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::{Completion, HttpMethod, HttpWork, Work};
use taskmaster_openapi::worker::{
    ReleaseCode, ReleaseRequest, SubmitCode, SubmitTaskRequest, SubmitTaskResponse, SubmittedTask,
};
use tokio::process::{Child, Command};
use uuid::Uuid;

use super::standin::{Heard, JOIN_TOKEN, StandIn};

/// Far enough in the future that it never begins by itself.
pub const NEVER_MS: f64 = 3_600_000.0;

pub struct Stage {
    pub standin: StandIn,
    /// As the worker called itself.
    pub worker_id: String,
    /// Its first heartbeat.
    pub first: HeartbeatRequest,
    pub patience: Duration,
    client: WorkerClient,
    process: Process,
    claims: AtomicI64,
}

impl Stage {
    /// Starts the worker, and waits until it has joined and has heard the answer.
    pub async fn set(command: &[String], patience: Duration, output: bool) -> Result<Self, String> {
        let standin = StandIn::start(patience).await?;
        let mut process = Process::start(command, &standin, output)?;
        let joined = standin.until("a second heartbeat, the first with the join token as its bearer token", |heard| {
            let (first, _) = (heard.heartbeats.first()?, heard.heartbeats.get(1)?);
            Some((first.worker_id.clone(), first.body.clone()))
        });
        let (worker_id, first) = tokio::select! {
            joined = joined => match joined {
                Ok(joined) => joined,
                // It may have joined with something that is no heartbeat.
                Err(why) => return Err(standin.check().err().unwrap_or(why)),
            },
            status = process.child.wait() => return Err(match status {
                Ok(status) => format!("the worker ended by itself ({status}); --output shows what it wrote"),
                Err(error) => format!("the worker was lost: {error}"),
            }),
        };
        if !first.abilities.http {
            return Err("the test is made of HTTP tasks, and the worker's abilities have `http: false`".into());
        }
        let http = taskmaster_service::client::build(patience).map_err(|error| error.to_string())?;
        let client = WorkerClient::new(http);
        Ok(Self { standin, worker_id, first, patience, client, process, claims: AtomicI64::new(1) })
    }

    /// A task that is due at once, has a minute, and calls this of the stand-in: `ok`, `fails`, `held`.
    pub fn task(&self, what: &str) -> SubmittedTask {
        self.task_at(&self.standin, what)
    }

    /// As [`Self::task`], of another stand-in.
    pub fn task_at(&self, standin: &StandIn, what: &str) -> SubmittedTask {
        let http = HttpWork {
            method: HttpMethod::Get,
            url: format!("{}/target/{what}", standin.url),
            headers: Default::default(),
            body: None,
            body_base64: None,
            response: None,
            completion: Completion::default(),
            heartbeat_timeout_seconds: None,
            sign: false,
        };
        SubmittedTask {
            task_id: Uuid::now_v7(),
            claim: self.claims.fetch_add(1, Ordering::Relaxed),
            attempt: 1,
            start_in_ms: 0.0,
            timeout_ms: 60_000,
            traceparent: None,
            tracestate: None,
            try_always: false,
            work: Work::Http(http),
        }
    }

    /// Pushes tasks; the answer has the shape that it must.
    pub async fn submit(&self, tasks: &[SubmittedTask]) -> Result<SubmitTaskResponse, String> {
        let request = SubmitTaskRequest { worker_id: self.worker_id.clone(), tasks: tasks.to_vec() };
        let answer = self.push(&self.first.push_secret, &request).await.map_err(|error| error.to_string())?;
        let asked = tasks.iter().map(claim_of);
        let answered = answer.results.iter().map(|result| TaskClaim { task_id: result.task_id, claim: result.claim });
        match asked.eq(answered) && (0..=10_000).contains(&answer.room) {
            true => Ok(answer),
            false => Err(format!("submitTask must answer one result a task, in order, and the room: {answer:?}")),
        }
    }

    /// Pushes with this secret.
    pub async fn push(&self, secret: &str, request: &SubmitTaskRequest) -> Result<SubmitTaskResponse, ClientError> {
        self.client.submit_task(&self.first.address, secret, request).await
    }

    /// Pushes one task: how it was taken.
    pub async fn offer(&self, task: &SubmittedTask) -> Result<SubmitCode, String> {
        let answer = self.submit(std::slice::from_ref(task)).await?;
        answer.results.first().map(|result| result.code).ok_or_else(|| "submitTask answered nothing".into())
    }

    /// Pushes one task, which is to be taken.
    pub async fn give(&self, task: &SubmittedTask) -> Result<TaskClaim, String> {
        match self.offer(task).await? {
            SubmitCode::Accepted => Ok(claim_of(task)),
            other => Err(format!("a task that there is room for was answered {other:?}")),
        }
    }

    pub async fn release(&self, claim: TaskClaim, stop: bool) -> Result<ReleaseCode, String> {
        let request = ReleaseRequest { tasks: vec![claim], stop };
        let (address, secret) = (&self.first.address, &self.first.push_secret);
        let answer = self.client.release_tasks(address, secret, &request).await.map_err(|error| error.to_string())?;
        match answer.results.as_slice() {
            [one] if (one.task_id, one.claim) == (claim.task_id, claim.claim) => Ok(one.code),
            _ => Err(format!("releaseTasks must answer one result a task, in order: {answer:?}")),
        }
    }

    /// Runs a task to its end: the worker works, and what was pushed before has had its chance.
    pub async fn works(&self) -> Result<(), String> {
        let claim = self.give(&self.task("ok")).await?;
        self.standin.outcome(claim).await.map(drop)
    }

    /// Waits until heartbeats that are sent from now on name, or do not name, a claim as held.
    pub async fn is_held(&self, claim: TaskClaim, held: bool) -> Result<(), String> {
        let what = if held { "a heartbeat with the task among `held`" } else { "a heartbeat without it in `held`" };
        // The next one may have been on its way.
        self.standin.heartbeats(2).await?;
        let look = |heard: &Heard| {
            let last = heard.heartbeats.last()?;
            (last.body.held.contains(&claim) == held).then_some(())
        };
        self.standin.until(what, look).await
    }

    /// Asks the worker to drain.
    pub fn terminate(&self) {
        self.process.signal(libc::SIGTERM);
    }

    /// Waits for the end of the process.
    pub async fn ended(&mut self) -> Result<ExitStatus, String> {
        match tokio::time::timeout(self.patience, self.process.child.wait()).await {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(error)) => Err(format!("the worker was lost: {error}")),
            Err(_) => Err(format!("the worker did not end within {:?}", self.patience)),
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.standin.die();
    }
}

pub fn claim_of(task: &SubmittedTask) -> TaskClaim {
    TaskClaim { task_id: task.task_id, claim: task.claim }
}

/// The worker's process, and all that it started: killed when this is dropped.
struct Process {
    child: Child,
    /// Of the group; none when the system did not say.
    id: Option<i32>,
}

impl Process {
    fn start(command: &[String], standin: &StandIn, output: bool) -> Result<Self, String> {
        let filled = |word: &String| word.replace("{coordinator}", &standin.url).replace("{join_token}", JOIN_TOKEN);
        let words: Vec<String> = command.iter().map(filled).collect();
        let [program, arguments @ ..] = words.as_slice() else { return Err("there is no command".into()) };
        let shown = || if output { Stdio::inherit() } else { Stdio::null() };
        let child = Command::new(program)
            .args(arguments)
            .env("TASKMASTER_COORDINATOR_URL", &standin.url)
            .env("TASKMASTER_JOIN_TOKEN", JOIN_TOKEN)
            .stdin(Stdio::null())
            .stdout(shown())
            .stderr(shown())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start {program}: {error}"))?;
        let id = child.id().and_then(|id| i32::try_from(id).ok());
        Ok(Self { child, id })
    }

    fn signal(&self, signal: i32) {
        if let Some(id) = self.id {
            // SAFETY: a signal to a child that leads its group, and has not been waited for.
            unsafe { libc::kill(id, signal) };
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Once it was waited for, its number may be another's.
        if let (Some(id), Ok(None)) = (self.id, self.child.try_wait()) {
            // SAFETY: a signal to the group of a child that has not been waited for.
            unsafe { libc::kill(-id, libc::SIGKILL) };
        }
    }
}
