//! Incoming webhooks: senders send until they are answered, while gateways are killed and the database's answers are lost. Each delivery
//! is one task.
//!
//! The long form: `TASKMASTER_FAULTS_HOOK_DELIVERIES=5000 cargo test --release --test faults -- --nocapture every_delivery`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use taskmaster_openapi::hook::{HookReceipt, IssuedHook};
use taskmaster_store::webhooks::WebhookSecret;
use uuid::Uuid;

use super::support::Api;
use super::world::{Plan, World};

const SENDERS: usize = 8;
/// A gateway is killed this often, while there are senders.
const KILL_EVERY: Duration = Duration::from_millis(500);
/// And is away so long.
const AWAY: Duration = Duration::from_millis(200);
/// A sender that was not answered sends again after so long, to another gateway.
const AGAIN_AFTER: Duration = Duration::from_millis(30);
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

/// Sends one delivery until it is answered with a task; how often it was sent, and what was answered.
async fn deliver(gateways: &[Api], path: &str, secret: &WebhookSecret, number: usize) -> (usize, HookReceipt) {
    let (id, body) = (format!("msg_{number}"), json!({"number": number}).to_string());
    for time in 0.. {
        let at = chrono::Utc::now().timestamp();
        let api = &gateways[(number + time) % gateways.len()];
        let request = api.http().post(format!("{}{path}", api.url)).timeout(ANSWERED_WITHIN);
        let request = request.header("webhook-id", &id).header("webhook-timestamp", at);
        let request = request.header("webhook-signature", secret.sign(&id, at, &body)).body(body.clone());
        if let Ok(answer) = request.send().await
            && answer.status().is_success()
            && let Ok(receipt) = answer.json().await
        {
            return (time + 1, receipt);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    unreachable!("sent without end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_delivery_is_one_task_while_gateways_are_killed() {
    let count: usize = std::env::var("TASKMASTER_FAULTS_HOOK_DELIVERIES").map_or(1_500, |text| text.parse().unwrap());
    let mut world = World::start(Plan { gateways: 2, coordinators: 1, workers: 1, ..Plan::default() }).await;
    let secret = WebhookSecret::random();
    let task = json!({"argv": ["true"], "queue": "hooks"});
    let hook = json!({"verification": "standard_webhooks", "secret": secret.clone().expose(), "task": task});
    let issued: IssuedHook = world.api(0).post("/v1/hooks", &hook).await.expect(201);

    let gateways: Arc<[Api]> = (0..2).map(|number| world.api(number)).collect();
    let next = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (gateways, next, secret) = (gateways.clone(), next.clone(), secret.clone());
            let path = issued.hook.receive_path.clone();
            tokio::spawn(async move {
                let mut sent = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return sent;
                    }
                    let (times, receipt) = deliver(&gateways, &path, &secret, number).await;
                    sent.push((number, times, receipt));
                }
            })
        })
        .collect();
    let mut kills = 0;
    while !senders.iter().all(|sender| sender.is_finished()) {
        tokio::time::sleep(KILL_EVERY - AWAY).await;
        let part = &mut world.gateways[kills % 2];
        part.kill9();
        tokio::time::sleep(AWAY).await;
        part.start().await;
        kills += 1;
    }
    let mut tasks: HashMap<usize, Uuid> = HashMap::new();
    let (mut again, mut duplicates) = (0, 0);
    for sender in senders {
        for (number, times, receipt) in sender.await.unwrap() {
            again += usize::from(times > 1);
            duplicates += usize::from(receipt.duplicate);
            assert!(receipt.duplicate <= (times > 1), "{number}: a duplicate of what was sent once");
            tasks.insert(number, receipt.task_id.unwrap());
        }
    }
    assert_eq!(tasks.len(), count);
    world.ready().await;
    let api = world.api(0);
    let ids: Vec<Uuid> = tasks.values().copied().collect();
    api.all_ended_within(Duration::from_secs(120), &ids).await;
    // Neither a delivery without a task, nor a task that nobody was told of.
    let made = api.list("queue=hooks").await;
    let numbers: HashMap<Uuid, usize> = tasks.iter().map(|(number, id)| (*id, *number)).collect();
    assert_eq!((made.len(), numbers.len()), (count, count), "one task each");
    for task in made {
        let argv = task.argv.unwrap();
        let body: Value = serde_json::from_str(&argv[argv.len() - 2]).unwrap();
        assert_eq!(body["number"], numbers[&task.id], "the task of this delivery");
    }
    assert!(kills > 0 && again > 0, "{kills} kills, {again} sent again: nothing was broken");
    eprintln!(
        "    {count} deliveries, {kills} gateways killed: {again} sent again, {duplicates} of them had their task already"
    );
}
