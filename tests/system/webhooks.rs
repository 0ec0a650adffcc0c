//! Webhooks and callbacks: who is told of what, how it is signed, and what one that is down, hangs or is gone does to others.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use taskmaster_openapi::event::EventType;
use taskmaster_openapi::task::{Task, TaskStatus};
use taskmaster_openapi::webhook::{
    Delivery, DeliveryDetail, DeliveryList, DisabledReason, IssuedWebhook, ReplayResponse, Webhook, WebhookList,
};
use taskmaster_store::webhooks::WebhookSecret;
use uuid::Uuid;

use crate::support::{Answer, Api, Arrival, System, Target, Up, until, until_within};

async fn subscribe(api: &Api, webhook: Value) -> IssuedWebhook {
    api.post("/v1/webhooks", &webhook).await.expect(201)
}

fn header<'a>(arrival: &'a Arrival, name: &str) -> &'a str {
    arrival.headers.get(name).unwrap_or_else(|| panic!("no {name}")).to_str().unwrap()
}

fn body(arrival: &Arrival) -> Value {
    serde_json::from_slice(&arrival.body).unwrap()
}

/// Whether one of the signatures is of this secret. With `TASKMASTER_WEBHOOK_CAPTURE` the message is also left for the reference
/// libraries of other languages (`.ci/webhooks`).
fn is_signed_by(arrival: &Arrival, secret: &str) -> bool {
    let (id, timestamp) = (header(arrival, "webhook-id"), header(arrival, "webhook-timestamp"));
    let text = String::from_utf8(arrival.body.to_vec()).unwrap();
    let signature = header(arrival, "webhook-signature");
    let expected = WebhookSecret::parse(secret).unwrap().sign(id, timestamp.parse().unwrap(), &text);
    let is_signed = signature.split(' ').any(|signature| signature == expected);
    if let Ok(path) = std::env::var("TASKMASTER_WEBHOOK_CAPTURE")
        && is_signed
    {
        let line = json!({"secret": secret, "id": id, "timestamp": timestamp, "signature": signature, "body": text});
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
    is_signed
}

async fn get(api: &Api, id: Uuid) -> Webhook {
    api.fetch(&format!("/v1/webhooks/{id}")).await.expect(200)
}

async fn deliveries(api: &Api, id: Uuid, query: &str) -> Vec<Delivery> {
    let mut all = Vec::new();
    let mut token = String::new();
    loop {
        let path = format!("/v1/webhooks/{id}/deliveries?page_size=2&page_token={token}&{query}");
        let page: DeliveryList = api.fetch(&path).await.expect(200);
        all.extend(page.deliveries);
        token = page.next_page_token;
        if token.is_empty() {
            return all;
        }
    }
}

#[tokio::test]
async fn events_reach_who_wants_them_signed_once_and_are_kept_in_a_log() {
    let target = Target::quick().await;
    let system = System::builder().coordinators(2).start().await;
    let api = &system.api;
    let all =
        subscribe(api, json!({"url": target.url("/all"), "headers": {"X-Api-Key": "hunter2", "X-Plain": "1"}})).await;
    let mail = json!({"url": target.url("/mail"), "events": ["task.scheduled", "task.failed"], "queues": ["mail"]});
    let mail = subscribe(api, mail).await;
    let tagged = subscribe(api, json!({"url": target.url("/tagged"), "tags": ["nightly"], "only": "failures"})).await;

    let fine = api.run(json!({"command": "true", "tags": ["nightly"]})).await;
    let failed = api.run(json!({"command": "exit 3", "queue": "mail", "max_attempts": 1, "tags": ["nightly"]})).await;
    let arrivals = target.arrived(5).await;
    let told: HashSet<(String, String, String)> = arrivals
        .iter()
        .map(|arrival| {
            let body = body(arrival);
            assert_eq!(body["subject"], body["data"]["task_id"]);
            (arrival.path.clone(), body["type"].as_str().unwrap().into(), body["subject"].as_str().unwrap().into())
        })
        .collect();
    let entry = |path: &str, kind: &str, task: &Task| (path.to_owned(), kind.to_owned(), task.id.to_string());
    assert_eq!(
        told,
        HashSet::from([
            entry("/all", "task.completed", &fine),
            entry("/all", "task.failed", &failed),
            entry("/mail", "task.scheduled", &failed),
            entry("/mail", "task.failed", &failed),
            entry("/tagged", "task.failed", &failed),
        ])
    );
    for arrival in &arrivals {
        let issued = [("/all", &all), ("/mail", &mail), ("/tagged", &tagged)];
        let (_, issued) = issued.into_iter().find(|(path, _)| *path == arrival.path).unwrap();
        assert!(is_signed_by(arrival, &issued.secret));
        assert!(header(arrival, "content-type").starts_with("application/cloudevents+json"));
        let age = arrival.wall.timestamp() - header(arrival, "webhook-timestamp").parse::<i64>().unwrap();
        assert!((-1..10).contains(&age), "{age}");
        let document = body(arrival);
        if document["type"] == "task.failed" {
            assert_eq!(document["data"]["error"]["code"], "exit_status");
            assert_eq!(document["data"]["tags"], json!(["nightly"]));
        }
    }
    let of_all = arrivals.iter().find(|arrival| arrival.path == "/all").unwrap();
    assert_eq!((header(of_all, "x-api-key"), header(of_all, "x-plain")), ("hunter2", "1"));

    let log = until("both are delivered", async || {
        let log = deliveries(api, all.webhook.id, "status=COMPLETE").await;
        (log.len() == 2).then_some(log)
    })
    .await;
    let newest = &log[0];
    assert_eq!((newest.event_type.as_str(), newest.task_id), ("task.failed", Some(failed.id)));
    assert_eq!((newest.http_status, newest.attempt, newest.replay), (Some(200), 1, false));
    let path = format!("/v1/webhooks/{}/deliveries/{}", all.webhook.id, newest.id);
    let detail: DeliveryDetail = api.fetch(&path).await.expect(200);
    assert_eq!(detail.attempts.len(), 1);
    assert_eq!(detail.attempts[0].result.as_ref().unwrap().body.as_deref(), Some("ok"));
    assert_eq!(detail.request.headers["X-Api-Key"], "***");
    assert_eq!(detail.request.headers["webhook-id"], newest.message_id);
    assert!(arrivals.iter().any(|arrival| *arrival.body == *detail.request.body.as_bytes()));
    until("the figures say so", async || (get(api, all.webhook.id).await.figures.delivered == 2).then_some(())).await;

    // They are no tasks of users: neither listed nor counted, and nobody sees the secret.
    let own: HashSet<Uuid> = api.list("").await.into_iter().map(|task| task.id).collect();
    assert_eq!(own, HashSet::from([fine.id, failed.id]));
    assert_eq!(api.stats().await.queues.len(), 2);
    assert_eq!(api.list("queue=$webhooks").await.len(), 5);
    let mut seen = api.fetch("/v1/tasks?queue=$webhooks").await.text
        + &api.fetch("/v1/webhooks").await.text
        + &api.fetch(&path).await.text;
    for process in system.coordinators.iter().chain(&system.workers) {
        seen += &process.log().join("\n");
    }
    let secrets = [&all.secret, &mail.secret, &tagged.secret].map(String::as_str);
    assert!(secrets.iter().all(|secret| !seen.contains(secret)) && !seen.contains("hunter2"));
    let mut events = api.events("after=0").await;
    let mut kinds = Vec::new();
    // A worker joined, and each task was scheduled, picked, started and ended.
    while kinds.len() < 9 {
        kinds.push(events.next().await.event());
    }
    assert!(kinds.iter().all(|event| event.task_id.is_none_or(|id| own.contains(&id))));
    assert!(events.next_within(Duration::from_millis(200)).await.is_none(), "deliveries leave no events");
}

#[tokio::test]
async fn a_webhook_is_made_once_changed_with_care_rotated_tested_and_deleted() {
    let target = Target::quick().await;
    let system = System::builder().start().await;
    let api = &system.api;
    let new = json!({"url": target.url("/one"), "events": ["task.failed"], "description": "on call"});
    let made =
        async |body: &Value| api.send(Method::POST, "/v1/webhooks", Some(body), &[("Idempotency-Key", "k")]).await;
    let first = made(&new).await;
    let issued: IssuedWebhook = first.expect(201);
    let path = format!("/v1/webhooks/{}", issued.webhook.id);
    assert_eq!((first.header("location"), first.header("etag")), (Some(path.as_str()), Some("\"1\"")));
    let again = made(&new).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect::<IssuedWebhook>(201), issued);
    assert_eq!(made(&json!({"url": target.url("/other")})).await.json()["code"], "idempotency_mismatch");
    let listed: WebhookList = api.fetch("/v1/webhooks").await.expect(200);
    assert_eq!(listed.webhooks, std::slice::from_ref(&issued.webhook));

    let change = async |body: Value, tag: &str| api.send(Method::PATCH, &path, Some(&body), &[("If-Match", tag)]).await;
    let changed: Webhook = change(json!({"url": target.url("/two"), "only": "changes"}), "\"1\"").await.expect(200);
    assert_eq!(changed.events, [EventType::TaskCompleted, EventType::TaskFailed]);
    assert_eq!((changed.version, changed.description.as_deref()), (2, Some("on call")));
    let stale = change(json!({"description": null}), "\"1\"").await;
    assert_eq!((stale.status.as_u16(), stale.json()["code"].as_str()), (412, Some("precondition_failed")));

    let test = async || -> Delivery { api.send(Method::POST, &format!("{path}/test"), None, &[]).await.expect(202) };
    let tested = test().await;
    let arrival = target.arrived(1).await.pop().unwrap();
    assert_eq!((arrival.path.as_str(), body(&arrival)["type"].as_str()), ("/two", Some("webhook.test")));
    assert!(is_signed_by(&arrival, &issued.secret));
    assert_eq!(header(&arrival, "webhook-id"), tested.message_id);

    let rotate = json!({"overlap_seconds": 3600});
    let rotated: IssuedWebhook = api.post(&format!("{path}/rotate"), &rotate).await.expect(200);
    assert_ne!(rotated.secret, issued.secret);
    assert!(rotated.webhook.previous_secret_expires_at.is_some());
    test().await;
    let arrival = target.arrived(2).await.pop().unwrap();
    assert!(is_signed_by(&arrival, &issued.secret) && is_signed_by(&arrival, &rotated.secret));
    let given = format!("whsec_{}", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    let rotate = json!({"overlap_seconds": 0, "secret": given});
    assert_eq!(api.post(&format!("{path}/rotate"), &rotate).await.expect::<IssuedWebhook>(200).secret, given);
    test().await;
    let arrival = target.arrived(3).await.pop().unwrap();
    assert!(is_signed_by(&arrival, &given) && !is_signed_by(&arrival, &rotated.secret));

    let off: Webhook = api.send(Method::PATCH, &path, Some(&json!({"enabled": false})), &[]).await.expect(200);
    assert_eq!((off.enabled, off.disabled_reason), (false, Some(DisabledReason::ByRequest)));
    let refused = api.send(Method::POST, &format!("{path}/test"), None, &[]).await;
    assert_eq!((refused.status.as_u16(), refused.json()["code"].as_str()), (409, Some("webhook_disabled")));
    api.run(json!({"command": "exit 1", "max_attempts": 1})).await;
    until("the failure is in the log", async || (api.stats().await.tasks.failed > 0).then_some(())).await;
    let on: Webhook = api.send(Method::PATCH, &path, Some(&json!({"enabled": true})), &[]).await.expect(200);
    assert!(on.enabled && on.disabled_reason.is_none());
    // What happened meanwhile is not sent; the next change is.
    let failed = api.run(json!({"command": "exit 1", "max_attempts": 1})).await;
    let arrival = target.arrived(4).await.pop().unwrap();
    assert_eq!(body(&arrival)["subject"], failed.id.to_string());
    assert_eq!(api.send(Method::DELETE, &path, None, &[]).await.status, 204);
    assert_eq!(api.fetch(&path).await.json()["code"], "webhook_not_found");
    assert_eq!(api.send(Method::DELETE, &path, None, &[]).await.status, 404);
    // What arrived last may not be recorded yet.
    until("nothing is left to deliver", async || (deliveries_left(api).await == 0).then_some(())).await;
}

async fn deliveries_left(api: &Api) -> usize {
    let left = async |status: &str| api.list(&format!("queue=$webhooks&status={status}")).await.len();
    left("QUEUED").await + left("PICKED").await + left("STARTED").await
}

#[tokio::test]
async fn what_fails_is_tried_again_with_the_same_id_and_can_be_replayed_alone_or_in_a_range() {
    let target = Target::start(|arrival| match (arrival.path.as_str(), arrival.attempt) {
        ("/flaky", Some(1)) => Answer::status(500),
        ("/moved", _) => Answer::status(302).header("location", "/elsewhere"),
        _ => Answer::ok(),
    })
    .await;
    let system = System::builder().start().await;
    let api = &system.api;
    let retry = json!({"delays_seconds": [0.1], "jitter": 0.0});
    let flaky = subscribe(api, json!({"url": target.url("/flaky"), "retry": retry})).await;
    let moved = json!({"url": target.url("/moved"), "retry": retry, "max_attempts": 2});
    let moved = subscribe(api, moved).await;
    api.run(json!({"command": "true"})).await;
    api.run(json!({"command": "true"})).await;
    target.arrived(8).await;
    let of = |path: &str| -> BTreeMap<String, Vec<Arrival>> {
        let mut of = BTreeMap::<String, Vec<Arrival>>::new();
        for arrival in target.arrivals().into_iter().filter(|arrival| arrival.path == path) {
            of.entry(header(&arrival, "webhook-id").to_owned()).or_default().push(arrival);
        }
        of
    };
    for arrivals in of("/flaky").values() {
        assert_eq!(arrivals.len(), 2, "one failed, one did not");
        assert!(arrivals.iter().all(|arrival| is_signed_by(arrival, &flaky.secret)));
    }
    assert_eq!(of("/elsewhere").len(), 0, "redirects are not followed");
    let id = moved.webhook.id;
    let failed = until("both have failed", async || {
        let failed = deliveries(api, id, "status=FAILED").await;
        (failed.len() == 2).then_some(failed)
    })
    .await;
    assert_eq!(failed[0].http_status, Some(302));
    until("the figures say so", async || (get(api, id).await.figures.failed_attempts == 4).then_some(())).await;
    assert!(get(api, id).await.figures.failing_since.is_some());

    // Where the webhook leads now.
    let path = format!("/v1/webhooks/{id}");
    api.send(Method::PATCH, &path, Some(&json!({"url": target.url("/right")})), &[]).await.expect::<Webhook>(200);
    let one = format!("{path}/deliveries/{}/replay", failed[0].id);
    let replay: Delivery = api.send(Method::POST, &one, None, &[]).await.expect(202);
    assert_eq!((replay.replay, &replay.message_id), (true, &failed[0].message_id));
    target.arrived(9).await;
    let range = async |body: Value| -> ReplayResponse { api.post(&format!("{path}/replay"), &body).await.expect(200) };
    let look = range(json!({"dry_run": true})).await;
    assert_eq!((look.matched, look.replayed, look.more), (2, 0, false));
    let later = range(json!({"created_after": chrono::Utc::now() + chrono::TimeDelta::minutes(1)})).await;
    assert_eq!(later.matched, 0);
    let both = range(json!({})).await;
    assert_eq!((both.matched, both.replayed), (2, 2));
    target.arrived(11).await;
    let right = of("/right");
    assert_eq!(right.len(), 2);
    assert!(right.values().flatten().all(|arrival| is_signed_by(arrival, &moved.secret)));
    until("it has recovered", async || get(api, id).await.figures.failing_since.is_none().then_some(())).await;
    let nowhere = format!("{path}/deliveries/{}/replay", Uuid::nil());
    assert_eq!(api.send(Method::POST, &nowhere, None, &[]).await.json()["code"], "delivery_not_found");
}

#[tokio::test]
async fn one_that_waits_for_its_next_attempt_is_tried_at_once_when_asked() {
    let target = Target::start(|arrival| match arrival.attempt {
        Some(1) => Answer::status(503),
        _ => Answer::ok(),
    })
    .await;
    let system = System::builder().start().await;
    let api = &system.api;
    let webhook = subscribe(api, json!({"url": target.url("/"), "retry": {"delays_seconds": [3600]}})).await.webhook;
    api.run(json!({"command": "true"})).await;
    target.arrived(1).await;
    let waits =
        async || deliveries(api, webhook.id, "status=QUEUED").await.pop().filter(|delivery| delivery.attempt == 1);
    let waiting = until("it waits", waits).await;
    assert!(waiting.next_attempt_at.unwrap() > chrono::Utc::now() + chrono::TimeDelta::minutes(30));
    let asked = json!({"status": "QUEUED"});
    let replay: ReplayResponse = api.post(&format!("/v1/webhooks/{}/replay", webhook.id), &asked).await.expect(200);
    assert_eq!(replay.replayed, 1);
    let arrival = target.arrived(2).await.pop().unwrap();
    assert_eq!(arrival.task_id, Some(waiting.id), "the same delivery");
}

#[tokio::test]
async fn a_subscriber_that_is_gone_is_told_nothing_more_and_others_are_told_of_it() {
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/gone" => Answer::status(410),
        _ => Answer::ok(),
    })
    .await;
    let system = System::builder().start().await;
    let api = &system.api;
    let gone = subscribe(api, json!({"url": target.url("/gone")})).await.webhook;
    subscribe(api, json!({"url": target.url("/watch"), "events": ["webhook.disabled"]})).await;
    api.run(json!({"command": "true"})).await;
    let arrivals = target.arrived(2).await;
    let told = arrivals.iter().find(|arrival| arrival.path == "/watch").unwrap();
    assert_eq!(body(told)["data"], json!({"webhook_id": gone.id.to_string()}));
    let now = get(api, gone.id).await;
    assert_eq!((now.enabled, now.disabled_reason), (false, Some(DisabledReason::Gone)));
    let mut events = api.events("types=webhook.disabled&after=0").await;
    assert_eq!(events.next().await.event().webhook_id, Some(gone.id));
    api.run(json!({"command": "true"})).await;
    let [delivery] = deliveries(api, gone.id, "").await.try_into().unwrap();
    assert_eq!((delivery.status, delivery.http_status), (TaskStatus::Failed, Some(410)));
}

