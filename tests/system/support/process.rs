//! The program as a process: started, watched, signalled, ended.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::{until, until_within};

/// Longer than anything takes that is not about time, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Log lines shown when a test panics.
const LINES_SHOWN: usize = 40;

/// The program with these arguments and with no setting from this process's environment.
pub fn command_line(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taskmaster"));
    command.args(arguments).env_clear();
    for name in ["PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME", "LANG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

type Lines = Arc<Mutex<Vec<String>>>;

/// A process of the program. Killed when dropped.
pub struct Process {
    pub name: String,
    child: Child,
    stdout: Lines,
    stderr: Lines,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts the program with a log of JSON lines.
    pub fn spawn(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = command_line(arguments);
        command.env("TASKMASTER_LOG_FORMAT", "json").envs(environment.iter().copied());
        Self::spawn_command(name, command)
    }

    /// Starts any command.
    pub fn spawn_command(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: prctl is safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().expect("the program starts");
        let stdout = read_lines(child.stdout.take().expect("stdout"));
        let stderr = read_lines(child.stderr.take().expect("stderr"));
        Self { name: name.to_owned(), child, stdout, stderr, status: None }
    }

    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// What was written to standard error so far.
    pub fn log(&self) -> Vec<String> {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All that was written to standard error, once nobody can write any more.
    pub async fn whole_log(&self) -> Vec<String> {
        let what = format!("the end of what {} says", self.name);
        // Who reads it lets go of it then.
        until(&what, async || (Arc::strong_count(&self.stderr) == 1).then(|| self.log())).await
    }

    /// What was written to standard output so far.
    pub fn output(&self) -> Vec<String> {
        self.stdout.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a log line with this message; gives back the line's fields.
    pub async fn logged(&mut self, message: &str) -> Value {
        let find = |lines: Vec<String>| {
            let lines = lines.into_iter().filter_map(|line| serde_json::from_str::<Value>(&line).ok());
            lines.into_iter().find(|line| line["message"] == message)
        };
        self.find(&format!("log line {message:?}"), |process| find(process.log())).await
    }

    /// Waits for a line of standard output for which `find` has an answer.
    pub async fn printed<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        self.find(what, |process| process.output().iter().find_map(|line| find(line))).await
    }

    async fn find<T>(&mut self, what: &str, find: impl Fn(&Self) -> Option<T>) -> T {
        let what = format!("{} of {}", what, self.name);
        until(&what, async || {
            let ended = self.has_ended();
            let found = find(self);
            assert!(found.is_some() || !ended, "{what}: it has ended with {:?}", self.status);
            found
        })
        .await
    }

    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("a child of ours");
        }
        self.status.is_some()
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE).await
    }

    /// Waits for its end, so long.
    pub async fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        until_within(limit, &what, async || {
            self.has_ended();
            self.status
        })
        .await
    }

    /// Sends a signal.
    pub fn signal(&mut self, number: i32) {
        assert!(!self.has_ended(), "{} has ended already: {:?}", self.name, self.status);
        signal(self.pid(), number);
    }

    /// Kills it, and waits until it is gone.
    pub fn kill9(&mut self) {
        self.signal(libc::SIGKILL);
        let status = self.child.wait().expect("a child of ours");
        assert_eq!(status.signal(), Some(libc::SIGKILL), "{}", self.name);
        self.status = Some(status);
    }

    /// Asks it to stop, and waits until it has, in good order.
    pub async fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
        let status = self.ended().await;
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Stops it in its tracks: it keeps its connections, and does nothing.
    pub fn pause(&mut self) {
        self.signal(libc::SIGSTOP);
    }

    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (log, output) = (self.log(), self.output());
            let shown = |lines: &[String]| lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
            eprintln!("---- {} ({:?})\n{}\n{}", self.name, self.status, shown(&output), shown(&log));
        }
        if !self.has_ended() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn read_lines(stream: impl Read + Send + 'static) -> Lines {
    let lines = Lines::default();
    let kept = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    lines
}

pub fn signal(pid: i32, number: i32) {
    // SAFETY: a system call on plain numbers.
    assert_eq!(unsafe { libc::kill(pid, number) }, 0, "signal {number} to {pid}");
}

/// Whether a process is there and has not ended.
pub fn is_alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

/// The living processes whose command line contains the text.
pub fn family_of(text: &str) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let contains = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() as i32 && String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    };
    pids.filter(contains).filter(|pid| is_alive(*pid)).collect()
}
