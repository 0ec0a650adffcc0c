//! Tasks go to workers that have the labels which the tasks require, and wait for one where there is none.

use serde_json::{Value, json};
use taskmaster_openapi::problem::Problem;
use taskmaster_openapi::schedule::Schedule;
use taskmaster_openapi::task::TaskStatus;

use crate::support::{System, Target, until};

fn requiring(target: &Target, requires: Value) -> Value {
    let mut task = target.task();
    task["requires"] = requires;
    task
}

#[tokio::test]
async fn tasks_go_to_workers_with_the_labels_that_they_require_and_the_others_to_anybody() {
    let target = Target::quick().await;
    let mut system = System::builder().coordinators(2).workers(0).start().await;
    let eu = system.add_worker(&["--labels", "zone=eu"]).await;
    let gpu = system.add_worker(&["--labels", "zone=eu,gpu=a100"]).await;
    let us = system.add_worker(&["--labels", "zone=us"]).await;
    system.workers_listed(3).await;
    let mut tasks = Vec::new();
    for requires in [json!({}), json!({"zone": "eu"}), json!({"zone": "eu", "gpu": "a100"}), json!({"zone": "us"})] {
        tasks.extend(vec![requiring(&target, requires); 25]);
    }
    let ids = system.api.create_batch(&tasks).await;
    system.api.all_ended(&ids).await;
    for task in system.api.list("").await {
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
        let requires: Vec<&str> = task.requires.values().map(String::as_str).collect();
        let may: &[&String] = match requires[..] {
            [] => &[&eu, &gpu, &us],
            ["eu"] => &[&eu, &gpu],
            ["a100", "eu"] => &[&gpu],
            ["us"] => &[&us],
            _ => panic!("{task:?}"),
        };
        assert!(may.contains(&task.worker_id.as_ref().unwrap()), "{task:?}");
    }
    assert!(system.api.stats().await.unserved.is_empty());
}

#[tokio::test]
async fn a_task_waits_for_a_worker_that_can_run_it_and_the_figures_say_so_meanwhile() {
    let target = Target::quick().await;
    let mut system = System::builder().start().await;
    let waiting = system.api.create(requiring(&target, json!({"gpu": "a100"}))).await;
    // What anybody can run does not wait behind it.
    assert_eq!(system.api.run(target.task()).await.status, TaskStatus::Complete);
    let unserved = until("it is among what nobody can run", async || system.api.stats().await.unserved.pop()).await;
    assert_eq!((unserved.queue.as_str(), unserved.commands, unserved.queued), ("default", false, 1));
    assert_eq!(unserved.requires, waiting.requires);
    assert_eq!(system.api.get(waiting.id).await.status, TaskStatus::Queued);

    system.add_worker(&["--labels", "gpu=h100"]).await;
    system.workers_listed(2).await;
    assert_eq!(system.api.get(waiting.id).await.status, TaskStatus::Queued);
    let able = system.add_worker(&["--labels", "gpu=a100,zone=eu"]).await;
    let ran = system.api.ended(waiting.id).await;
    assert_eq!((ran.status, ran.worker_id, ran.requires), (TaskStatus::Complete, Some(able), waiting.requires));
    until("nothing waits", async || system.api.stats().await.unserved.is_empty().then_some(())).await;
}

#[tokio::test]
async fn tasks_of_schedules_and_repeated_ones_require_what_they_did() {
    let target = Target::quick().await;
    let mut system = System::builder().workers(0).start().await;
    let schedule = json!({"every_seconds": 1, "task": requiring(&target, json!({"zone": "eu"}))});
    let schedule: Schedule = system.api.post("/v1/schedules", &schedule).await.expect(201);
    assert_eq!(schedule.task.requires.unwrap()["zone"], "eu");
    let mut cancelled = system.api.create(requiring(&target, json!({"zone": "eu"}))).await;
    system.api.cancel(cancelled.id).await;
    cancelled = system.api.retry(cancelled.id).await;
    assert_eq!(cancelled.requires["zone"], "eu");

    system.add_worker(&["--labels", "zone=us"]).await;
    let eu = system.add_worker(&["--labels", "zone=eu"]).await;
    assert_eq!(system.api.ended(cancelled.id).await.worker_id.as_ref(), Some(&eu));
    let of_it = format!("status=COMPLETE&schedule_id={}", schedule.id);
    let runs = until("two runs", async || {
        let runs = system.api.list(&of_it).await;
        (runs.len() >= 2).then_some(runs)
    });
    assert!(runs.await.iter().all(|run| run.worker_id.as_ref() == Some(&eu)));
}

#[tokio::test]
async fn there_are_as_many_combinations_of_labels_as_there_may_be() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let mut sql = system.database.connect().await;
    let fill = "insert into lanes (queue, kind, requires)
                select 'default', 0, jsonb_build_object('n', i::text) from generate_series(1, 1000) i";
    sqlx::raw_sql(fill).execute(&mut sql).await.unwrap();
    let task = |requires: Value| json!({"http": {"url": "http://127.0.0.1:9/"}, "requires": requires});
    for path in ["/v1/tasks", "/v1/tasks/batch", "/v1/schedules"] {
        let with = |task: Value| match path {
            "/v1/tasks" => task,
            "/v1/tasks/batch" => json!({"tasks": [task]}),
            _ => json!({"every_seconds": 3600, "task": task}),
        };
        let problem: Problem = system.api.post(path, &with(task(json!({"n": "1001"})))).await.expect(422);
        assert_eq!(problem.code.as_str(), "too_many_requirements", "{path}");
        assert_eq!(problem.errors[0].pointer, "/requires");
        // Those that are there can be used, and so can queues without any.
        assert_eq!(system.api.post(path, &with(task(json!({"n": "1000"})))).await.status, 201, "{path}");
        assert_eq!(system.api.post(path, &with(task(json!({})))).await.status, 201, "{path}");
    }
}
