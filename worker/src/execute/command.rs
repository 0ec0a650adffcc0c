//! Commands: a process group and a directory of their own, a small environment, bounded output, and nobody left behind.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::pin::Pin;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::FusedFuture;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::task::{ErrorCode, TaskResult, Work};
use taskmaster_openapi::worker::{EXIT_STATUS_PERMANENT, SubmittedTask};
use tokio::process::{ChildStderr, ChildStdout};
use tokio_util::sync::CancellationToken;

use super::family::{self, Marker};
use super::output::Output;
use super::programs::{NoProgram, Programs};
use super::workspace::{Workspace, Workspaces};
use super::{Ending, Failure, exit};
use crate::config::Config;
use crate::error::WorkerError;
use crate::guard::GuardCommand;

/// How long outputs are still read after the command's own process has ended while descendants keep them open.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);
/// How long a killed command may take to disappear (it may hang in the kernel) before its slot is given away.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What a command sees of the worker's own environment: no settings, no secrets.
const PASSED_ON: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ"];
/// Where a command is to leave what it needs no longer: its own directory.
const TEMPORARY_VARIABLE: &str = "TMPDIR";
/// Where programs are looked for when the worker itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const ATTEMPT_VARIABLE: &str = "TASKMASTER_ATTEMPT";
/// The trace that the attempt is part of, as programs pass it on by convention (OpenTelemetry, environment variables as carriers).
const TRACEPARENT_VARIABLE: &str = "TRACEPARENT";
const TRACESTATE_VARIABLE: &str = "TRACESTATE";

/// Runs commands.
#[derive(Debug)]
pub(crate) struct CommandExecutor {
    starter: Arc<Starter>,
    guard: GuardCommand,
    kill_grace: Duration,
}

/// What commands are started with.
#[derive(Debug)]
struct Starter {
    programs: Programs,
    workspaces: Arc<Workspaces>,
    environment: Vec<(&'static str, OsString)>,
}

/// Why a command was not left to end by itself.
enum Cut {
    Stopped,
    TimedOut,
}

impl CommandExecutor {
    /// # Errors
    /// A setting names a directory or a program that is not there.
    pub fn new(config: &Config) -> Result<Self, WorkerError> {
        let mut environment: Vec<_> =
            PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        if !environment.iter().any(|(name, _)| *name == "PATH") {
            environment.push(("PATH", DEFAULT_PATH.into()));
        }
        let search_path = environment.iter().find(|(name, _)| *name == "PATH").map(|(_, path)| path.clone());
        let wrong = |flag| move |reason| WorkerError::Setting { flag, reason };
        let programs = Programs::new(&config.allow_programs, &search_path.unwrap_or_default());
        let starter = Starter {
            programs: programs.map_err(wrong("--allow-programs"))?,
            workspaces: Workspaces::new(config.command_directory.clone()).map_err(wrong("--command-directory"))?,
            environment,
        };
        Ok(Self {
            starter: Arc::new(starter),
            guard: GuardCommand::new(config.guard_command.clone()),
            kill_grace: config.kill_grace_seconds,
        })
    }

    /// Runs one attempt. When it returns, the command and its descendants are gone, and what is in its directory soon is.
    pub async fn run(&self, task: &SubmittedTask, work: &Work, stop: &CancellationToken) -> Ending {
        let claim = TaskClaim { task_id: task.task_id, claim: task.claim };
        // Before the start: from here on the command dies with the worker.
        let registration = match self.guard.register(Marker(claim)).await {
            Ok(registration) => registration,
            Err(error) => return failed(ErrorCode::WorkerError, format!("no guard for the command: {error}")),
        };
        let (running, workspace) = match self.start(task, work).await {
            Ok(started) => started,
            Err(failure) => return Ending::Failed(None, failure),
        };
        registration.started(running.group).await;
        let timeout = Duration::from_millis(task.timeout_ms);
        let ending = running.finish(Marker(claim), timeout, self.kill_grace, stop).await;
        self.starter.workspaces.give_back(workspace).await;
        ending
    }

    /// Waits a while until nothing is left of attempts that have ended.
    pub async fn settled(&self) {
        self.starter.workspaces.settled().await;
    }

