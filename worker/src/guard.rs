//! The guard: a small process that outlives the worker's own death, kill -9 included, by the time it takes to kill the commands
//! that the worker was running.
//!
//! One guard serves all workers of a process. It is this same program, started again when the first command comes, and connected
//! by a pipe. Each command is named to it before it starts, and taken back when it has ended. When the pipe closes, the worker is
//! gone: the guard kills what is still named, removes the process's own directory for workspaces, and ends. It ignores SIGINT,
//! SIGTERM and SIGHUP, and has a session of its own, so that what stops the worker does not stop the guard first.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::execute::family::{self, Marker};
use crate::execute::workspace;

/// The hidden subcommand by which the program becomes the guard: `main` calls [`guard_main`] when it is the first argument.
pub const GUARD_SUBCOMMAND: &str = "__command-guard";

/// What the guard says when it is ready. Whatever else answers is another program.
const READY: &[u8] = b"taskmaster-guard-1\n";
/// Names the directory to remove at the end, in the guard's environment.
const DIRECTORY_VARIABLE: &str = "TASKMASTER_GUARD_DIRECTORY";
/// How long the guard may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the guard may take to read what it is told.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two tries to write to a pipe that is full.
const WRITE_PAUSE: Duration = Duration::from_millis(1);
/// What a pipe takes before it is full.
const PIPE_BYTES: usize = 64 * 1024;
/// Between two looks of the guard at its pipe, which meanwhile takes what is said of some hundred commands.
const NAP: Duration = Duration::from_millis(20);
/// Scans without a find before the guard believes that nobody is left: a command may be just about to start.
const QUIET_SCANS: usize = 10;

/// The guard of this process, if it has been started, and the commands that it watches.
static GUARD: Mutex<GuardState> = Mutex::new(GuardState { process: None, generation: 0, watched: None });

struct GuardState {
    process: Option<(Child, ChildStdin)>,
    /// Counts the guards that were started, so that one that died is replaced once.
    generation: u64,
    watched: Option<HashMap<Marker, Option<u32>>>,
}

fn state() -> MutexGuard<'static, GuardState> {
    GUARD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the guard is started: a program and its arguments.
#[derive(Debug, Clone)]
pub(crate) struct GuardCommand(Vec<OsString>);

/// A command that the guard watches until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    marker: Marker,
    guard: GuardCommand,
}

impl GuardCommand {
    /// The given command, or this program with [`GUARD_SUBCOMMAND`].
    pub fn new(given: Option<Vec<OsString>>) -> Self {
        let own = || {
            // A program that was replaced while it ran (an update) is still there under this name.
            let program = match cfg!(target_os = "linux") {
                true => OsString::from("/proc/self/exe"),
                false => std::env::current_exe().map(Into::into).unwrap_or_default(),
            };
            vec![program, GUARD_SUBCOMMAND.into()]
        };
        Self(given.unwrap_or_else(own))
    }

    /// Has a command watched, from before it starts. Starts the guard when there is none.
    ///
    /// # Errors
    /// Fails when the guard cannot be started or does not listen; the command must not be started then.
    pub async fn register(&self, marker: Marker) -> io::Result<Registration> {
        let registration = Registration { marker, guard: self.clone() };
        state().watched.get_or_insert_default().insert(marker, None);
        self.tell(&format!("+{marker}\n")).await?;
        Ok(registration)
    }

    /// Writes a line; starts the guard when there is none, and another when it has died or does not listen.
    async fn tell(&self, line: &str) -> io::Result<()> {
        let deadline = tokio::time::Instant::now() + WRITE_TIMEOUT;
        loop {
            let generation = match state().write(line) {
                Ok(()) => return Ok(()),
                Err((_, io::ErrorKind::WouldBlock)) if tokio::time::Instant::now() < deadline => None,
                Err((generation, _)) => Some(generation),
            };
            let Some(generation) = generation else {
                tokio::time::sleep(WRITE_PAUSE).await;
                continue;
            };
            let command = self.clone();
            // The new guard is told of everything that is watched, so also of what the line says.
            let replace = move || state().replace(&command, generation);
            return tokio::task::spawn_blocking(replace).await.map_err(io::Error::other)?;
        }
    }
}

impl Registration {
    /// The command has started, with a process group of its own.
    pub async fn started(&self, group: u32) {
        state().watched.get_or_insert_default().insert(self.marker, Some(group));
        // The marker is known to the guard; without the group it still finds all who have not cleared their environment.
        if let Err(error) = self.guard.tell(&format!("={} {group}\n", self.marker)).await {
            tracing::warn!(%error, "the guard of running commands was not told of a process group");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = state();
        state.watched.get_or_insert_default().remove(&self.marker);
        // If the pipe is full or broken the guard keeps a marker that nobody carries any more: harmless.
        let _ = state.write(&format!("-{}\n", self.marker));
    }
}

impl GuardState {
    /// Writes a line whole or not at all: it is shorter than what pipes take at once (`PIPE_BUF`), and the pipe does not block.
    /// An error names the generation of the guard that did not take it.
    fn write(&mut self, line: &str) -> Result<(), (u64, io::ErrorKind)> {
        match &mut self.process {
            Some((_, pipe)) => pipe.write_all(line.as_bytes()).map_err(|error| (self.generation, error.kind())),
            None => Err((self.generation, io::ErrorKind::NotConnected)),
        }
    }

