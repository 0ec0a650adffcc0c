//! The server process: started, waited for, watched and stopped.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::error::{PostgresError, Trying};
use super::home::Home;
use super::locate::Programs;
use super::log::Log;
use super::{program, settings};

/// How long the server may be silent before it is ready. Recovery after a crash says every ten seconds how far it is.
const SILENCE: Duration = Duration::from_secs(60);

/// How long the server may take to be ready in any case.
const READY_PATIENCE: Duration = Duration::from_secs(600);

/// How long a start is repeated for a reason that passes.
const RETRY_PATIENCE: Duration = Duration::from_secs(10);

/// Between two repetitions.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What the log says when somebody else took the port a moment ago, or when the last processes of a server that was
/// killed have not ended yet.
const PASSING_REASONS: [&str; 2] = ["could not create any TCP/IP sockets", "is still in use"];

/// Between two looks at whether the server is ready.
const POLL: Duration = Duration::from_millis(20);

/// How long `postgres -C` may take.
const QUESTION_PATIENCE: Duration = Duration::from_secs(10);

/// PostgreSQL's fast shutdown writes out what is cached; its immediate one leaves that to the next start's recovery.
const ENDINGS: [(i32, Duration); 3] = [
    (libc::SIGINT, Duration::from_secs(20)),
    (libc::SIGQUIT, Duration::from_secs(10)),
    (libc::SIGKILL, Duration::from_secs(10)),
];

/// A running server. When dropped, the server is asked to stop.
#[derive(Debug)]
pub(super) struct Server {
    pid: i32,
    /// How it ended, once it has.
    ended: watch::Receiver<Option<String>>,
}

impl Server {
    /// Starts the server of `home` and waits until it is ready. `stale_pid` is what an old lock file names.
    pub async fn launch(
        home: &Arc<Home>,
        programs: &Programs,
        stale_pid: Option<i32>,
    ) -> Result<(Self, u16), PostgresError> {
        let settings = settings::arguments(has_lz4(home, programs).await);
        let began = Instant::now();
        loop {
            let port = home.port()?;
            let log = Log::open(&home.log())?;
            let command = server_command(home, programs, port, &settings, stale_pid, &log)?;
            let mut server = Self::spawn(command, Arc::clone(home)).await?;
            let Err(reason) = server.until_ready(&home.data(), &log).await else {
                return Ok((server, port));
            };
            server.stop().await;
            let tail = log.tail();
            let passes = PASSING_REASONS.iter().any(|passing| tail.contains(passing));
            if !passes || began.elapsed() > RETRY_PATIENCE {
                return Err(PostgresError::NotStarted { reason, log: log.path().to_owned(), tail });
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Runs the server under a thread of its own, which lives exactly as long: the kernel ends the server when the
    /// thread that started it ends, and the runtime's threads come and go. The thread keeps `home` locked meanwhile.
    async fn spawn(mut command: Command, home: Arc<Home>) -> Result<Self, PostgresError> {
        let program = Path::new(command.get_program()).to_owned();
        let (tell_pid, pid) = oneshot::channel();
        let (tell_end, ended) = watch::channel(None);
        let hold = move || {
            let spawned = command.spawn();
            drop(command);
            match spawned {
                Err(error) => drop(tell_pid.send(Err(error))),
                Ok(child) => {
                    let end = hold(child, tell_pid);
                    // Unlocked before the end is known, so that who waits for the end can start the next.
                    drop(home);
                    let _ = tell_end.send(Some(end));
                }
            }
        };
        std::thread::Builder::new().name("postgres".to_owned()).spawn(hold).trying("start", &program)?;
        let pid = pid.await.unwrap_or_else(|_| Err(std::io::ErrorKind::BrokenPipe.into())).trying("start", &program)?;
        Ok(Self { pid, ended })
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits for the server's end, and says how it was.
    pub fn ended(&self) -> impl Future<Output = String> + Send + 'static + use<> {
        let mut ended = self.ended.clone();
        async move {
            match ended.wait_for(Option::is_some).await {
                Ok(end) => end.clone().unwrap_or_default(),
                Err(_) => "ended".to_owned(),
            }
        }
    }

    /// Stops the server, the hard way if it takes too long.
    pub async fn stop(&mut self) {
        for (signal, patience) in ENDINGS {
            if self.has_ended() {
                return;
            }
            program::send(self.pid, signal);
            if tokio::time::timeout(patience, self.ended()).await.is_ok() {
                return;
            }
            tracing::warn!(pid = self.pid, "PostgreSQL does not stop in {patience:?}; insisting");
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.borrow().is_some()
    }

    /// Waits until the server accepts connections, or says in a few words why it does not.
    async fn until_ready(&mut self, data: &Path, log: &Log) -> Result<(), String> {
        let began = Instant::now();
        let (mut heard, mut length) = (began, log.len());
        while !says_ready(data, self.pid) {
            if began.elapsed() > READY_PATIENCE || heard.elapsed() > SILENCE {
                return Err(format!("it was not ready after {} s", began.elapsed().as_secs()));
            }
            if let Ok(end) = tokio::time::timeout(POLL, self.ended()).await {
                return Err(format!("the server ended with {end}"));
            }
            if log.len() != length {
                (heard, length) = (Instant::now(), log.len());
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.has_ended() {
            program::send(self.pid, libc::SIGINT);
        }
    }
}

/// Tells the child's process id, and waits for its end.
fn hold(mut child: Child, tell_pid: oneshot::Sender<std::io::Result<i32>>) -> String {
    let pid = child.id() as i32;
    if tell_pid.send(Ok(pid)).is_err() {
        // Whoever wanted it has given up.
        program::send(pid, libc::SIGINT);
    }
    child.wait().map_or_else(|error| error.to_string(), |status| status.to_string())
}

/// Whether the lock file is this server's, and its last line says that connections are accepted.
fn says_ready(data: &Path, pid: i32) -> bool {
    let Ok(text) = fs::read_to_string(data.join("postmaster.pid")) else { return false };
    let mut lines = text.lines();
    lines.next().and_then(|first| first.trim().parse().ok()) == Some(pid)
        && lines.nth(6).is_some_and(|status| status.trim() == "ready")
}

fn server_command(
    home: &Home,
    programs: &Programs,
    port: u16,
    settings: &[String],
    stale_pid: Option<i32>,
    log: &Log,
) -> Result<Command, PostgresError> {
    // On our own death, kill -9 included: a fast shutdown.
    let mut command = program::command(&programs.postgres(), home.user, libc::SIGINT);
    command.arg("-D").arg(home.data()).arg("-p").arg(port.to_string());
    let quoted = home.socket_dir.to_string_lossy().replace('"', "\"\"");
    command.arg("-c").arg(format!("unix_socket_directories=\"{quoted}\""));
    for setting in settings {
        command.arg("-c").arg(setting);
    }
    if let Some(pid) = stale_pid {
        // PostgreSQL takes a lock file that names its grandparent for stale, and no other while that process lives. The
        // file must not simply be removed: it leads to the shared memory of backends that outlived their server.
        command.env("PG_GRANDPARENT_PID", pid.to_string());
    }
    command.stdout(log.writer()?).stderr(log.writer()?);
    Ok(command)
}

/// Whether the server can compress its log with lz4, which costs much less than its own method.
async fn has_lz4(home: &Home, programs: &Programs) -> bool {
    let mut command = program::command(&programs.postgres(), home.user, libc::SIGKILL);
    command.args(["-C", "wal_compression", "-c", "wal_compression=lz4", "-D"]).arg(home.data());
    program::output(command, QUESTION_PATIENCE).await.is_ok_and(|output| output.status.success())
}
