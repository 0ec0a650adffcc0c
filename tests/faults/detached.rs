//! Targets that answer 202 and finish later: whatever is killed meanwhile, each task ends by the word of one of its attempts, once.
//!
//! The long form: `TASKMASTER_FAULTS_DETACHED_TASKS=5000 TASKMASTER_FAULTS_DETACHED_SECONDS=300 cargo test --release --test faults --
//! --nocapture accepted`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::{Value, json};
use taskmaster_openapi::task::TaskStatus;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::support::{Answer, Api, Arrival, Target};
use super::world::{Plan, World};

/// Something is killed this often.
const KILL_EVERY: Duration = Duration::from_millis(700);
/// And is away so long.
const AWAY: Duration = Duration::from_millis(400);
const BATCH: usize = 20;
/// How long a function takes at most, after its answer.
const WORKS_MS: u64 = 1_500;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// A function's last word, and what was answered: the task, which request of all it was, the status, and the outcome.
#[derive(Debug, Clone)]
struct Said {
    task: Uuid,
    run: usize,
    status: u16,
    outcome: String,
}

/// Says it until it is answered; an answer that was lost is asked for again.
async fn say(api: &Api, url: &str, report: &Value) -> (u16, Value) {
    loop {
        let sent = api.http().post(url).json(report).timeout(Duration::from_secs(5)).send().await;
        if let Ok(answer) = sent {
            let status = answer.status().as_u16();
            if status < 500 {
                return (status, answer.json().await.unwrap_or_default());
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a function does after its 202.
async fn function(api: Api, run: usize, arrival: Arrival) -> Said {
    let url = arrival.headers["taskmaster-callback-url"].to_str().unwrap().to_owned();
    let pause = Duration::from_millis(rand::rng().random_range(0..WORKS_MS / 2));
    tokio::time::sleep(pause).await;
    say(&api, &url, &json!({"status": "RUNNING", "percent": 50})).await;
    tokio::time::sleep(pause).await;
    let (status, answer) = say(&api, &url, &json!({"status": "COMPLETE", "result": {"run": run}})).await;
    let outcome = answer["outcome"].as_str().or(answer["code"].as_str()).unwrap_or_default().to_owned();
    Said { task: arrival.task_id.unwrap(), run, status, outcome }
}

/// Kills gateway, coordinators and workers by turns, one at a time, while there is time.
async fn kill_by_turns(world: &mut World, until: Instant) -> usize {
    let mut turn = 0;
    while Instant::now() < until {
        let parts = world.parts().count();
        let part = world.parts().nth(turn % parts).unwrap();
        turn += 1;
        part.kill9();
        tokio::time::sleep(AWAY).await;
        part.start().await;
        tokio::time::sleep(KILL_EVERY - AWAY).await;
    }
    turn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_targets_have_accepted_ends_once_by_their_word_while_everything_is_killed_by_turns() {
    let tasks = number("TASKMASTER_FAULTS_DETACHED_TASKS", 100) as usize;
    let faults = Duration::from_secs(number("TASKMASTER_FAULTS_DETACHED_SECONDS", 7));
    let plan = Plan { coordinators: 2, workers: 2, worker_arguments: &["--slots", "4"], ..Plan::default() };
    let mut world = World::start(plan).await;
    let api = world.api(0);
    let functions: Arc<Mutex<JoinSet<Said>>> = Arc::default();
    let target = Target::start({
        let (functions, api, handle) = (functions.clone(), api.clone(), tokio::runtime::Handle::current());
        let runs = std::sync::atomic::AtomicUsize::new(0);
        move |arrival| {
            let run = runs.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            functions.lock().unwrap().spawn_on(function(api.clone(), run, arrival.clone()), &handle);
            Answer::status(202)
        }
    })
    .await;
    let http = json!({"url": target.url("/"), "completion": "callback", "heartbeat_timeout_seconds": 30});
    let task = json!({"http": http, "max_attempts": 100, "retry": {"delays_seconds": [0.1]}, "timeout_seconds": 60});

    let creating = tokio::spawn({
        let api = api.clone();
        async move {
            let mut ids = Vec::new();
            while ids.len() < tasks {
                let batch = json!({"tasks": vec![task.clone(); BATCH], });
                let key = format!("batch-{}", ids.len());
                let headers = [("Idempotency-Key", key.as_str())];
                // The gateway is killed as well: asked for again until it is answered.
                match api.try_send(reqwest::Method::POST, "/v1/tasks/batch", Some(&batch), &headers).await {
                    Ok(reply) if reply.status.as_u16() == 201 => {
                        let created = reply.json();
                        let created = created["tasks"].as_array().unwrap();
                        ids.extend(created.iter().map(|task| task["id"].as_str().unwrap().parse::<Uuid>().unwrap()));
                        tokio::time::sleep(faults / (tasks / BATCH) as u32 / 2).await;
                    }
                    _ => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
            ids
        }
    });
    target.arrived(1).await;
    let kills = kill_by_turns(&mut world, Instant::now() + faults).await;
    let ids = creating.await.unwrap();
    world.ready().await;
    let back = Instant::now();
    world.api(0).all_ended_within(Duration::from_secs(120), &ids).await;
    let took = back.elapsed();

    let mut said = Vec::new();
    loop {
        let next = functions.lock().unwrap().try_join_next();
        match next {
            Some(word) => said.push(word.unwrap()),
            None if functions.lock().unwrap().is_empty() => break,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    let mut by_task: HashMap<Uuid, Vec<Said>> = HashMap::new();
    said.iter().for_each(|word| by_task.entry(word.task).or_default().push(word.clone()));
    for id in &ids {
        let task = world.api(0).get(*id).await;
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
        let counted: Value = serde_json::from_str(&task.result.unwrap().body.unwrap()).unwrap();
        for word in &by_task[id] {
            // Whose word counted was told so, however often it had to ask; and nobody else was.
            let told = word.status == 200;
            assert_eq!(told, counted["run"] == word.run, "{word:?}, and {counted} is recorded");
            assert!(told || (word.status == 410 && word.outcome == "attempt_over"), "{word:?}");
        }
        assert!(by_task[id].iter().any(|word| word.status == 200), "{:?}", by_task[id]);
    }
    assert_eq!(world.count("select count(*) from task_history where status <> 3").await, 0);
    // A function of a run that was given up may have left a row, which is found when it expires: none has a task in flight.
    assert_eq!(world.count("select count(*) from tasks").await, 0);
    let again = said.iter().filter(|word| word.outcome == "already_recorded").count();
    eprintln!(
        "    {} tasks, {} runs, {kills} kills: all within {took:.1?} of the last fault; {again} words were asked for again",
        ids.len(),
        target.count()
    );
}
