//! Commands end whole: with every process they started, however they end.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use serde_json::{Value, json};
use taskmaster_openapi::task::{ErrorCode, TaskStatus};

use crate::support::{Scratch, System, is_alive, until};

/// A command with a child, a grandchild in a session of its own, and itself, all of which would sleep for minutes.
pub struct Family {
    scratch: Scratch,
}

impl Family {
    pub fn new() -> Self {
        Self { scratch: Scratch::new() }
    }

    fn file(&self) -> PathBuf {
        self.scratch.path().join("pids")
    }

    pub fn task(&self) -> Value {
        let file = self.file();
        let file = file.display();
        let command = format!(
            "sleep 300 & echo $! >> {file}; (setsid sh -c 'echo $$ >> {file}; exec sleep 300' &); echo $$ >> {file}; wait"
        );
        json!({"command": command, "max_attempts": 1})
    }

    /// Waits until all of them run.
    pub async fn grown(&self) -> Vec<i32> {
        let read = async || {
            let text = std::fs::read_to_string(self.file()).unwrap_or_default();
            let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
            (pids.len() == 3 && text.ends_with('\n')).then_some(pids)
        };
        let pids = until("a command and its children run", read).await;
        assert!(pids.iter().all(|pid| is_alive(*pid)), "{pids:?}");
        pids
    }
}

/// Waits until none of them is left.
pub async fn gone(pids: &[i32]) {
    until("a command and its children are gone", async || (!pids.iter().any(|pid| is_alive(*pid))).then_some(())).await;
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_all_its_children() {
    let (family, system) = (Family::new(), System::builder().start().await);
    let mut task = family.task();
    task["timeout_seconds"] = json!(2);
    let began = Instant::now();
    let created = system.api.create(task).await;
    let pids = family.grown().await;
    let task = system.api.ended(created.id).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(task.status, TaskStatus::Failed, "{task:?}");
    assert_eq!(task.error.unwrap().code, ErrorCode::Timeout);
    gone(&pids).await;
}

#[tokio::test]
async fn a_command_that_is_cancelled_is_ended_with_all_its_children() {
    let (family, system) = (Family::new(), System::builder().start().await);
    let created = system.api.create(family.task()).await;
    let pids = family.grown().await;
    system.api.wait_until(created.id, TaskStatus::Started).await;
    let (status, answer) = system.api.cancel(created.id).await;
    // 202, unless the worker has let go before the answer is made.
    let expected = if answer.status == TaskStatus::Cancelled { 200 } else { 202 };
    assert_eq!(status.as_u16(), expected, "{answer:?}");
    let task = system.api.ended(created.id).await;
    assert_eq!(task.status, TaskStatus::Cancelled, "{task:?}");
    let took = task.cancelled_at.unwrap() - task.cancel_requested_at.unwrap();
    assert!(took < TimeDelta::seconds(10), "{took}");
    gone(&pids).await;
}

#[tokio::test]
async fn commands_die_with_their_worker_even_when_it_is_killed() {
    let (family, mut system) = (Family::new(), System::builder().start().await);
    system.api.create(family.task()).await;
    let pids = family.grown().await;
    system.workers[0].kill9();
    gone(&pids).await;
}
