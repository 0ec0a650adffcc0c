//! The server of an `up` that was killed: stopped if it still runs, seen through if it does not.

use std::path::Path;
use std::time::{Duration, Instant};

use super::error::PostgresError;
use super::program;

/// How long a leftover server may take for an orderly end, and then for an immediate one.
const ENDINGS: [(i32, Duration); 2] =
    [(libc::SIGINT, Duration::from_secs(10)), (libc::SIGQUIT, Duration::from_secs(10))];

const POLL: Duration = Duration::from_millis(20);

/// Stops the server that still runs on `data`, if any. Answers with the process id in a lock file that is left: it may
/// be that of another program by now.
pub(super) async fn stop(data: &Path) -> Result<Option<i32>, PostgresError> {
    let Some(pid) = noted_pid(data) else { return Ok(None) };
    for (signal, patience) in ENDINGS {
        if !is_server(pid, data) {
            return Ok(noted_pid(data));
        }
        tracing::info!(pid, "stopping a PostgreSQL server that an earlier run left behind");
        program::send(pid, signal);
        let asked = Instant::now();
        while is_server(pid, data) && asked.elapsed() < patience {
            tokio::time::sleep(POLL).await;
        }
    }
    if is_server(pid, data) {
        return Err(PostgresError::LeftoverRuns { data: data.to_owned(), pid });
    }
    Ok(noted_pid(data))
}

/// Whether a server runs on `data`.
pub(super) fn runs(data: &Path) -> bool {
    noted_pid(data).is_some_and(|pid| is_server(pid, data))
}

/// The first line of `postmaster.pid`.
fn noted_pid(data: &Path) -> Option<i32> {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
    text.lines().next()?.trim().parse().ok().filter(|pid| *pid > 1)
}

/// Whether the process is a PostgreSQL server that was started on `data`: process ids are used again.
fn is_server(pid: i32, data: &Path) -> bool {
    command_line(pid).is_some_and(|line| {
        let named = line.split(ARGUMENT_END).next().unwrap_or_default();
        let program = Path::new(named).file_name().unwrap_or_default();
        (program == "postgres" || program == "postmaster") && line.contains(&*data.to_string_lossy())
    })
}

#[cfg(target_os = "linux")]
const ARGUMENT_END: char = '\0';
#[cfg(not(target_os = "linux"))]
const ARGUMENT_END: char = ' ';

/// A process's program and arguments; none for one that has ended.
#[cfg(target_os = "linux")]
fn command_line(pid: i32) -> Option<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    Some(String::from_utf8_lossy(&line).into_owned())
}

/// A process's program and arguments; none for one that has ended.
#[cfg(not(target_os = "linux"))]
fn command_line(pid: i32) -> Option<String> {
    let output = std::process::Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}
