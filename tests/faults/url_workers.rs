//! Workers that are only a URL: however often the coordinators that look after it are killed, another one does within seconds, and every
//! task is recorded once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Answer, Arrival, Target, until_within};
use super::world::{Plan, World};

/// Between the kills, longer than it takes others to believe that a coordinator is dead.
const KILL_EVERY: Duration = Duration::from_secs(8);
const KILLS: usize = 3;
const TASKS: usize = 400;
const BATCH: usize = 20;
const SLOTS: usize = 8;

/// The task that a call carries, and the answer that it is done.
fn done(arrival: &Arrival) -> (Value, Answer) {
    let call: Value = serde_json::from_slice(&arrival.body).unwrap();
    let task = call["tasks"][0].clone();
    let of_it = |field: &str, value: &str| json!({"task_id": task["task_id"], "claim": task["claim"], field: value});
    let (result, report) = (of_it("code", "accepted"), of_it("status", "COMPLETE"));
    let answer = json!({"results": [result], "room": 0, "reports": [report]}).to_string();
    (task, Answer::ok().body(answer))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_task_of_a_url_is_recorded_once_while_its_coordinators_are_killed() {
    let mut world = World::start(Plan { coordinators: 2, workers: 0, ..Plan::default() }).await;
    let function = Target::start(|arrival: &Arrival| done(arrival).1.after(Duration::from_millis(300))).await;
    let api = world.api(0);
    let worker = json!({"url": function.url("/"), "slots": SLOTS, "queues": ["functions"], "push_secret": "the-secret-of-the-function"});
    assert_eq!(api.send(Method::PUT, "/v1/url-workers/function", Some(&worker), &[]).await.status, 201);
    let creating = tokio::spawn({
        let api = api.clone();
        let pause = KILL_EVERY * KILLS as u32 / (TASKS / BATCH) as u32;
        async move {
            let mut ids = Vec::new();
            for _ in 0..TASKS / BATCH {
                let task = json!({"queue": "functions", "http": {"url": "http://example.com/"}});
                ids.extend(api.create_batch(&vec![task; BATCH]).await);
                tokio::time::sleep(pause).await;
            }
            ids
        }
    });
    function.arrived(BATCH).await;
    let mut longest = Duration::ZERO;
    for _ in 0..KILLS {
        let shown: Value = api.fetch("/v1/url-workers/function").await.json();
        let home = shown["home"].as_str().unwrap().to_owned();
        let killed = world.coordinators.iter().position(|coordinator| coordinator.id == home).unwrap();
        world.coordinators[killed].kill9();
        let began = Instant::now();
        until_within(Duration::from_secs(30), "another looks after it", async || {
            let shown: Value = api.fetch("/v1/url-workers/function").await.json();
            (shown["home"] != home.as_str()).then_some(())
        })
        .await;
        longest = longest.max(began.elapsed());
        world.coordinators[killed].start().await;
        tokio::time::sleep(KILL_EVERY.saturating_sub(began.elapsed())).await;
    }
    let ids = creating.await.unwrap();
    api.all_ended_within(Duration::from_secs(120), &ids).await;

    let mut calls: HashMap<String, usize> = HashMap::new();
    for arrival in function.arrivals() {
        let (task, _) = done(&arrival);
        *calls.entry(task["task_id"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(ids.iter().all(|id| calls.contains_key(&id.to_string())), "every task was called");
    assert_eq!(world.count("select count(*) from task_history where status = 3 and attempt = 1").await as usize, TASKS);
    assert_eq!(world.count("select count(*) from tasks").await, 0);
    // A kill repeats what was in progress, and nothing else.
    let repeated: usize = calls.values().map(|times| times - 1).sum();
    assert!(repeated <= SLOTS * KILLS, "{repeated} calls were repeated");
    assert!(longest < Duration::from_secs(15), "nobody looked after it for {longest:?}");
    eprintln!(
        "    {TASKS} tasks, {KILLS} kills: another coordinator after {longest:.1?} at most, {repeated} calls repeated"
    );
}
