//! Queues as users meet them: over HTTP, with limits that are measured where the work arrives; and the page about them keeps its word.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::key::{IssuedKey, Scope};
use taskmaster_openapi::queue::{PurgeResponse, Queue, QueueList};
use taskmaster_openapi::schedule::Schedule;
use taskmaster_openapi::task::{Task, TaskStatus};
use uuid::Uuid;

use crate::support::{Answer, Api, Gate, Reply, System, Target, Up, until};

const PAGE: &str = include_str!("../../docs/queues.md");
/// Where the page's examples find the API.
const ADDRESS: &str = "127.0.0.1:8081";

async fn patch(api: &Api, queue: &str, body: &Value, headers: &[(&str, &str)]) -> Reply {
    api.send(Method::PATCH, &format!("/v1/queues/{queue}"), Some(body), headers).await
}

async fn set(api: &Api, queue: &str, body: Value) -> Queue {
    patch(api, queue, &body, &[]).await.expect(200)
}

async fn queue(api: &Api, name: &str) -> Queue {
    api.fetch(&format!("/v1/queues/{name}")).await.expect(200)
}

/// So many requests of this queue and key to the target.
fn requests(target: &Target, count: usize, queue: &str, key: Option<&str>) -> Vec<Value> {
    let path = format!("/{}", key.unwrap_or_default());
    let mut task = json!({"queue": queue, "http": {"method": "GET", "url": target.url(&path)}});
    if let Some(key) = key {
        task["flow_key"] = json!(key);
    }
    vec![task; count]
}

fn slow(milliseconds: u64) -> impl Fn(&crate::support::Arrival) -> Answer {
    move |_| Answer::ok().after(Duration::from_millis(milliseconds))
}

#[tokio::test]
async fn three_at_once_means_never_four_whoever_coordinates() {
    let system = System::builder().coordinators(3).workers(3).start().await;
    let target = Target::start(slow(30)).await;
    set(&system.api, "narrow", json!({"concurrency": 3})).await;
    let ids = system.api.create_batch(&requests(&target, 60, "narrow", None)).await;
    // Others are not held up meanwhile.
    let other = system.api.run(json!({"command": "true"})).await;
    assert_eq!(other.status, TaskStatus::Complete);
    system.api.all_ended(&ids).await;
    assert_eq!((target.count(), target.most_in_progress()), (60, 3));
    // Without the limit it is another matter.
    set(&system.api, "narrow", json!({"concurrency": null})).await;
    let ids = system.api.create_batch(&requests(&target, 60, "narrow", None)).await;
    system.api.all_ended(&ids).await;
    assert!(target.most_in_progress() > 3, "15 slots");
}

#[tokio::test]
async fn a_paused_queue_starts_nothing_until_it_is_resumed_and_others_go_on() {
    let system = System::builder().coordinators(2).workers(2).start().await;
    let api = &system.api;
    let (target, gate) = (Target::quick().await, Gate::closed());
    let held = Target::start({
        let gate = gate.clone();
        move |_| Answer::ok().behind(&gate)
    })
    .await;
    let running = api.create_batch(&requests(&held, 1, "nightly", None)).await;
    held.arrived(1).await;
    let paused: Queue = api.post("/v1/queues/nightly/pause", &json!({"reason": "the disk is full"})).await.expect(200);
    assert_eq!((paused.paused, paused.pause_reason.as_deref()), (true, Some("the disk is full")));
    let waiting = api.create_batch(&requests(&target, 20, "nightly", None)).await;
    for _ in 0..3 {
        api.run(json!({"command": "true"})).await;
    }
    assert_eq!(target.count(), 0);
    gate.open();
    api.all_ended(&running).await;
    assert_eq!(api.get(running[0]).await.status, TaskStatus::Complete, "what a worker has goes on");
    api.run(json!({"command": "true"})).await;
    assert_eq!((target.count(), api.get(waiting[0]).await.status), (0, TaskStatus::Queued));
    let resumed: Queue = api.send(Method::POST, "/v1/queues/nightly/resume", None, &[]).await.expect(200);
    assert!(!resumed.paused && resumed.pause_reason.is_none());
    api.all_ended(&waiting).await;
    assert_eq!(target.count(), 20);
}

