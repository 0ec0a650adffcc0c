//! A queue that lets three through at once, and a rate: whatever is killed, the target never sees four, nor more than the bucket gives.
//!
//! The long form: `TASKMASTER_FAULTS_QUEUE_TASKS=3000 cargo test --release --test faults -- --nocapture three_at_once`.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::support::{Answer, Api, Target};
use super::world::{Plan, World};

/// Something is killed this often, and is away for a part of it.
const KILL_EVERY: Duration = Duration::from_millis(900);
const AWAY: Duration = Duration::from_millis(400);
/// How long a request takes.
const WORK: Duration = Duration::from_millis(100);

fn tasks() -> usize {
    std::env::var("TASKMASTER_FAULTS_QUEUE_TASKS").map_or(250, |text| text.parse().expect("a number"))
}

async fn set(api: &Api, queue: &str, settings: Value) {
    let answer = api.send(Method::PATCH, &format!("/v1/queues/{queue}"), Some(&settings), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn request(target: &Target, queue: &str) -> Value {
    // Attempts enough for all that is killed under them; a killed worker uses none, but five of them end a task.
    json!({"queue": queue, "max_attempts": 20, "http": {"method": "GET", "url": target.url("/")}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_at_once_are_never_four_while_coordinators_and_workers_are_killed() {
    let plan = Plan { coordinators: 2, workers: 3, worker_arguments: &["--slots", "4"], ..Plan::default() };
    let mut world = World::start(plan).await;
    let api = world.api(0);
    let target = Target::start(|_| Answer::ok().after(WORK)).await;
    let rated = Target::quick().await;
    set(&api, "narrow", json!({"concurrency": 3})).await;
    set(&api, "slow", json!({"rate": {"count": 10, "period_seconds": 2}})).await;
    let mut ids = api.create_batch(&vec![request(&target, "narrow"); tasks()]).await;
    ids.extend(api.create_batch(&vec![request(&rated, "slow"); tasks() / 5]).await);
    target.arrived(3).await;
    let (began, mut kills) = (Instant::now(), 0);
    // One at a time, so that somebody is there to hear what has begun: a claim that nobody heard of for 5 s is a lost lease.
    while world.count("select count(*) from tasks where lane > 0").await > 0 {
        let (coordinators, workers) = (world.coordinators.len(), world.workers.len());
        let part = match kills % (coordinators + workers) {
            number if number < coordinators => &mut world.coordinators[number],
            number => &mut world.workers[number - coordinators],
        };
        part.kill9();
        tokio::time::sleep(AWAY).await;
        part.start().await;
        tokio::time::sleep(KILL_EVERY - AWAY).await;
        kills += 1;
        assert!(target.most_in_progress() <= 3, "{} at once", target.most_in_progress());
        assert!(began.elapsed() < Duration::from_secs(60) + WORK * tasks() as u32, "it does not end");
    }
    let took = began.elapsed();
    api.all_ended_within(Duration::from_secs(30), &ids).await;
    assert_eq!(target.most_in_progress(), 3, "the limit was used");
    assert_eq!(world.count("select count(*) from task_history where status <> 3").await, 0, "all of them are COMPLETE");
    let arrivals = rated.arrivals();
    // Ten at first, and five a second; a claim arrives within the quarter of a second before its task is due, or after a push was repeated.
    for (i, first) in arrivals.iter().enumerate() {
        let span = Duration::from_secs(4);
        let within = arrivals[i..].iter().filter(|one| one.at.duration_since(first.at) < span).count();
        assert!(within <= 10 + 20 + 5, "{within} within {span:?}");
    }
    eprintln!(
        "    {} tasks, three at once, and {} at a rate, over {kills} kills in {took:.1?}",
        tasks(),
        arrivals.len()
    );
}