#[tokio::test]
async fn a_subscriber_that_hangs_delays_neither_others_nor_tasks() {
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/hangs" => Answer::hang(),
        _ => Answer::ok(),
    })
    .await;
    let system = System::builder().start().await;
    let api = &system.api;
    let hangs = subscribe(api, json!({"url": target.url("/hangs")})).await.webhook;
    subscribe(api, json!({"url": target.url("/well")})).await;
    let tasks: Vec<Value> = (0..50).map(|_| json!({"command": "true"})).collect();
    let began = Instant::now();
    let ids = api.create_batch(&tasks).await;
    api.all_ended(&ids).await;
    eprintln!("    50 tasks beside a subscriber that hangs took {:.2?}", began.elapsed());
    let of = |path: &str| target.arrivals().iter().filter(|arrival| arrival.path == path).count();
    until_within(Duration::from_secs(15), "the other is told everything", async || (of("/well") == 50).then_some(()))
        .await;
    let took = began.elapsed();
    eprintln!("    50 deliveries beside it took {took:.2?}");
    assert_eq!(of("/hangs"), 1, "one at a time");
    // The one that it holds times out after 20 s: nothing here waited for that.
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert_eq!(deliveries(api, hangs.id, "status=QUEUED").await.len(), 49);
}

#[tokio::test]
async fn callbacks_are_told_of_the_end_with_the_result_and_failure_callbacks_of_failures() {
    let target = Target::quick().await;
    let system = System::builder().start().await;
    let api = &system.api;
    let secret = WebhookSecret::random().expose();
    let callback = json!({"url": target.url("/end"), "headers": {"Authorization": "Bearer hunter2"}, "secret": secret});
    let failure = json!({"url": target.url("/failure")});
    let with = |mut task: Value| {
        task["callback"] = callback.clone();
        task["failure_callback"] = failure.clone();
        task
    };
    let fine = api.run(with(json!({"command": "echo out"}))).await;
    let failed = api.run(with(json!({"command": "exit 4", "max_attempts": 1}))).await;
    let cancelled = api.create(with(json!({"command": "true", "delay_seconds": 3600}))).await;
    assert_eq!(cancelled.callback.as_ref().unwrap().headers["Authorization"], "***");
    assert_eq!(cancelled.callback.as_ref().unwrap().secret, None);
    api.cancel(cancelled.id).await;
    let arrivals = target.arrived(4).await;
    let of = |path: &str, id: Uuid| {
        let found: Vec<&Arrival> =
            arrivals.iter().filter(|a| a.path == path && body(a)["subject"] == id.to_string()).collect();
        assert!(found.len() <= 1);
        found.first().copied().cloned()
    };
    for (task, kind) in [(&fine, "task.completed"), (&failed, "task.failed"), (&cancelled, "task.cancelled")] {
        let arrival = of("/end", task.id).unwrap();
        assert!(is_signed_by(&arrival, &secret));
        assert_eq!(header(&arrival, "authorization"), "Bearer hunter2");
        assert_eq!(body(&arrival)["type"], kind);
        let told: Task = serde_json::from_value(body(&arrival)["data"].clone()).unwrap();
        assert_eq!(told, api.get(task.id).await);
        assert!(!String::from_utf8_lossy(&arrival.body).contains("hunter2"));
    }
    let told = of("/failure", failed.id).unwrap();
    assert!(told.headers.get("webhook-signature").is_none(), "it has no secret");
    assert!(!header(&told, "webhook-id").is_empty());
    assert_eq!(api.list(&format!("queue=$callbacks&tag={}", failed.id)).await.len(), 2);

    let refused =
        api.post("/v1/tasks", &json!({"command": "true", "callback": {"url": "ftp://x", "secret": "x"}})).await;
    let pointers: Vec<Value> =
        refused.json()["errors"].as_array().unwrap().iter().map(|e| e["pointer"].clone()).collect();
    assert_eq!(pointers, ["/callback/url", "/callback/secret"]);
    let own = api.post("/v1/tasks", &json!({"command": "true", "queue": "$webhooks"})).await;
    assert_eq!(own.json()["errors"][0]["pointer"], "/queue");
}

#[tokio::test]
async fn every_command_of_the_documentation_works_as_it_stands() {
    let document = include_str!("../../docs/webhooks.md");
    let target = Target::quick().await;
    let up = Up::start(&["--ephemeral"]).await;
    let [block] = document.split("\n```").filter_map(|part| part.strip_prefix("sh\n")).collect::<Vec<_>>()[..] else {
        panic!("one block of commands");
    };
    let curl = "curl() { command curl --fail-with-body --show-error --max-time 60 \"$@\"; }";
    let address = |url: &str| url.trim_start_matches("http://").to_owned();
    let script = format!("set -eu\n{curl}\n{block}")
        .replace("127.0.0.1:8081", &address(&up.api.url))
        .replace("127.0.0.1:9900", &address(&target.url("")));
    let ran = tokio::task::spawn_blocking(|| Command::new("sh").arg("-c").arg(script).output().unwrap()).await.unwrap();
    let (answers, error) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{answers}\n{error}");
    // The test, the task that failed, and the end of the last one.
    let arrivals = target.arrived(3).await;
    let kinds: HashSet<String> =
        arrivals.iter().map(|arrival| body(arrival)["type"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds, HashSet::from(["webhook.test", "task.failed", "task.completed"].map(str::to_owned)));
}
