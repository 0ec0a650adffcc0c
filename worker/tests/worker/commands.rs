//! Commands: what they get, what is kept of them, and how their ends are told.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use taskmaster_openapi::limits::OUTPUT_BYTES_MAX;
use taskmaster_openapi::report::{ReportStatus, StatusReport};
use taskmaster_openapi::task::{ErrorCode, TaskResult};
use taskmaster_openapi::worker::SubmittedTask;
use taskmaster_worker::Config;

use crate::coordinator::Coordinator;
use crate::fixture::{TestWorker, argv, config, shell};

/// Runs one task on a worker of its own.
async fn run(task: SubmittedTask) -> StatusReport {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::start(&coordinator).await;
    let claim = worker.submit(task).await;
    let outcome = coordinator.outcome(claim).await;
    worker.stop().await;
    outcome
}

fn failure(outcome: &StatusReport) -> (ErrorCode, bool) {
    assert_eq!(outcome.status, ReportStatus::Failed, "{outcome:?}");
    (outcome.error.as_ref().unwrap().code, outcome.permanent)
}

#[tokio::test]
async fn a_shell_line_gives_back_its_exit_and_both_outputs() {
    let outcome = run(shell("echo out; echo grüße >&2")).await;
    assert_eq!(outcome.status, ReportStatus::Complete);
    let expected = TaskResult {
        exit_code: Some(0),
        stdout: Some("out\n".into()),
        stderr: Some("grüße\n".into()),
        ..TaskResult::default()
    };
    assert_eq!(outcome.result, Some(expected));
}

#[tokio::test]
async fn a_program_gets_its_arguments_as_they_are() {
    let outcome = run(argv(&["printf", "%s|", "a b", "$HOME", "; exit 1", ""])).await;
    assert_eq!(outcome.result.unwrap().stdout.unwrap(), "a b|$HOME|; exit 1||");
}

#[tokio::test]
async fn an_exit_status_other_than_0_fails_and_65_fails_for_good() {
    let outcome = run(shell("echo why >&2; exit 3")).await;
    assert_eq!(failure(&outcome), (ErrorCode::ExitStatus, false));
    let result = outcome.result.unwrap();
    assert_eq!((result.exit_code, result.stderr.as_deref()), (Some(3), Some("why\n")));
    assert_eq!(failure(&run(shell("exit 65")).await), (ErrorCode::ExitStatus, true));
}

#[tokio::test]
async fn a_signal_fails_with_its_number() {
    let outcome = run(shell("kill -TERM $$")).await;
    assert_eq!(failure(&outcome), (ErrorCode::Signal, false));
    assert_eq!(outcome.result.unwrap().signal, Some(15));
}

#[tokio::test]
async fn a_program_that_is_not_there_cannot_be_spawned() {
    let outcome = run(argv(&["/no/such/program"])).await;
    assert_eq!(failure(&outcome), (ErrorCode::Spawn, false));
    assert_eq!(failure(&run(argv(&["a\0b"])).await).0, ErrorCode::Spawn);
}

#[tokio::test]
async fn output_beyond_the_limit_is_read_and_dropped_and_marked() {
    let outcome = run(shell("head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2")).await;
    assert_eq!(outcome.status, ReportStatus::Complete);
    let result = outcome.result.unwrap();
    assert_eq!(result.stdout.unwrap(), "x".repeat(OUTPUT_BYTES_MAX));
    assert!(result.stdout_truncated && !result.stderr_truncated);
    assert_eq!(result.stderr.unwrap(), "end\n");
}

#[tokio::test]
async fn output_that_is_not_utf8_comes_as_base64() {
    let result = run(shell(r"printf '\377\376'; printf 'a\0b' >&2")).await.result.unwrap();
    assert_eq!((result.stdout, result.stderr), (None, None));
    assert_eq!(BASE64_STANDARD.decode(result.stdout_base64.unwrap()).unwrap(), [0xff, 0xfe]);
    assert_eq!(BASE64_STANDARD.decode(result.stderr_base64.unwrap()).unwrap(), b"a\0b");
}

#[tokio::test]
async fn a_command_has_no_input_and_starts_in_the_chosen_directory() {
    let directory = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start().await;
    let settings = Config { command_directory: Some(directory.path().into()), ..config(&coordinator) };
    let worker = TestWorker::with(&coordinator, settings).await;
    let claim = worker.submit(shell("cat; pwd -P")).await;
    let stdout = coordinator.outcome(claim).await.result.unwrap().stdout.unwrap();
    assert_eq!(stdout.trim_end(), directory.path().canonicalize().unwrap().to_str().unwrap());
    worker.stop().await;
}

#[tokio::test]
async fn an_attempt_ends_with_its_own_process_not_with_what_it_left_in_the_background() {
    let began = Instant::now();
    let outcome = run(shell("sleep 3600 & echo done")).await;
    assert_eq!((outcome.status, outcome.result.unwrap().stdout.unwrap().as_str()), (ReportStatus::Complete, "done\n"));
    assert!(began.elapsed() < Duration::from_secs(600));
}

#[tokio::test]
async fn a_time_out_keeps_what_was_said_so_far() {
    let mut task = shell("echo so far; exec sleep 3600");
    task.timeout_ms = 1_000;
    let outcome = run(task).await;
    assert_eq!(failure(&outcome), (ErrorCode::Timeout, false));
    assert!(outcome.error.unwrap().message.contains("1 seconds"));
    assert_eq!(outcome.result.unwrap().stdout.unwrap(), "so far\n");
    assert!(outcome.started_ms_ago.unwrap() - outcome.ended_ms_ago.unwrap() >= 1_000);
}

#[tokio::test]
async fn fifty_commands_in_five_slots_each_give_back_their_own_output() {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::start(&coordinator).await;
    let tasks: Vec<_> = (0..50).map(|number| shell(&format!("echo {number}"))).collect();
    let claims: Vec<_> = tasks.iter().map(crate::fixture::claim).collect();
    worker.submit_all(tasks).await;
    for (number, claim) in claims.into_iter().enumerate() {
        let outcome = coordinator.outcome(claim).await;
        assert_eq!(outcome.result.unwrap().stdout.unwrap(), format!("{number}\n"));
    }
    worker.stop().await;
}
