//! Commands: a process group of their own, a small environment, bounded output, and nobody left behind.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
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
use super::{Ending, Failure, exit};
use crate::guard::GuardCommand;

/// How long outputs are still read after the command's own process has ended while descendants keep them open.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);
/// How long a killed command may take to disappear (it may hang in the kernel) before its slot is given away.
const KILL_WAIT: Duration = Duration::from_secs(5);

/// What a command sees of the worker's own environment: no settings, no secrets.
const PASSED_ON: &[&str] =
    &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"];
/// Where programs are looked for when the worker itself has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const ATTEMPT_VARIABLE: &str = "TASKMASTER_ATTEMPT";

/// Runs commands.
#[derive(Debug)]
pub(crate) struct CommandExecutor {
    directory: PathBuf,
    environment: Vec<(&'static str, OsString)>,
    guard: GuardCommand,
}

/// Why a command was not left to end by itself.
enum Cut {
    Stopped,
    TimedOut,
}

impl CommandExecutor {
    pub fn new(directory: Option<PathBuf>, guard: GuardCommand) -> Self {
        let mut environment: Vec<_> =
            PASSED_ON.iter().filter_map(|name| Some((*name, std::env::var_os(name)?))).collect();
        if !environment.iter().any(|(name, _)| *name == "PATH") {
            environment.push(("PATH", DEFAULT_PATH.into()));
        }
        Self { directory: directory.unwrap_or_else(std::env::temp_dir), environment, guard }
    }

    /// Runs one attempt. When it returns, the command and its descendants are gone.
    pub async fn run(&self, task: &SubmittedTask, work: &Work, stop: &CancellationToken) -> Ending {
        let claim = TaskClaim { task_id: task.task_id, claim: task.claim };
        // Before the start: from here on the command dies with the worker.
        let registration = match self.guard.register(Marker(claim)).await {
            Ok(registration) => registration,
            Err(error) => return failed(ErrorCode::WorkerError, format!("no guard for the command: {error}")),
        };
        let command = match self.prepare(task, work) {
            Some(command) => command,
            None => return failed(ErrorCode::Unsupported, "the task has no command to run"),
        };
        let running = match spawn(command).await {
            Ok(running) => running,
            Err(error) => return failed(ErrorCode::Spawn, format!("cannot start the command: {error}")),
        };
        registration.started(running.group).await;
        running.finish(Marker(claim), Duration::from_millis(task.timeout_ms), stop).await
    }

    fn prepare(&self, task: &SubmittedTask, work: &Work) -> Option<Command> {
        let mut command = match work {
            Work::Command(line) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(line);
                shell
            }
            Work::Argv(argv) => {
                let (program, arguments) = argv.split_first()?;
                let mut command = Command::new(program);
                command.args(arguments);
                command
            }
            Work::Http(_) => return None,
        };
        command
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env(family::TASK_ID_VARIABLE, task.task_id.to_string())
            .env(family::CLAIM_VARIABLE, task.claim.to_string())
            .env(ATTEMPT_VARIABLE, task.attempt.to_string())
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        Some(command)
    }
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

/// Starts the process on a thread of its own: `exec` may wait for a disk.
async fn spawn(mut command: Command) -> io::Result<Running> {
    let mut child = tokio::task::spawn_blocking(move || command.spawn()).await.map_err(io::Error::other)??;
    let pipes = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = pipes else { return Err(io::Error::other("the command has no outputs")) };
    Ok(Running {
        group: child.id(),
        child: Some(child),
        stdout: ChildStdout::from_std(stdout)?,
        stderr: ChildStderr::from_std(stderr)?,
    })
}

impl Running {
    /// Waits for the end, or brings it about.
    async fn finish(mut self, marker: Marker, timeout: Duration, stop: &CancellationToken) -> Ending {
        let group = self.group;
        let (mut stdout, mut stderr) = (Output::default(), Output::default());
        let cut = tokio::select! {
            biased;
            () = read_until_ended(group, (&mut self.stdout, &mut stdout), (&mut self.stderr, &mut stderr)) => None,
            () = stop.cancelled() => Some(Cut::Stopped),
            () = tokio::time::sleep(timeout) => Some(Cut::TimedOut),
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

/// Reads both outputs until the child has ended and they are closed, or a grace after the child's end is over.
async fn read_until_ended(
    pid: u32,
    (stdout_pipe, stdout): (&mut ChildStdout, &mut Output),
    (stderr_pipe, stderr): (&mut ChildStderr, &mut Output),
) {
    let reading = futures::future::join(stdout.read_from(stdout_pipe), stderr.read_from(stderr_pipe)).fuse();
    let mut reading = std::pin::pin!(reading);
    let mut ended = std::pin::pin!(exit::ended(pid));
    let result = tokio::select! {
        result = &mut ended => result,
        _ = &mut reading => ended.await,
    };
    if let Err(error) = result {
        // Without a handle on the process its closed outputs say that it ended; the time-out bounds this.
        tracing::warn!(%error, pid, "cannot watch a command's process");
        if !reading.is_terminated() {
            reading.await;
        }
    } else if !reading.is_terminated() {
        let _ = tokio::time::timeout(OUTPUT_GRACE, reading).await;
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
