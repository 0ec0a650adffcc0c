//! What becomes of tasks, and what is known of it afterwards.

use std::time::Duration;

use chrono::TimeDelta;
use futures::StreamExt;
use serde_json::json;
use taskmaster_openapi::task::{ErrorCode, TaskStatus};

use crate::support::{Answer, System, Target};

#[tokio::test]
async fn an_http_task_is_called_as_it_was_written_and_its_answer_is_kept() {
    let target = Target::start(|_| Answer::status(201).header("x-answer", "yes").body("välkommen")).await;
    let system = System::builder().start().await;
    let headers = json!({"X-Ask": "why", "Content-Type": "text/plain", "Authorization": "Bearer s3cret"});
    let http = json!({"method": "PUT", "url": target.url("/p?q=1"), "headers": headers, "body": "därför"});
    let task = system.api.run(json!({"http": http})).await;
    assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    assert_eq!(task.http.unwrap().headers["Authorization"], "***");
    let result = task.result.unwrap();
    assert_eq!((result.http_status, result.body.as_deref()), (Some(201), Some("välkommen")));
    assert_eq!(result.headers["x-answer"], "yes");

    let [arrival] = target.of(task.id).try_into().unwrap();
    assert_eq!((arrival.method.as_str(), arrival.path.as_str()), ("PUT", "/p?q=1"));
    assert_eq!(arrival.headers["x-ask"], "why");
    assert_eq!(arrival.headers["content-type"], "text/plain");
    assert_eq!(arrival.headers["authorization"], "Bearer s3cret");
    assert_eq!(arrival.body, "därför".as_bytes());
    assert_eq!(arrival.attempt, Some(1));
}

#[tokio::test]
async fn an_answer_longer_than_what_is_kept_completes_the_task_and_is_marked_as_cut() {
    let target = Target::start(|_| Answer::ok().body("x".repeat(200_000))).await;
    let system = System::builder().start().await;
    let task = system.api.run(target.task()).await;
    assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    let result = task.result.unwrap();
    assert!(result.body_truncated);
    assert_eq!(result.body.unwrap(), "x".repeat(65_536));
}

#[tokio::test]
async fn a_commands_output_and_exit_status_come_back() {
    let system = System::builder().start().await;
    let task = system.api.run(json!({"command": "echo out; echo err >&2"})).await;
    assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    let result = task.result.unwrap();
    assert_eq!(
        (result.exit_code, result.stdout.as_deref(), result.stderr.as_deref()),
        (Some(0), Some("out\n"), Some("err\n"))
    );

    let task = system.api.run(json!({"argv": ["sh", "-c", "exit 7"], "max_attempts": 1})).await;
    assert_eq!(task.status, TaskStatus::Failed, "{task:?}");
    assert_eq!(task.error.unwrap().code, ErrorCode::ExitStatus);
    assert_eq!(task.result.unwrap().exit_code, Some(7));
}

#[tokio::test]
async fn a_failing_task_is_tried_again_after_the_delays_of_its_policy_until_it_succeeds() {
    let target = Target::start(|arrival| Answer::status(if arrival.attempt < Some(3) { 500 } else { 200 })).await;
    let system = System::builder().start().await;
    let delays = [0.6, 1.2];
    let mut task = target.task();
    task["retry"] = json!({"delays_seconds": delays, "jitter": 0.0});
    let task = system.api.run(task).await;
    assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 3), "{task:?}");

    let attempts = system.api.attempts(task.id).await;
    let statuses: Vec<TaskStatus> = attempts.iter().map(|attempt| attempt.status).collect();
    assert_eq!(statuses, [TaskStatus::Failed, TaskStatus::Failed, TaskStatus::Complete]);
    let answers: Vec<Option<u16>> =
        attempts.iter().map(|attempt| attempt.result.as_ref().and_then(|result| result.http_status)).collect();
    assert_eq!(answers, [Some(500), Some(500), Some(200)]);
    let arrivals = target.of(task.id);
    assert_eq!(arrivals.iter().map(|arrival| arrival.attempt).collect::<Vec<_>>(), [Some(1), Some(2), Some(3)]);
    for (n, delay) in delays.iter().enumerate() {
        let gap = arrivals[n + 1].at - arrivals[n].at;
        assert!(gap >= Duration::from_secs_f64(*delay), "attempt {} came after {gap:?}", n + 2);
        let recorded = attempts[n + 1].started_at.unwrap() - attempts[n].ended_at.unwrap();
        assert!(recorded >= TimeDelta::milliseconds((delay * 1000.0) as i64), "recorded as {recorded}");
    }
}

#[tokio::test]
async fn a_target_that_says_when_to_come_back_is_not_called_before() {
    let target = Target::start(|arrival| match arrival.attempt {
        Some(1) => Answer::status(429).header("retry-after", "2"),
        _ => Answer::ok(),
    })
    .await;
    let system = System::builder().start().await;
    let mut task = target.task();
    task["retry"] = json!({"delays_seconds": [0.0], "jitter": 0.0});
    let task = system.api.run(task).await;
    assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 2), "{task:?}");
    let arrivals = target.of(task.id);
    assert!(arrivals[1].at - arrivals[0].at >= Duration::from_secs(2), "{:?}", arrivals[1].at - arrivals[0].at);
}

