//! Nobody survives: not a time-out, not a stop, not the worker's own death; and nobody sees the worker's secrets.
#![cfg(target_os = "linux")]

use std::path::Path;
use std::process::{Child, Command, Stdio};

use taskmaster_openapi::client::WorkerClient;
use taskmaster_openapi::report::{ReportStatus, TaskClaim};
use taskmaster_openapi::task::ErrorCode;
use taskmaster_openapi::worker::{ReleaseCode, SubmitTaskRequest, SubmittedTask};

use crate::coordinator::{Coordinator, JOIN_TOKEN, PATIENCE};
use crate::fixture::{TestWorker, claim, shell, until};

/// A command with a child in its group, and one that has left it and closed its outputs.
fn family(directory: &Path) -> SubmittedTask {
    let directory = directory.display();
    shell(&format!(
        "setsid sh -c 'echo $$ > {directory}/escaped; exec sleep 3600' >/dev/null 2>&1 &
         sh -c 'echo $$ > {directory}/child; exec sleep 3600' &
         echo $$ > {directory}/own
         wait"
    ))
}

/// The processes of [`family`], once all have started.
async fn members(directory: &Path) -> Vec<u32> {
    let read = |name: &&str| std::fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u32>().ok();
    let names = ["own", "child", "escaped"];
    until("the whole family", || names.iter().all(|name| read(name).is_some())).await;
    names.iter().filter_map(read).collect()
}

