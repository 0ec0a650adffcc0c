//! Lists: live and finished tasks are one collection, page by page, under every filter.

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::gateway::TaskList;
use taskmaster_openapi::task::{Task, TaskStatus};

use crate::support::{Api, System};

/// Whether a filter lets a task through.
type Passes<'a> = &'a dyn Fn(&Task) -> bool;

/// Follows the `Link` headers from the first page of so many on; checks that tokens and links agree.
async fn walk(api: &Api, query: &str, page_size: usize) -> Vec<Task> {
    let (mut tasks, mut path) = (Vec::new(), format!("/v1/tasks?page_size={page_size}&{query}"));
    for _ in 0..1_000 {
        let reply = api.fetch(&path).await;
        let page: TaskList = reply.expect(200);
        assert!(page.tasks.len() <= page_size, "{path}");
        tasks.extend(page.tasks);
        let link =
            reply.header("link").map(|link| link.strip_prefix('<').unwrap().strip_suffix(">; rel=\"next\"").unwrap());
        assert_eq!(link.is_some(), !page.next_page_token.is_empty(), "{path}");
        let Some(link) = link else { return tasks };
        assert!(link.contains(&page.next_page_token), "{link}");
        link.clone_into(&mut path);
    }
    panic!("{query} has no end");
}

#[tokio::test]
async fn pages_of_live_and_finished_tasks_are_one_collection_under_every_filter() {
    let system = System::builder().start().await;
    let api = &system.api;
    let (commands, queues) = (["true", "false"], ["default", "q-1"]);
    let tasks: Vec<Value> = (0..60)
        .map(|i| {
            let mut task = json!({"command": commands[i % 2], "max_attempts": 1, "queue": queues[i / 2 % 2]});
            task["tags"] = json!(["all", format!("t{}", i % 7), "&=ä"]);
            if i % 3 == 0 {
                task["delay_seconds"] = json!(3600);
            }
            task
        })
        .collect();
    let ids = api.create_batch(&tasks).await;
    let now: Vec<_> = ids.iter().enumerate().filter(|(i, _)| i % 3 != 0).map(|(_, id)| *id).collect();
    api.all_ended(&now).await;
    for id in ids.iter().step_by(6) {
        api.cancel(*id).await;
    }
    let mut all = api.list("").await;
    assert_eq!(all.len(), ids.len());
    assert!(all.is_sorted_by(|newer, older| newer.id > older.id), "newest first");
    // Tasks of one batch were created at one time.
    let later = api.create(tasks[0].clone()).await;
    all.insert(0, later.clone());
    let worker_id = all.iter().find_map(|task| task.worker_id.clone()).unwrap();

    let at = later.created_at.to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let filters: [(String, Passes); 10] = [
        (String::new(), &|_| true),
        ("status=QUEUED".into(), &|task| task.status == TaskStatus::Queued),
        ("status=COMPLETE".into(), &|task| task.status == TaskStatus::Complete),
        ("status=FAILED".into(), &|task| task.status == TaskStatus::Failed),
        ("status=CANCELLED&queue=q-1".into(), &|task| task.status == TaskStatus::Cancelled && task.queue == "q-1"),
        ("queue=q-1".into(), &|task| task.queue == "q-1"),
        ("tag=t3".into(), &|task| task.tags.contains(&"t3".to_owned())),
        (format!("tag=%26%3D%C3%A4&worker_id={worker_id}"), &|task| task.worker_id.as_ref() == Some(&worker_id)),
        (format!("created_after={at}"), &|task| task.created_at >= later.created_at),
        (format!("created_before={at}&tag=all"), &|task| task.created_at < later.created_at),
    ];
    for (query, passes) in filters {
        let expected: Vec<_> = all.iter().filter(|task| passes(task)).map(|task| task.id).collect();
        assert!(!expected.is_empty(), "{query}");
        for page_size in [3, 7, 500] {
            let found: Vec<_> = walk(api, &query, page_size).await.into_iter().map(|task| task.id).collect();
            assert_eq!(found, expected, "{query} in pages of {page_size}");
        }
    }

    // A token goes on in its own list only.
    let page: TaskList = api.fetch("/v1/tasks?page_size=2&queue=q-1").await.expect(200);
    let other = api.fetch(&format!("/v1/tasks?page_size=2&page_token={}", page.next_page_token)).await;
    assert_eq!(other.expect::<Value>(400)["code"], "invalid_page_token");
}

#[tokio::test]
async fn a_task_that_has_not_changed_is_not_sent_again_and_one_that_has_is() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let api = &system.api;
    let task = api.create(json!({"command": "true", "delay_seconds": 3600})).await;
    let path = format!("/v1/tasks/{}", task.id);
    let first = api.fetch(&path).await;
    let tag = first.header("etag").unwrap().to_owned();
    let again = api.send(Method::GET, &path, None, &[("If-None-Match", &tag)]).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    assert_eq!(again.header("etag"), Some(tag.as_str()));
    api.cancel(task.id).await;
    let changed = api.send(Method::GET, &path, None, &[("If-None-Match", &tag)]).await;
    assert_eq!(changed.expect::<Task>(200).status, TaskStatus::Cancelled);
    assert_ne!(changed.header("etag"), Some(tag.as_str()));
}
