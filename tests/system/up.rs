//! `taskmaster up`: everything in one process, on a database of its own.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use taskmaster_openapi::task::TaskStatus;

use crate::commands::{Family, gone};
use crate::support::{Answer, Database, Process, Scratch, Target, Up, until};

/// Runs `up` where it cannot start; gives back what it says.
async fn refused(args: &[&str]) -> String {
    let mut up = Process::spawn("up", &[&["up", "--log", "error"], args].concat(), &[]);
    let status = up.ended().await;
    assert_eq!(status.code(), Some(1));
    // The reader of the pipe may be a moment behind the end.
    let line = until("its last words", async || up.log().first().cloned()).await;
    assert_eq!((up.log().len(), up.output().len()), (1, 0), "{:?} {:?}", up.log(), up.output());
    line
}

#[tokio::test]
async fn the_line_that_up_prints_creates_a_task_when_pasted() {
    let scratch = Scratch::new();
    let mut up = Up::start_in(&scratch, &[]).await;
    let line = up
        .process
        .printed("a line to paste", |line| line.trim().starts_with("curl -s ").then(|| line.to_owned()))
        .await;
    let pasted = Command::new("sh").arg("-c").arg(&line).output().unwrap();
    assert!(pasted.status.success(), "{line}: {pasted:?}");
    let task: taskmaster_openapi::task::Task = serde_json::from_slice(&pasted.stdout).unwrap();
    let task = up.api.ended(task.id).await;
    assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    assert_eq!(task.result.unwrap().stdout.as_deref(), Some("hello\n"));
    assert_eq!(up.api.fetch("/docs/").await.status.as_u16(), 200);
}

#[tokio::test]
async fn ctrl_c_lets_running_tasks_finish_and_ends_in_good_order() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(2))).await;
    let scratch = Scratch::new();
    let mut up = Up::start_in(&scratch, &[]).await;
    let running = up.api.create(target.task()).await;
    let mut later = target.task();
    later["delay_seconds"] = json!(3600);
    let later = up.api.create(later).await;
    target.arrived(1).await;
    up.process.signal(libc::SIGINT);
    let status = up.process.ended().await;
    assert!(status.success(), "{status}");

    let up = Up::start_in(&scratch, &[]).await;
    assert_eq!(up.api.get(running.id).await.status, TaskStatus::Complete);
    assert_eq!(up.api.get(later.id).await.status, TaskStatus::Queued);
    assert_eq!(target.count(), 1);
}

#[tokio::test]
async fn up_that_was_killed_starts_again_and_has_lost_no_accepted_task() {
    let target = Target::quick().await;
    let scratch = Scratch::new();
    let mut up = Up::start_in(&scratch, &[]).await;
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let mut task = target.task();
            task["delay_seconds"] = json!(f64::from(n) / 50.0);
            task
        })
        .collect();
    let ids = up.api.create_batch(&tasks).await;
    target.arrived(20).await;
    up.process.kill9();
    let up = Up::start_in(&scratch, &[]).await;
    assert!(up.took < Duration::from_secs(5), "ready after {:?}", up.took);
    up.api.all_ended(&ids).await;
    for id in ids {
        let task = up.api.get(id).await;
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
        assert!(!target.of(id).is_empty());
    }
}

#[tokio::test]
async fn commands_die_with_up_even_when_it_is_killed() {
    let (family, scratch) = (Family::new(), Scratch::new());
    let mut up = Up::start_in(&scratch, &[]).await;
    up.api.create(family.task()).await;
    let pids = family.grown().await;
    up.process.kill9();
    gone(&pids).await;
}

#[tokio::test]
async fn a_second_start_is_ready_within_5_s() {
    let scratch = Scratch::new();
    let mut first = Up::start_in(&scratch, &[]).await;
    let task = first.api.run(json!({"command": "true"})).await;
    first.process.signal(libc::SIGINT);
    assert!(first.process.ended().await.success());
    let second = Up::start_in(&scratch, &[]).await;
    assert!(second.took < Duration::from_secs(5), "ready after {:?}", second.took);
    assert_eq!(second.api.get(task.id).await.status, TaskStatus::Complete);
}