    /// Starts a guard in the place of the one of that generation, unless another caller just has, and tells it of all that is
    /// watched. Blocks until it is ready.
    fn replace(&mut self, command: &GuardCommand, generation: u64) -> io::Result<()> {
        if self.generation != generation {
            return Ok(());
        }
        if let Some((mut child, _)) = self.process.take() {
            tracing::warn!("the guard of running commands has died; starting another");
            let _ = child.kill();
            let _ = child.wait();
        }
        let (child, mut pipe) = start_process(command)?;
        for (marker, group) in self.watched.iter().flatten() {
            let group = group.map(|group| format!("={marker} {group}\n")).unwrap_or_default();
            pipe.write_all(format!("+{marker}\n{group}").as_bytes())?;
        }
        set_nonblocking(&pipe)?;
        self.generation += 1;
        self.process = Some((child, pipe));
        Ok(())
    }
}

fn start_process(command: &GuardCommand) -> io::Result<(Child, ChildStdin)> {
    let (program, arguments) = command.0.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let mut child = Command::new(program)
        .arg0("taskmaster")
        .args(arguments)
        .env_clear()
        .env(DIRECTORY_VARIABLE, workspace::private())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    match stdin {
        Some(pipe) if stdout.is_some_and(|stdout| says_ready(stdout, START_TIMEOUT)) => Ok((child, pipe)),
        _ => {
            let _ = child.kill();
            let _ = child.wait();
            Err(io::Error::other("the guard process did not start; the program must call guard_main"))
        }
    }
}

/// Whether the process says within the time that it is a guard.
fn says_ready(mut stdout: impl Read + Send + 'static, timeout: Duration) -> bool {
    let (said, heard) = std::sync::mpsc::channel();
    // Ends with the line, with the process's end, or when the process is killed for its silence.
    std::thread::spawn(move || {
        let mut line = [0; READY.len()];
        let _ = said.send(stdout.read_exact(&mut line).is_ok() && line == READY);
    });
    heard.recv_timeout(timeout).unwrap_or(false)
}

fn set_nonblocking(pipe: &ChildStdin) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: fcntl on an open descriptor, with flags it has just returned.
    let result = unsafe {
        let flags = libc::fcntl(pipe.as_raw_fd(), libc::F_GETFL);
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The guard's own main: reads what it is told until the worker is gone, and then kills what the worker has left behind.
/// To be called first thing by a program whose first argument is [`GUARD_SUBCOMMAND`].
pub fn guard_main() -> ExitCode {
    // SAFETY: setsid and signal take integers only. Without a session of its own the guard still works, less protected.
    unsafe {
        libc::setsid();
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
    let mut stdout = io::stdout().lock();
    if stdout.write_all(READY).and_then(|()| stdout.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    let watched = watch(BufReader::with_capacity(PIPE_BYTES, io::stdin().lock()));
    kill_all(&watched);
    if let Some(directory) = std::env::var_os(DIRECTORY_VARIABLE) {
        // Nobody is left to tell when something stays behind.
        let _ = workspace::remove_tree(directory.as_ref());
    }
    ExitCode::SUCCESS
}

/// Reads what is said until the pipe closes, and gives back what was still watched then. Many lines at once: to be woken by each of
/// them would cost the machine more than what they are about.
fn watch(mut said: BufReader<impl Read>) -> HashMap<Marker, Option<u32>> {
    let mut watched = HashMap::new();
    let mut line = String::new();
    while said.read_line(&mut line).is_ok_and(|length| length > 0) {
        take_line(&mut watched, line.trim_end());
        line.clear();
        if said.buffer().is_empty() {
            std::thread::sleep(NAP);
        }
    }
    watched
}

/// `+marker`: a command is about to start; `=marker group`: it has; `-marker`: it has ended.
fn take_line(watched: &mut HashMap<Marker, Option<u32>>, line: &str) {
    let (kind, rest) = line.split_at_checked(1).unwrap_or_default();
    let (marker, group) = rest.split_once(' ').map_or((rest, None), |(marker, group)| (marker, group.parse().ok()));
    let Ok(marker) = marker.parse() else { return };
    match kind {
        "+" => {
            watched.entry(marker).or_insert(None);
        }
        "=" => {
            watched.insert(marker, group);
        }
        "-" => {
            watched.remove(&marker);
        }
        _ => {}
    }
}

fn kill_all(watched: &HashMap<Marker, Option<u32>>) {
    for group in watched.values().flatten() {
        family::kill_group(*group);
    }
    if !watched.is_empty() {
        let markers: HashSet<Marker> = watched.keys().copied().collect();
        family::kill_marked(&markers, QUIET_SCANS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guard_knows_what_runs_from_what_it_is_told() {
        let (a, b) = (format!("{}/1", uuid::Uuid::now_v7()), format!("{}/2", uuid::Uuid::now_v7()));
        let mut watched = HashMap::new();
        for line in [
            format!("+{a}"),
            format!("+{b}"),
            format!("={b} 4711"),
            "nonsense".into(),
            String::new(),
            "ü".into(),
            format!("-{a}"),
        ] {
            take_line(&mut watched, &line);
        }
        assert_eq!(watched, HashMap::from([(b.parse().unwrap(), Some(4711))]));
    }

    #[test]
    fn a_program_that_is_no_guard_is_not_taken_for_one() {
        let silent = GuardCommand(vec!["/bin/sh".into(), "-c".into(), "echo hello hello hello hello".into()]);
        assert!(start_process(&silent).is_err());
        assert!(start_process(&GuardCommand(vec!["/no/such/program".into()])).is_err());
    }
}
