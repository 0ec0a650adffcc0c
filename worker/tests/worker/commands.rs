//! Commands: what they get, what is kept of them, and how their ends are told.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use taskmaster_openapi::limits::OUTPUT_BYTES_MAX;
use taskmaster_openapi::report::{ReportStatus, StatusReport};
use taskmaster_openapi::task::{ErrorCode, TaskResult};
use taskmaster_openapi::worker::SubmittedTask;
use taskmaster_service::Health;
use taskmaster_worker::{Config, Worker};

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

/// Runs one task on a worker with these settings.
async fn run_with(settings: impl FnOnce(Config) -> Config, task: SubmittedTask) -> StatusReport {
    let coordinator = Coordinator::start().await;
    let worker = TestWorker::with(&coordinator, settings(config(&coordinator))).await;
    let claim = worker.submit(task).await;
    let outcome = coordinator.outcome(claim).await;
    worker.stop().await;
    outcome
}

#[tokio::test]
async fn a_command_has_no_input_and_a_directory_of_its_own_that_is_gone_afterwards() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().canonicalize().unwrap();
    let settings = |config| Config { command_directory: Some(base.clone()), ..config };
    let task =
        shell(r#"cat; ls -A; pwd -P; stat -c %a .; [ "$TMPDIR" -ef . ] && mkdir -p a/b && echo x > a/b/c; echo $?"#);
    let expected = format!("{}\n700\n0\n", base.join(format!("{}-{}", task.task_id, task.claim)).display());
    assert_eq!(run_with(settings, task).await.result.unwrap().stdout.unwrap(), expected);
    let mut late = shell("echo x > file; exec sleep 3600");
    late.timeout_ms = 500;
    assert_eq!(failure(&run_with(settings, late).await), (ErrorCode::Timeout, false));
    assert_eq!(base.read_dir().unwrap().count(), 0);
}

#[tokio::test]
async fn without_a_chosen_directory_it_is_a_private_one_of_the_workers() {
    let path = run(shell("pwd -P; stat -c %a ..")).await.result.unwrap().stdout.unwrap();
    let (path, mode) = path.trim_end().split_once('\n').unwrap();
    let path = std::path::Path::new(path);
    assert!(path.starts_with(std::env::temp_dir().canonicalize().unwrap()) && mode == "700", "{path:?} {mode}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_worker_with_a_list_of_programs_runs_those_alone_and_refuses_the_rest_for_good() {
    let listed = |config| Config { allow_programs: vec!["printf".into(), "/bin/cat".into()], ..config };
    let outcome = run_with(listed, argv(&["printf", "%s", "$(id)"])).await;
    assert_eq!(outcome.result.unwrap().stdout.unwrap(), "$(id)");
    assert_eq!(run_with(listed, argv(&["/bin/cat", "/dev/null"])).await.status, ReportStatus::Complete);
    for refused in
        [shell("printf x"), argv(&["cat", "/etc/passwd"]), argv(&["/bin/sh", "-c", "id"]), argv(&["./printf"])]
    {
        let outcome = run_with(listed, refused).await;
        assert_eq!(failure(&outcome), (ErrorCode::Unsupported, true));
        assert!(outcome.error.unwrap().message.contains("--allow-programs"));
    }
}

#[tokio::test]
async fn a_setting_that_names_what_is_not_there_is_refused_at_the_start() {
    let coordinator = Coordinator::start().await;
    let settings = config(&coordinator);
    for (config, flag) in [
        (Config { allow_programs: vec!["no-such-program".into()], ..settings.clone() }, "--allow-programs"),
        (Config { command_directory: Some("/no/such/directory".into()), ..settings }, "--command-directory"),
    ] {
        let error = Worker::bind(config, Health::new()).await.unwrap_err().to_string();
        assert!(error.starts_with(flag), "{error}");
    }
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_asked_to_end_and_its_last_words_are_kept() {
    // The shell ends at once, and what it started a moment later.
    let mut task =
        shell("sh -c 'trap \"sleep 0.3; echo saved; exit 0\" TERM; echo ready; while :; do sleep 0.05; done'; true");
    task.timeout_ms = 1_000;
    let outcome = run_with(|config| Config { kill_grace_seconds: Duration::from_secs(5), ..config }, task).await;
    assert_eq!(failure(&outcome), (ErrorCode::Timeout, false));
    assert_eq!(outcome.result.unwrap().stdout.unwrap(), "ready\nsaved\n");
    let took_ms = outcome.started_ms_ago.unwrap() - outcome.ended_ms_ago.unwrap();
    assert!(took_ms < 5_000, "nobody waits for a grace that is not used: {took_ms} ms");
}

#[tokio::test]
async fn a_command_that_does_not_hear_is_killed_after_the_grace() {
    for grace in [Duration::ZERO, Duration::from_millis(500)] {
        let mut task = shell("trap '' TERM; echo deaf; while :; do sleep 0.05; done");
        task.timeout_ms = 1_000;
        let outcome = run_with(|config| Config { kill_grace_seconds: grace, ..config }, task).await;
        assert_eq!(failure(&outcome), (ErrorCode::Timeout, false));
        assert_eq!(outcome.result.as_ref().unwrap().signal, Some(9));
        let took_ms = outcome.started_ms_ago.unwrap() - outcome.ended_ms_ago.unwrap();
        assert!(took_ms >= 1_000 + grace.as_millis() as u64, "{took_ms} ms");
    }
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