#[tokio::test]
async fn a_queues_defaults_are_those_of_tasks_and_schedules_that_do_not_say() {
    let up = Up::start(&["--ephemeral"]).await;
    let api = &up.api;
    let defaults = json!({"max_attempts": 7, "timeout_seconds": 11, "retry": {"initial_seconds": 5.0}});
    set(api, "mail", defaults).await;
    let said = |task: &Task| (task.max_attempts, task.timeout_seconds, task.retry.initial_seconds);
    let later = json!({"queue": "mail", "command": "true", "delay_seconds": 3600});
    let task = api.create(later.clone()).await;
    assert_eq!(said(&task), (7, 11, 5.0));
    let mut own = later.clone();
    own["max_attempts"] = json!(2);
    own["retry"] = json!({"initial_seconds": 1.0});
    assert_eq!(said(&api.create(own).await), (2, 11, 1.0));
    let ids = api.create_batch(&[later, json!({"command": "true", "delay_seconds": 3600})]).await;
    assert_eq!(said(&api.get(ids[0]).await), (7, 11, 5.0));
    assert_eq!(said(&api.get(ids[1]).await), (3, 300, 1.0), "of another queue");
    let schedule = json!({"every_seconds": 3600, "task": {"command": "true", "queue": "mail", "flow_key": "nightly"}});
    let schedule: Schedule = api.post("/v1/schedules", &schedule).await.expect(201);
    let task: Task =
        api.send(Method::POST, &format!("/v1/schedules/{}/trigger", schedule.id), None, &[]).await.expect(201);
    assert_eq!(said(&task), (7, 11, 5.0));
    assert_eq!(task.flow_key.as_deref(), Some("nightly"));
}

#[tokio::test]
async fn no_more_tasks_begin_than_the_rate_allows() {
    let system = System::builder().coordinators(2).workers(2).start().await;
    let target = Target::quick().await;
    set(&system.api, "slow", json!({"rate": {"count": 5, "period_seconds": 1}})).await;
    let ids = system.api.create_batch(&requests(&target, 20, "slow", None)).await;
    system.api.all_ended(&ids).await;
    let arrivals = target.arrivals();
    // A full bucket, and then one in every 200 ms; what is claimed arrives within the next quarter of a second.
    let slack = Duration::from_millis(250);
    for (i, first) in arrivals.iter().enumerate() {
        let within =
            arrivals[i..].iter().filter(|one| one.at.duration_since(first.at) < Duration::from_secs(1)).count();
        assert!(within <= 5 + 5 + 2, "{within} within a second");
    }
    let took = arrivals[19].at - arrivals[0].at;
    assert!(took + slack >= Duration::from_secs(3), "20 of them in {took:?}");
    assert!(took < Duration::from_secs(6), "and not slower than that: {took:?}");
}

#[tokio::test]
async fn one_key_with_many_tasks_does_not_hold_up_another_with_one() {
    let system = System::builder().workers(2).start().await;
    let api = &system.api;
    let (mine, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let target = Target::start({
        let (mine, most) = (mine.clone(), most.clone());
        move |arrival| {
            // How many of one key are here at once is known by what has begun and what it has been answered.
            if arrival.path == "/many" {
                most.fetch_max(mine.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mine = mine.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(35)).await;
                    mine.fetch_sub(1, Ordering::SeqCst);
                });
            }
            Answer::ok().after(Duration::from_millis(40))
        }
    })
    .await;
    set(api, "tenants", json!({"concurrency": 3, "concurrency_by_key": 2})).await;
    let many = api.create_batch(&requests(&target, 60, "tenants", Some("many"))).await;
    target.arrived(4).await;
    let before = target.count();
    let one = api.create_batch(&requests(&target, 1, "tenants", Some("one"))).await;
    api.all_ended(&one).await;
    let meanwhile = target.count() - before;
    assert!(meanwhile < 30, "{meanwhile} of the many went before the one");
    assert_eq!(api.get(one[0]).await.flow_key.as_deref(), Some("one"));
    api.all_ended(&many).await;
    assert!(most.load(Ordering::SeqCst) <= 2 && target.most_in_progress() <= 3, "{most:?}");
}

#[tokio::test]
async fn a_purge_says_what_it_would_do_and_then_does_it() {
    let up = Up::start(&["--ephemeral"]).await;
    let api = &up.api;
    let purge = async |body: Value| api.post("/v1/queues/old/purge", &body).await;
    assert_eq!(purge(json!({})).await.json()["code"], json!("queue_not_found"));
    let tasks = vec![json!({"queue": "old", "command": "true", "delay_seconds": 3600}); 30];
    let ids: Vec<Uuid> = api.create_batch(&tasks).await;
    let kept = api.create(json!({"command": "true", "delay_seconds": 3600})).await;
    let looked: PurgeResponse = purge(json!({"dry_run": true})).await.expect(200);
    assert_eq!(looked, PurgeResponse { dry_run: true, matched: 30, cancelled: 0, more: false });
    assert_eq!(api.get(ids[0]).await.status, TaskStatus::Queued);
    let none: PurgeResponse = purge(json!({"created_before": "2020-01-01T00:00:00Z"})).await.expect(200);
    assert_eq!(none.matched, 0);
    let purged: PurgeResponse = purge(json!({})).await.expect(200);
    assert_eq!(purged, PurgeResponse { dry_run: false, matched: 30, cancelled: 30, more: false });
    // Each of them is an event.
    api.all_ended(&ids).await;
    assert_eq!(api.get(ids[29]).await.status, TaskStatus::Cancelled);
    assert_eq!(api.get(kept.id).await.status, TaskStatus::Queued);
}

