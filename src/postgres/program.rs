//! How PostgreSQL's programs are run: as whom, with which environment, and never outliving this process.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use super::user::ServerUser;

/// A command for `program` that reads nothing of the caller's PostgreSQL settings, language or directory, and gets
/// `death_signal` when the thread that started it ends (on Linux; elsewhere the next start deals with what is left).
pub(super) fn command(program: &Path, user: Option<ServerUser>, death_signal: i32) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_foreign(name)) {
        command.env_remove(name);
    }
    // English messages, which the retries below read; a named time zone spares initdb its search for one.
    command.env("LC_ALL", "C").env("TZ", "UTC");
    // The user may not be allowed into the caller's directory, and PostgreSQL insists on knowing where it is.
    command.current_dir("/").stdin(Stdio::null());
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    let parent = std::process::id();
    // SAFETY: the closure only makes async-signal-safe system calls. It runs after the change of user, which would
    // clear the death signal.
    unsafe { command.pre_exec(move || detach(parent, death_signal)) };
    command
}

fn is_foreign(variable: &OsStr) -> bool {
    let name = variable.as_encoded_bytes();
    name.starts_with(b"PG") || name.starts_with(b"LC_") || name == b"LANG" || name == b"LANGUAGE"
}

/// A session of its own, so that the terminal's Ctrl-C does not reach the child before our own orderly end does.
fn detach(parent: u32, death_signal: i32) -> io::Result<()> {
    // SAFETY: setsid takes nothing; the child has just been forked, so it is no group leader and this succeeds.
    if unsafe { libc::setsid() } == -1 {
        return Err(io::Error::last_os_error());
    }
    #[cfg(target_os = "linux")]
    {
        // SAFETY: a system call on plain numbers.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, death_signal, 0, 0, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: getppid takes nothing and cannot fail.
        if unsafe { libc::getppid() } as u32 != parent {
            // The parent died before the signal was asked for.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (parent, death_signal);
    Ok(())
}

/// Runs a command to its end, which is forced when `patience` is over.
pub(super) async fn output(command: Command, patience: Duration) -> io::Result<Output> {
    let mut command = tokio::process::Command::from(command);
    command.kill_on_drop(true);
    tokio::time::timeout(patience, command.output())
        .await
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, format!("no end after {patience:?}"))))
}

/// What a program complained of, in one line.
pub(super) fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { output.status.to_string() } else { lines.join("; ") }
}

/// Sends a signal; that the process has gone meanwhile is fine.
pub(super) fn send(pid: i32, signal: i32) {
    // SAFETY: a system call on plain numbers. The pids are of single processes, above 1.
    unsafe { libc::kill(pid, signal) };
}