/// Whether the process runs; a zombie does not.
fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_time_out_kills_the_whole_family() {
    let (coordinator, directory) = (Coordinator::start().await, tempfile::tempdir().unwrap());
    let worker = TestWorker::start(&coordinator).await;
    let mut task = family(directory.path());
    task.timeout_ms = 3_000;
    let held = worker.submit(task).await;
    let members = members(directory.path()).await;
    let outcome = coordinator.outcome(held).await;
    assert_eq!(outcome.error.unwrap().code, ErrorCode::Timeout);
    until("no survivors", || !members.iter().any(|pid| is_alive(*pid))).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_stop_kills_the_whole_family_and_no_other() {
    let coordinator = Coordinator::start().await;
    let (doomed, spared) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let worker = TestWorker::start(&coordinator).await;
    let stopped = worker.submit(family(doomed.path())).await;
    let other = worker.submit(family(spared.path())).await;
    let (doomed, spared) = (members(doomed.path()).await, members(spared.path()).await);
    assert_eq!(worker.release(stopped, true).await, ReleaseCode::Stopping);
    assert_eq!(coordinator.outcome(stopped).await.status, ReportStatus::Cancelled);
    until("no survivors", || !doomed.iter().any(|pid| is_alive(*pid))).await;
    assert!(spared.iter().all(|pid| is_alive(*pid)));
    worker.release(other, true).await;
    coordinator.outcome(other).await;
    until("no survivors", || !spared.iter().any(|pid| is_alive(*pid))).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_command_that_ends_takes_its_group_with_it() {
    let (coordinator, directory) = (Coordinator::start().await, tempfile::tempdir().unwrap());
    let worker = TestWorker::start(&coordinator).await;
    let path = directory.path().join("left");
    let line = format!("sleep 3600 >/dev/null 2>&1 & echo $! > {}", path.display());
    let held = worker.submit(shell(&line)).await;
    assert_eq!(coordinator.outcome(held).await.status, ReportStatus::Complete);
    let left: u32 = std::fs::read_to_string(path).unwrap().trim().parse().unwrap();
    until("nothing left", || !is_alive(left)).await;
    worker.stop().await;
}

/// A worker in a process of its own.
struct Process {
    child: Child,
    id: String,
    address: String,
    push_secret: String,
}

impl Process {
    async fn start(coordinator: &Coordinator) -> Self {
        Self::of(coordinator, Command::new(env!("CARGO_BIN_EXE_taskmaster-worker"))).await
    }

    /// Starts the program that the command names.
    async fn of(coordinator: &Coordinator, mut program: Command) -> Self {
        let child = program
            .args(["--allow-commands", "--coordinator-url", &coordinator.address])
            .env("TASKMASTER_JOIN_TOKEN", JOIN_TOKEN)
            .env("DATABASE_URL", "postgres://user:secret@host/db")
            .env("AWS_SECRET_ACCESS_KEY", "secret")
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (id, address, push_secret) = coordinator
            .until("two heartbeats", |inner| {
                let beat = inner.heartbeats.get(1)?;
                Some((beat.worker_id.clone(), beat.body.address.clone(), beat.body.push_secret.clone()))
            })
            .await;
        Self { child, id, address, push_secret }
    }

    async fn submit(&self, task: SubmittedTask) -> TaskClaim {
        let held = claim(&task);
        let client = WorkerClient::new(taskmaster_service::client::build(PATIENCE).unwrap());
        let request = SubmitTaskRequest { worker_id: self.id.clone(), tasks: vec![task] };
        client.submit_task(&self.address, &self.push_secret, &request).await.unwrap();
        held
    }

    /// The worker's guard: its child that carries the subcommand.
    fn guard(&self) -> u32 {
        let parent = format!("PPid:\t{}\n", self.child.id());
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.find(|pid| {
            let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
            read("status").contains(&parent) && read("cmdline").contains(taskmaster_worker::GUARD_SUBCOMMAND)
        })
        .expect("the worker has a guard")
    }

    fn signal(&self, signal: i32) {
        // SAFETY: a signal to a child that has not been waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn kill_9_of_the_worker_kills_the_families_of_its_commands_and_ends_the_guard() {
    let (coordinator, directory) = (Coordinator::start().await, tempfile::tempdir().unwrap());
    let mut worker = Process::start(&coordinator).await;
    worker.submit(family(directory.path())).await;
    let members = members(directory.path()).await;
    let guard = worker.guard();
    let workspace = std::fs::read_link(format!("/proc/{}/cwd", members[0])).unwrap();
    assert!(workspace.is_dir());
    assert!(members.iter().all(|pid| is_alive(*pid)) && is_alive(guard));
    worker.signal(libc::SIGKILL);
    worker.child.wait().unwrap();
    until("no survivors", || !members.iter().any(|pid| is_alive(*pid))).await;
    until("no guard", || !is_alive(guard)).await;
    assert!(!workspace.parent().unwrap().exists(), "nor is its directory left");
}

#[tokio::test]
async fn a_guard_that_dies_is_replaced_and_the_new_one_knows_what_runs() {
    let (coordinator, directory) = (Coordinator::start().await, tempfile::tempdir().unwrap());
    let mut worker = Process::start(&coordinator).await;
    worker.submit(family(directory.path())).await;
    let members = members(directory.path()).await;
    let first = worker.guard();
    // SAFETY: a signal to a process that this test knows to be its worker's guard.
    unsafe { libc::kill(first as i32, libc::SIGKILL) };
    until("a dead guard", || !is_alive(first)).await;
    let next = worker.submit(shell("true")).await;
    assert_eq!(coordinator.outcome(next).await.status, ReportStatus::Complete);
    assert_ne!(worker.guard(), first);
    worker.signal(libc::SIGKILL);
    worker.child.wait().unwrap();
    until("no survivors", || !members.iter().any(|pid| is_alive(*pid))).await;
}

#[tokio::test]
async fn a_command_sees_its_claim_and_none_of_the_workers_secrets() {
    let coordinator = Coordinator::start().await;
    let worker = Process::start(&coordinator).await;
    let mut task = shell("env");
    task.attempt = 2;
    task.claim = 7;
    let held = worker.submit(task).await;
    let stdout = coordinator.outcome(held).await.result.unwrap().stdout.unwrap();
    for expected in
        [format!("TASKMASTER_TASK_ID={}", held.task_id), "TASKMASTER_CLAIM=7".into(), "TASKMASTER_ATTEMPT=2".into()]
    {
        assert!(stdout.lines().any(|line| line == expected), "{expected} in {stdout}");
    }
    assert!(stdout.lines().any(|line| line.starts_with("PATH=")), "{stdout}");
    assert!(!stdout.to_lowercase().contains("secret") && !stdout.contains("JOIN_TOKEN"), "{stdout}");
}

#[tokio::test]
async fn a_command_cannot_read_the_workers_own_environment_or_memory() {
    let (coordinator, directory) = (Coordinator::start().await, tempfile::tempdir().unwrap());
    // Root reads everything, so then the worker is somebody else, who needs a copy of the program.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let program = directory.path().join("taskmaster-worker");
    std::fs::copy(env!("CARGO_BIN_EXE_taskmaster-worker"), &program).unwrap();
    let mut command = Command::new(program);
    // SAFETY: geteuid takes nothing and cannot fail.
    if unsafe { libc::geteuid() } == 0 {
        std::os::unix::process::CommandExt::uid(&mut command, 65_534);
    }
    let worker = Process::of(&coordinator, command).await;
    let held = worker.submit(shell("cat /proc/$PPID/environ; head -c 1 /proc/$PPID/mem; ulimit -S -c; id -u")).await;
    let result = coordinator.outcome(held).await.result.unwrap();
    let stdout = result.stdout.unwrap();
    assert!(stdout.starts_with("0\n") && !stdout.contains("SECRET"), "{stdout}");
    let stderr = result.stderr.unwrap();
    assert_eq!(stderr.matches("Permission denied").count(), 2, "{stderr}");
}

#[tokio::test]
async fn sigterm_drains_the_process_and_it_exits_with_0() {
    let (coordinator, directory) = (Coordinator::start().await, tempfile::tempdir().unwrap());
    let mut worker = Process::start(&coordinator).await;
    let path = directory.path().join("go-on");
    let line = format!("echo started; while [ ! -e {} ]; do sleep 0.05; done", path.display());
    let running = worker.submit(shell(&line)).await;
    coordinator.started(running).await;
    worker.signal(libc::SIGTERM);
    coordinator.until("a drain", |inner| inner.heartbeats.last()?.body.draining.then_some(())).await;
    std::fs::write(path, "").unwrap();
    let mut status = None;
    until("the process's end", || {
        status = worker.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    assert!(status.unwrap().success());
    assert_eq!(coordinator.inner().outcome(running).unwrap().status, ReportStatus::Complete);
    assert_eq!(coordinator.inner().removed, [worker.id.clone()]);
}
