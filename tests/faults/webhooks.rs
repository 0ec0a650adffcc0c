//! Webhooks: whatever is killed, and however long the subscriber is away, it gets every event at least once, signed; and each event
//! is made one delivery, no matter who drives.
//!
//! The long form: `TASKMASTER_FAULTS_WEBHOOK_TASKS=10000 TASKMASTER_FAULTS_WEBHOOK_AWAY_SECONDS=300 cargo test --release --test faults
//! -- --nocapture every_event`.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use taskmaster_openapi::webhook::IssuedWebhook;

use super::proxy::Proxy;
use super::support::{Answer, Arrival, Target, until, until_within};
use super::world::{Plan, World, places};

/// Something is killed this often.
const KILL_EVERY: Duration = Duration::from_millis(700);
/// And is away so long.
const AWAY: Duration = Duration::from_millis(400);
const BATCH: usize = 20;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// The number of every event of a task.
async fn events_of_tasks(url: &str) -> HashSet<i64> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let rows: Vec<(i64, i32)> =
        sqlx::query_as("select first_id, n from events where type <= 6").fetch_all(&mut connection).await.unwrap();
    rows.into_iter().flat_map(|(first, n)| first..first + i64::from(n)).collect()
}

/// Kills coordinators and workers by turns, one at a time, while there is time.
async fn kill_by_turns(world: &mut World, until: Instant, turn: &mut usize) {
    while Instant::now() < until {
        let (coordinators, workers) = (world.coordinators.len(), world.workers.len());
        *turn += 1;
        let part = match *turn % (coordinators + workers) {
            number if number < coordinators => &mut world.coordinators[number],
            number => &mut world.workers[number - coordinators],
        };
        part.kill9();
        tokio::time::sleep(AWAY).await;
        part.start().await;
        tokio::time::sleep(KILL_EVERY - AWAY).await;
    }
}

/// Verifies what arrives by the reference library, when it arrives: signatures are good for five minutes.
#[derive(Default)]
struct Verifier {
    reference: OnceLock<standardwebhooks::Webhook>,
    wrong: Mutex<Vec<String>>,
}

impl Verifier {
    fn answer(&self, arrival: &Arrival) -> Answer {
        let Some(reference) = self.reference.get() else { return Answer::status(503) };
        match reference.verify(&arrival.body, &arrival.headers) {
            Ok(()) => Answer::ok(),
            Err(error) => {
                self.wrong.lock().unwrap().push(format!("{error}: {arrival:?}"));
                Answer::status(401)
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_reaches_a_subscriber_that_was_away_while_coordinators_and_workers_are_killed() {
    let tasks = number("TASKMASTER_FAULTS_WEBHOOK_TASKS", 200) as usize;
    let away = Duration::from_secs(number("TASKMASTER_FAULTS_WEBHOOK_AWAY_SECONDS", 4));
    let plan = Plan { coordinators: 2, workers: 2, worker_arguments: &["--slots", "16"], ..Plan::default() };
    let mut world = World::start(plan).await;
    let verifier: Arc<Verifier> = Arc::default();
    let asked = verifier.clone();
    let target = Target::start(move |arrival| asked.answer(arrival)).await;
    let upstream: SocketAddr = target.url("").trim_start_matches("http://").parse().unwrap();
    let mut way = Proxy::start(SocketAddr::new(places(), 9000), upstream).await;
    let kinds = ["scheduled", "picked", "started", "completed", "retrying", "failed", "cancelled"];
    let kinds = kinds.map(|kind| format!("task.{kind}"));
    let retry = json!({"delays_seconds": [0.5, 1.0, 2.0]});
    let webhook = json!({"url": format!("{}/hook", way.url()), "events": kinds, "max_attempts": 100, "retry": retry});
    let api = world.api(0);
    let issued: IssuedWebhook = api.post("/v1/webhooks", &webhook).await.expect(201);
    assert!(verifier.reference.set(standardwebhooks::Webhook::new(&issued.secret).unwrap()).is_ok());

    let creating = tokio::spawn({
        let api = api.clone();
        async move {
            let pause = away.mul_f64(1.5) / (tasks / BATCH).max(1) as u32;
            let mut ids = Vec::new();
            for _ in 0..tasks / BATCH {
                let batch: Vec<Value> = (0..BATCH).map(|_| json!({"command": "true"})).collect();
                ids.extend(api.create_batch(&batch).await);
                tokio::time::sleep(pause).await;
            }
            ids
        }
    });
    target.arrived(BATCH).await;
    let began = Instant::now();
    way.refuse();
    let mut turn = 0;
    kill_by_turns(&mut world, began + away, &mut turn).await;
    let before = target.count();
    way.admit().await;
    kill_by_turns(&mut world, Instant::now() + away / 2, &mut turn).await;
    let ids = creating.await.unwrap();
    let back = Instant::now();
    let limit = Duration::from_secs(120) + away;
    api.all_ended_within(limit, &ids).await;
    until_within(limit, "every delivery has ended", async || {
        let left =
            world.count("select count(*) from tasks").await + world.count("select count(*) from event_inbox").await;
        let behind = world.count("select taskmaster_newest_event() - cursor from webhook_driver").await;
        (left == 0 && behind == 0).then_some(())
    })
    .await;
    let took = back.elapsed();

    let mut times: HashMap<i64, usize> = HashMap::new();
    assert_eq!(*verifier.wrong.lock().unwrap(), Vec::<String>::new(), "every signature is right");
    for arrival in target.arrivals() {
        let (_, event) = arrival.headers["webhook-id"].to_str().unwrap().rsplit_once('_').unwrap();
        let body: Value = serde_json::from_slice(&arrival.body).unwrap();
        assert_eq!(body["id"], event);
        *times.entry(event.parse().unwrap()).or_default() += 1;
    }
    let events = events_of_tasks(&world.database.url).await;
    assert!(events.len() >= tasks * 4, "{} events of {tasks} tasks", events.len());
    assert_eq!(times.keys().copied().collect::<HashSet<_>>(), events, "each event, and no other");
    let made = world.count("select count(*) from webhook_deliveries").await;
    assert_eq!(made as usize, events.len(), "one delivery each");
    assert_eq!(world.count("select count(*) from task_history where lane < 0 and status <> 3").await, 0);
    let twice = times.values().filter(|times| **times > 1).count();
    eprintln!(
        "    {} events of {tasks} tasks, subscriber away for {away:.0?}, {turn} kills: {before} arrived before it came back, all within {took:.1?} \
         of the last fault, {twice} more than once",
        events.len()
    );
    until("the webhook is enabled", async || {
        let webhook: Value = api.fetch(&format!("/v1/webhooks/{}", issued.webhook.id)).await.json();
        (webhook["enabled"] == true).then_some(())
    })
    .await;
}