#[tokio::test]
async fn a_failure_that_is_permanent_is_not_tried_again() {
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/gone" => Answer::status(410),
        _ => Answer::status(500).header("taskmaster-retry", "never"),
    })
    .await;
    let system = System::builder().start().await;
    let call = |path: &str| json!({"http": {"method": "GET", "url": target.url(path)}, "max_attempts": 5});
    for task in [call("/gone"), call("/never"), json!({"command": "exit 65", "max_attempts": 5})] {
        let task = system.api.run(task).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Failed, 1), "{task:?}");
    }
    assert_eq!(target.count(), 2);
}

#[tokio::test]
async fn a_task_whose_attempts_are_used_up_is_failed_and_a_manual_retry_completes_it() {
    let broken = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let answer = broken.clone();
    let target = Target::start(move |_| match answer.load(std::sync::atomic::Ordering::Relaxed) {
        true => Answer::status(503),
        false => Answer::ok(),
    })
    .await;
    let system = System::builder().start().await;
    let mut task = target.task();
    task["max_attempts"] = json!(2);
    task["retry"] = json!({"delays_seconds": [0.0]});
    let task = system.api.run(task).await;
    assert_eq!((task.status, task.attempt), (TaskStatus::Failed, 2), "{task:?}");
    assert!(task.failed_at.is_some());
    assert_eq!(task.error.unwrap().code, ErrorCode::HttpStatus);
    assert_eq!(target.count(), 2);

    broken.store(false, std::sync::atomic::Ordering::Relaxed);
    let again = system.api.retry(task.id).await;
    assert_eq!((again.id, again.status), (task.id, TaskStatus::Queued), "{again:?}");
    let task = system.api.ended(task.id).await;
    assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    assert_eq!(target.of(task.id).len(), 3);
    assert_eq!(system.api.attempts(task.id).await.len(), 3);
    assert_eq!(system.api.list("").await.len(), 1);
}

#[tokio::test]
async fn a_retry_answers_with_the_task_queued_however_soon_a_worker_has_it() {
    let system = System::builder().worker_args(&["--simulate", "0"]).start().await;
    let asked = (0..200).map(async |_| {
        let task = system.api.create(json!({"command": "true", "delay_seconds": 3600})).await;
        system.api.cancel(task.id).await;
        (system.api.retry(task.id).await.status, system.api.ended(task.id).await.status)
    });
    let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(8).collect().await;
    let expected = (TaskStatus::Queued, TaskStatus::Complete);
    assert!(answers.iter().all(|answer| *answer == expected), "{answers:?}");
}

#[tokio::test]
async fn a_task_cancelled_before_its_time_never_arrives() {
    let target = Target::quick().await;
    let system = System::builder().start().await;
    let later = |seconds: f64| {
        let mut task = target.task();
        task["delay_seconds"] = json!(seconds);
        task
    };
    let cancelled = system.api.create(later(1.5)).await;
    let (status, answer) = system.api.cancel(cancelled.id).await;
    assert_eq!((status.as_u16(), answer.status), (200, TaskStatus::Cancelled));
    let (status, _) = system.api.cancel(cancelled.id).await;
    assert_eq!(status.as_u16(), 200, "a cancel may be repeated");
    // Due after the other one would have been, in the same lane.
    let kept = system.api.run(later(2.0)).await;
    assert_eq!(kept.status, TaskStatus::Complete);
    assert_eq!(target.of(cancelled.id).len(), 0);
    assert_eq!(system.api.get(cancelled.id).await.attempt, 0);
}

#[tokio::test]
async fn a_running_http_task_that_is_cancelled_is_broken_off() {
    let target = Target::start(|_| Answer::hang()).await;
    let system = System::builder().start().await;
    let task = system.api.create(target.task()).await;
    target.arrived(1).await;
    let (status, answer) = system.api.cancel(task.id).await;
    // 202, unless the worker has let go before the answer is made.
    let expected = if answer.status == TaskStatus::Cancelled { 200 } else { 202 };
    assert_eq!(status.as_u16(), expected, "{answer:?}");
    assert!(answer.cancel_requested_at.is_some());
    let task = system.api.ended(task.id).await;
    assert_eq!(task.status, TaskStatus::Cancelled, "{task:?}");
    let took = task.cancelled_at.unwrap() - task.cancel_requested_at.unwrap();
    assert!(took < TimeDelta::seconds(10), "{took}");
    crate::support::until("the target is let go", async || (target.in_progress() == 0).then_some(())).await;
    assert_eq!(target.count(), 1);
}

#[tokio::test]
async fn a_worker_that_simulates_takes_its_time_runs_nothing_and_succeeds() {
    let target = Target::quick().await;
    let scratch = crate::support::Scratch::new();
    let touched = scratch.path().join("touched");
    let system = System::builder().worker_args(&["--simulate", "0.7", "--slots", "2"]).start().await;
    let mut events = system.api.events("types=task.started,task.completed").await;
    let command = json!({"command": format!("touch {}", touched.display())});
    let began = std::time::Instant::now();
    let ids = system.api.create_batch(&[target.task(), command, target.task()]).await;
    system.api.all_ended(&ids).await;
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(1_400), "two slots, twice 0.7 s: {took:?}");
    for id in &ids {
        let task = system.api.get(*id).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
    }
    let mut kinds = Vec::new();
    for _ in 0..6 {
        kinds.push(events.next().await.event().event_type.as_str());
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == "task.started").count(), 3, "{kinds:?}");
    assert_eq!(target.count(), 0);
    assert!(!touched.exists());
}