#[tokio::test]
async fn an_up_that_was_busy_stops_without_a_word_of_warning() {
    let scratch = Scratch::new();
    let mut up = Up::start_in(&scratch, &["--simulate", "0"]).await;
    let ids = up.api.create_batch(&vec![json!({"command": "true"}); 2_000]).await;
    up.api.all_ended(&ids).await;
    up.process.signal(libc::SIGINT);
    assert!(up.process.ended().await.success());
    let worried = |line: &&String| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    assert_eq!(up.process.whole_log().await.iter().filter(worried).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[tokio::test]
async fn a_second_up_on_the_same_data_and_one_on_a_taken_port_say_so_in_one_line() {
    let scratch = Scratch::new();
    let up = Up::start_in(&scratch, &[]).await;
    let directory = scratch.data_dir();
    let directory = directory.to_str().unwrap();
    let line = refused(&["--port", "0", "--data-dir", directory]).await;
    assert!(line.starts_with("taskmaster: ") && line.contains(directory) && line.contains("use"), "{line}");
    let port = up.api.url.rsplit_once(':').unwrap().1.to_owned();
    let line = refused(&["--port", &port, "--ephemeral"]).await;
    assert!(line.contains(&format!("127.0.0.1:{port}")) && line.contains("--port"), "{line}");
    assert_eq!(up.api.run(json!({"command": "true"})).await.status, TaskStatus::Complete);
}

#[tokio::test]
async fn a_port_that_another_program_has_is_named_in_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let line = refused(&["--port", &port, "--ephemeral"]).await;
    assert!(line.contains(&port) && line.contains("--port"), "{line}");
}

#[tokio::test]
async fn an_ephemeral_up_leaves_nothing_behind() {
    let scratch = Scratch::new();
    let mut command = crate::support::command_line(&["up", "--port", "0", "--ephemeral"]);
    command.env("TMPDIR", scratch.path()).current_dir(scratch.path());
    let mut up = Process::spawn_command("up", command);
    let url = up
        .printed("the banner", |line| {
            Some(line.trim().strip_prefix("API")?.trim().strip_suffix("/v1/tasks")?.to_owned())
        })
        .await;
    let api = crate::support::Api::new(&url);
    assert_eq!(api.run(json!({"command": "true"})).await.status, TaskStatus::Complete);
    up.signal(libc::SIGINT);
    assert!(up.ended().await.success());
    let left: Vec<_> = scratch.path().read_dir().unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
}

#[tokio::test]
async fn up_runs_on_a_database_that_is_there_already() {
    let (database, scratch) = (Database::empty().await, Scratch::new());
    let up = Up::start_in(&scratch, &["--database-url", &database.url]).await;
    assert_eq!(up.api.run(json!({"command": "true"})).await.status, TaskStatus::Complete);
    assert_eq!(database.number("select count(*) from task_history").await, 1);
    assert!(!scratch.data_dir().join("postgres").exists(), "no server of its own");
}

#[tokio::test]
async fn up_starts_with_as_many_workers_as_wanted() {
    let up = Up::start(&["--ephemeral", "--workers", "3", "--slots", "2"]).await;
    let workers = up.api.workers().await;
    assert_eq!(workers.iter().map(|worker| worker.slots).collect::<Vec<_>>(), [2; 3]);
}

#[tokio::test]
async fn scaling_up_and_down_with_work_in_progress_loses_nothing() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_millis(200))).await;
    let up = Up::start(&["--ephemeral", "--workers", "2", "--slots", "4"]).await;
    let ids = up.api.create_batch(&vec![target.task(); 300]).await;
    target.arrived(10).await;
    let scale = async |workers: i64, previous: i64| {
        let answer = up.api.post("/v1/workers/scale", &json!({"workers": workers})).await.json();
        assert_eq!(answer, json!({"previous": previous, "workers": workers}));
    };
    scale(6, 2).await;
    let there = async |count: usize| {
        until(&format!("{count} workers"), async || (up.api.workers().await.len() == count).then_some(())).await;
    };
    there(6).await;
    target.arrived(100).await;
    scale(1, 6).await;
    there(1).await;
    up.api.all_ended(&ids).await;
    for id in ids {
        let task = up.api.get(id).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
        assert_eq!(target.of(id).len(), 1);
    }
    assert!(target.most_in_progress() > 8, "{}", target.most_in_progress());
}

#[tokio::test]
async fn the_private_server_of_up_that_dies_is_started_again() {
    let scratch = Scratch::new();
    let mut up = Up::start_in(&scratch, &[]).await;
    let pid = up.process.logged("PostgreSQL is ready").await["pid"].as_i64().unwrap();
    let task = up.api.create(json!({"command": "true", "delay_seconds": 2})).await;
    crate::support::signal(i32::try_from(pid).unwrap(), libc::SIGKILL);
    let ended = async || {
        let reply = up.api.try_send(reqwest::Method::GET, &format!("/v1/tasks/{}", task.id), None, &[]).await.ok()?;
        (reply.status == 200 && reply.json()["status"] == "COMPLETE").then_some(())
    };
    until("the task is complete", ended).await;
    assert!(!up.process.has_ended());
}
