//! Doing the work of one attempt.

pub(crate) mod command;
mod exit;
pub(crate) mod family;
pub(crate) mod http;
mod output;
mod programs;
pub(crate) mod workspace;

use std::time::Duration;

use taskmaster_openapi::limits;
use taskmaster_openapi::task::{ErrorCode, TaskError, TaskResult, Work};
use taskmaster_openapi::worker::SubmittedTask;
use tokio_util::sync::CancellationToken;

use crate::circuits::OpenHost;
use command::CommandExecutor;
use http::HttpExecutor;

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum Ending {
    Complete(Option<TaskResult>),
    Failed(Option<TaskResult>, Failure),
    /// The target answered 202, and will call back.
    Detached,
    /// It was not tried, and is not to be before so many milliseconds are over.
    PutOff(u64),
    /// It was told to stop, and did.
    Stopped(Option<TaskResult>),
}

/// Why an attempt failed, and what that means for the next one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Failure {
    pub error: TaskError,
    /// Never again.
    pub permanent: bool,
    /// No sooner than in so many milliseconds.
    pub retry_after_ms: Option<u64>,
}

impl Failure {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into().chars().filter(|c| *c != '\0').take(limits::ERROR_MESSAGE_CHARS_MAX).collect();
        Self { error: TaskError { code, message }, permanent: false, retry_after_ms: None }
    }

    pub fn timeout(timeout_ms: u64) -> Self {
        Self::new(ErrorCode::Timeout, format!("the attempt took longer than {} seconds", timeout_ms as f64 / 1000.0))
    }
}

/// What a worker does with tasks.
#[derive(Debug)]
pub(crate) enum Executor {
    /// Nothing, for so long.
    Simulated(Duration),
    Real {
        commands: CommandExecutor,
        http: HttpExecutor,
    },
}

impl Executor {
    /// Runs one attempt until it ends, its time is up, or it is told to stop.
    pub async fn run(&self, task: &SubmittedTask, stop: &CancellationToken) -> Ending {
        match (self, &task.work) {
            (Self::Simulated(Duration::ZERO), _) => Ending::Complete(None),
            (Self::Simulated(duration), _) => {
                let work = async {
                    tokio::time::sleep(*duration).await;
                    Ending::Complete(None)
                };
                bounded(work, task.timeout_ms, stop).await
            }
            (Self::Real { http, .. }, Work::Http(request)) => {
                http.guarded(task, request, bounded(http.run(task, request), task.timeout_ms, stop)).await
            }
            (Self::Real { commands, .. }, work) => commands.run(task, work, stop).await,
        }
    }

    /// Waits a while until nothing is left of attempts that have ended.
    pub async fn settled(&self) {
        if let Self::Real { commands, .. } = self {
            commands.settled().await;
        }
    }
}

impl Executor {
    /// The hosts that are not asked for a while, at most so many.
    pub fn open_circuits(&self, max: usize) -> Vec<OpenHost> {
        match self {
            Self::Simulated(_) => Vec::new(),
            Self::Real { http, .. } => http.open_circuits(max),
        }
    }
}

/// Work that is over when it is dropped.
async fn bounded(work: impl Future<Output = Ending>, timeout_ms: u64, stop: &CancellationToken) -> Ending {
    tokio::select! {
        biased;
        ending = work => ending,
        () = stop.cancelled() => Ending::Stopped(None),
        () = tokio::time::sleep(Duration::from_millis(timeout_ms)) => Ending::Failed(None, Failure::timeout(timeout_ms)),
    }
}