#[tokio::test]
async fn a_queue_is_set_listed_and_forgotten_and_what_is_wrong_is_named() {
    let up = Up::start(&["--ephemeral"]).await;
    let api = &up.api;
    assert_eq!(api.fetch("/v1/queues/a").await.json()["code"], json!("queue_not_found"));
    let made = patch(api, "a", &json!({"concurrency": 2, "rate": {"count": 10, "period_seconds": 60}}), &[]).await;
    let tag = made.header("etag").unwrap().to_owned();
    assert_eq!(made.expect::<Queue>(200).concurrency, Some(2));
    let merge = json!({"concurrency": null, "rate": {"count": 20}});
    let merged: Queue = patch(api, "a", &merge, &[("If-Match", &tag)]).await.expect(200);
    assert_eq!((merged.concurrency, merged.rate.unwrap().count, merged.rate.unwrap().period_seconds), (None, 20, 60));
    let stale = patch(api, "a", &json!({}), &[("If-Match", &tag)]).await;
    assert_eq!((stale.status.as_u16(), &stale.json()["code"]), (412, &json!("precondition_failed")));
    for (wrong, pointer) in [
        (json!({"concurrency": 0}), "/concurrency"),
        (json!({"rate": {"count": 5, "period_seconds": 0}}), "/rate/period_seconds"),
        (json!({"retry": {"multiplier": 0.5}}), "/retry/multiplier"),
        (json!({"paused": true}), "/paused"),
    ] {
        let refused = patch(api, "a", &wrong, &[]).await;
        assert_eq!(
            (refused.status.as_u16(), &refused.json()["errors"][0]["pointer"]),
            (422, &json!(pointer)),
            "{wrong}"
        );
    }
    for wrong in ["a%20b", "$webhooks"] {
        assert_eq!(patch(api, wrong, &json!({}), &[]).await.json()["code"], json!("invalid_path"));
    }
    let key = api.post("/v1/tasks", &json!({"command": "true", "flow_key": ""})).await;
    assert_eq!(key.json()["errors"][0]["pointer"], json!("/flow_key"));

    for name in ["b", "c"] {
        api.run(json!({"queue": name, "command": "true"})).await;
    }
    let (mut listed, mut next) = (Vec::new(), "/v1/queues?page_size=2".to_owned());
    loop {
        let reply = api.fetch(&next).await;
        listed.extend(reply.expect::<QueueList>(200).queues.into_iter().map(|queue| queue.queue));
        let Some(link) = reply.header("link") else { break };
        next = link.trim_start_matches('<').split('>').next().unwrap().to_owned();
    }
    assert_eq!(listed, ["a", "b", "c"]);
    until("the counts are there", async || (queue(api, "b").await.tasks.complete == 1).then_some(())).await;

    let key: IssuedKey = api.post("/v1/keys", &json!({"name": "k", "scopes": [Scope::TasksRead]})).await.expect(201);
    let reader = api.with_key(&key.token);
    assert_eq!(reader.fetch("/v1/queues/a").await.status, 200);
    assert_eq!(patch(&reader, "a", &json!({}), &[]).await.status, 403);
    assert_eq!(api.send(Method::DELETE, "/v1/queues/a", None, &[]).await.status, 204);
    assert_eq!(api.fetch("/v1/queues/a").await.status, 404);
}

#[tokio::test]
async fn every_command_of_the_page_about_queues_works_as_it_stands() {
    let up = Up::start(&["--ephemeral"]).await;
    let address = up.api.url.strip_prefix("http://").unwrap();
    let blocks = PAGE.split("\n```").filter_map(|part| part.strip_prefix("sh\n"));
    let script: Vec<String> = blocks.map(|block| block.replace(ADDRESS, address)).collect();
    assert!(script.len() >= 4, "{script:#?}");
    let curl = "curl() { command curl --fail-with-body --show-error --max-time 30 \"$@\"; }\n";
    let ran = Command::new("sh").arg("-euc").arg(format!("{curl}{}", script.join("\n"))).output().unwrap();
    let (answer, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{answer}\n{error}");
    assert!(
        answer.contains("\"pause_reason\":\"the provider is down\"") && answer.contains("\"dry_run\":true"),
        "{answer}"
    );
}