    /// Starts the process on a thread of its own: `exec` may wait for a disk.
    async fn start(&self, task: &SubmittedTask, work: &Work) -> Result<(Running, Workspace), Failure> {
        let (starter, task, work) = (self.starter.clone(), task.clone(), work.clone());
        let starting = tokio::task::spawn_blocking(move || starter.start(&task, &work));
        let panicked = |error| Failure::new(ErrorCode::WorkerError, format!("cannot start the command: {error}"));
        let (child, workspace) = starting.await.map_err(panicked)??;
        Ok((Running::new(child).map_err(not_started)?, workspace))
    }
}

impl Starter {
    fn start(&self, task: &SubmittedTask, work: &Work) -> Result<(Child, Workspace), Failure> {
        let mut command = self.command(work)?;
        let claim = TaskClaim { task_id: task.task_id, claim: task.claim };
        let workspace = self.workspaces.create(claim).map_err(|error| {
            Failure::new(ErrorCode::Spawn, format!("cannot make a directory for the command: {error}"))
        })?;
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(TEMPORARY_VARIABLE, workspace.path())
            .env(family::TASK_ID_VARIABLE, task.task_id.to_string())
            .env(family::CLAIM_VARIABLE, task.claim.to_string())
            .env(ATTEMPT_VARIABLE, task.attempt.to_string())
            .envs(task.traceparent.iter().map(|trace| (TRACEPARENT_VARIABLE, trace)))
            .envs(task.tracestate.iter().map(|state| (TRACESTATE_VARIABLE, state)))
            .current_dir(workspace.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Ok((command.spawn().map_err(not_started)?, workspace))
    }

    /// The program and its arguments.
    fn command(&self, work: &Work) -> Result<Command, Failure> {
        match work {
            Work::Command(line) => {
                let mut shell = Command::new(self.programs.shell().map_err(no_program)?);
                shell.arg("-c").arg(line);
                Ok(shell)
            }
            Work::Argv(argv) => {
                let (name, arguments) = argv.split_first().ok_or_else(nothing_to_run)?;
                let mut command = Command::new(self.programs.find(name).map_err(no_program)?);
                // Some programs do by their name what they do.
                command.arg0(name).args(arguments);
                Ok(command)
            }
            Work::Http(_) => Err(nothing_to_run()),
        }
    }
}

fn nothing_to_run() -> Failure {
    Failure::new(ErrorCode::Unsupported, "the task has no command to run")
}

fn no_program(error: NoProgram) -> Failure {
    let permanent = error.is_refusal();
    let code = if permanent { ErrorCode::Unsupported } else { ErrorCode::Spawn };
    Failure { permanent, ..Failure::new(code, error.to_string()) }
}

fn not_started(error: io::Error) -> Failure {
    Failure::new(ErrorCode::Spawn, format!("cannot start the command: {error}"))
}

fn failed(code: ErrorCode, message: impl Into<String>) -> Ending {
    Ending::Failed(None, Failure::new(code, message))
}

/// A command whose process runs. Killed when dropped, which happens when the whole runtime is.
struct Running {
    /// Until it is reaped.
    child: Option<Child>,
    group: u32,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl Running {
    fn new(mut child: Child) -> io::Result<Self> {
        let pipes = (child.stdout.take(), child.stderr.take());
        let (Some(stdout), Some(stderr)) = pipes else { return Err(io::Error::other("the command has no outputs")) };
        Ok(Self {
            group: child.id(),
            child: Some(child),
            stdout: ChildStdout::from_std(stdout)?,
            stderr: ChildStderr::from_std(stderr)?,
        })
    }

    /// Waits for the end, or brings it about: SIGTERM to the group, and after the grace SIGKILL to all.
    async fn finish(mut self, marker: Marker, timeout: Duration, grace: Duration, stop: &CancellationToken) -> Ending {
        let group = self.group;
        let (mut stdout, mut stderr) = (Output::default(), Output::default());
        let cut = {
            let reading =
                futures::future::join(stdout.read_from(&mut self.stdout), stderr.read_from(&mut self.stderr)).fuse();
            let mut reading = std::pin::pin!(reading);
            let cut = tokio::select! {
                biased;
                () = until_ended(group, reading.as_mut()) => None,
                () = stop.cancelled() => Some(Cut::Stopped),
                () = tokio::time::sleep(timeout) => Some(Cut::TimedOut),
            };
            if cut.is_some() {
                family::terminate_group(group);
                // Over as well once whoever heard it has ended and closed the outputs: last words are kept.
                let ending = futures::future::join(exit::ended(group), until_closed(reading.as_mut()));
                let _ = tokio::time::timeout(grace, ending).await;
            }
            cut
        };
        // Its own process has not been reaped yet, so the group is still its.
        family::kill_group(group);
        if cut.is_some() {
            kill_the_rest(group, marker).await;
        }
        let status = self.child.take().and_then(reap);
        ending(cut, status, stdout, stderr, timeout)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.is_some() {
            family::kill_group(self.group);
        }
    }
}

/// Reads the outputs until the child has ended and they are closed, or a grace after the child's end is over.
async fn until_ended(pid: u32, mut reading: Pin<&mut impl FusedFuture>) {
    let result = tokio::select! {
        result = exit::ended(pid) => result,
        () = async {
            until_closed(reading.as_mut()).await;
            std::future::pending().await
        } => Ok(()),
    };
    match result {
        Ok(()) => {
            let _ = tokio::time::timeout(OUTPUT_GRACE, until_closed(reading)).await;
        }
        // Without a handle on the process its closed outputs say that it ended; the time-out bounds this.
        Err(error) => {
            tracing::warn!(%error, pid, "cannot watch a command's process");
            until_closed(reading).await;
        }
    }
}

/// Reads the outputs until they are closed.
async fn until_closed(reading: Pin<&mut impl FusedFuture>) {
    if !reading.is_terminated() {
        reading.await;
    }
}

/// Kills descendants that left the process group, and waits until the command's own process has ended.
async fn kill_the_rest(pid: u32, marker: Marker) {
    let killing = tokio::task::spawn_blocking(move || family::kill_marked(&HashSet::from([marker]), 1));
    if killing.await.is_err() {
        tracing::error!("the search for a killed command's descendants panicked");
    }
    if tokio::time::timeout(KILL_WAIT, exit::ended(pid)).await.is_err() {
        tracing::warn!(pid, "a killed command does not end: it hangs in the kernel");
    }
}

/// The exit status; `None` when the process cannot be waited for, or hangs in the kernel (it is then reaped when it ends).
fn reap(mut child: Child) -> Option<ExitStatus> {
    let status = child.try_wait();
    if let Ok(None) = status {
        tokio::task::spawn_blocking(move || child.wait());
    }
    status.ok().flatten()
}

fn ending(cut: Option<Cut>, status: Option<ExitStatus>, stdout: Output, stderr: Output, timeout: Duration) -> Ending {
    let (stdout, stderr) = (stdout.into_text(), stderr.into_text());
    let result = Some(TaskResult {
        exit_code: status.and_then(|status| status.code()),
        signal: status.and_then(|status| status.signal()),
        stdout: stdout.text,
        stdout_base64: stdout.base64,
        stdout_truncated: stdout.truncated,
        stderr: stderr.text,
        stderr_base64: stderr.base64,
        stderr_truncated: stderr.truncated,
        ..TaskResult::default()
    });
    match (cut, status.and_then(|status| status.code()), status.and_then(|status| status.signal())) {
        (Some(Cut::Stopped), ..) => Ending::Stopped(result),
        (Some(Cut::TimedOut), ..) => {
            Ending::Failed(result, Failure::timeout(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)))
        }
        (None, Some(0), _) => Ending::Complete(result),
        (None, Some(code), _) => {
            let failure = Failure::new(ErrorCode::ExitStatus, format!("the command ended with exit status {code}"));
            Ending::Failed(result, Failure { permanent: code == EXIT_STATUS_PERMANENT, ..failure })
        }
        (None, None, Some(signal)) => {
            Ending::Failed(result, Failure::new(ErrorCode::Signal, format!("the command was ended by signal {signal}")))
        }
        (None, None, None) => {
            Ending::Failed(result, Failure::new(ErrorCode::WorkerError, "the command's exit status is unknown"))
        }
    }
}
