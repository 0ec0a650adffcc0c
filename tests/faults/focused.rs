//! One fault at a time: what it does to the tasks that it hits, and how long that takes.

use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use taskmaster_openapi::report::{ReportCode, TaskClaim};
use taskmaster_openapi::task::{ErrorCode, TaskStatus};
use uuid::Uuid;

use super::checker::assert_whole;
use super::history::{Answer, Execution, Spec};
use super::hits::{ENOUGH, Hits, Whose, volley};
use super::liar::{Liar, lies};
use super::load::{Book, Clients, Pace, hold_back};
use super::proxy::Flows;
use super::support::until;
use super::target::Deed;
use super::world::{END, Plan, World};

impl World {
    /// Creates one task, which is accepted.
    async fn create(&self, book: &Book, deed: Deed, spec: Spec) -> Uuid {
        let document = self.targets.task(deed, &spec);
        let [id] = book.create(0, vec![(spec, document)]).await.try_into().expect("accepted");
        id
    }

    /// Waits until a task has begun to run so many times.
    async fn runs(&self, task: Uuid, count: usize) -> Vec<Execution> {
        let runs = async || Some(self.targets.of(task)).filter(|runs| runs.len() >= count);
        until(&format!("{count} runs of a task"), runs).await
    }
}

#[tokio::test]
async fn what_a_stopped_worker_held_runs_elsewhere_and_its_late_reports_change_nothing() {
    let mut world = World::start(Plan { workers: 1, ..Plan::default() }).await;
    let book = world.book();
    // One that ends while the worker is stopped, and one that the worker still runs when it goes on.
    let over = world.create(&book, Deed::Http { ms: 1_500 }, Spec::default()).await;
    let running = world.create(&book, Deed::Http { ms: 12_000 }, Spec::default()).await;
    for task in [over, running] {
        world.runs(task, 1).await;
        world.api(0).wait_until(task, TaskStatus::Started).await;
    }
    world.workers[0].pause();
    let stopped = world.workers[0].id.clone();
    let other = world.add_worker().await;
    for task in [over, running] {
        world.runs(task, 2).await;
    }
    let recorded = world.api(0).ended(over).await;
    assert_eq!(recorded.status, TaskStatus::Complete);
    assert_eq!(recorded.worker_id.as_ref(), Some(&world.workers[other].id));

    world.workers[0].resume();
    let broken_off = async || world.targets.of(running)[0].ended;
    until("the stopped worker's run is broken off", broken_off).await;
    assert!(!world.targets.of(running)[0].succeeded, "it did not go on to its end");
    let ended = world.api(0).ended(running).await;
    assert_eq!((ended.status, ended.attempt), (TaskStatus::Complete, 1), "a lost worker uses up no attempt");
    assert_ne!(ended.worker_id.as_ref(), Some(&stopped));
    world.ready().await;
    assert_eq!(world.api(0).get(over).await, recorded, "the late report of its end changed nothing");
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
}

#[tokio::test]
async fn what_a_killed_worker_held_runs_elsewhere_within_two_seconds() {
    let mut world = World::start(Plan { heartbeat_seconds: 5.0, ..Plan::default() }).await;
    let book = world.book();
    let task = world.create(&book, Deed::Http { ms: 3_000 }, Spec::default()).await;
    world.runs(task, 1).await;
    let holder = world.api(0).wait_until(task, TaskStatus::Started).await.worker_id.unwrap();
    let number = world.workers.iter().position(|worker| worker.id == holder).unwrap();
    let began = Instant::now();
    world.workers[number].kill9();
    world.runs(task, 2).await;
    let took = began.elapsed();
    eprintln!("    what a killed worker held began elsewhere after {took:.2?}");
    assert!(took <= Duration::from_secs(2), "{took:?}");
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
}

#[tokio::test]
async fn dispatch_goes_on_without_a_gap_of_two_seconds_when_one_of_two_coordinators_is_killed() {
    let mut world = World::start(Plan { coordinators: 2, workers: 4, heartbeat_seconds: 5.0, ..Plan::default() }).await;
    let book = world.book();
    let stream = async |seconds: u64| {
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            world.create(&book, Deed::Http { ms: 0 }, Spec::default()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    stream(2).await;
    let killed = Instant::now();
    world.coordinators[0].kill9();
    let stream = async |seconds: u64| {
        while killed.elapsed() < Duration::from_secs(seconds) {
            world.create(&book, Deed::Http { ms: 0 }, Spec::default()).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    stream(5).await;
    let mut began: Vec<f64> = world.targets.executions().iter().map(|run| run.began.monotonic).collect();
    began.sort_by(f64::total_cmp);
    let gap = began.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    eprintln!("    one of two coordinators was killed: the longest time in which nothing began was {gap:.3} s");
    assert!(gap <= 2.0, "nothing began for {gap:.3} s");
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
}

const SMALL: Pace = Pace { clients: 4, pause_ms: 200, batch_max: 8, commands: 15 };

#[tokio::test]
async fn the_database_killed_under_load_costs_no_accepted_task() {
    let mut world = World::start(Plan { gateways: 2, own_cluster: true, ..Plan::default() }).await;
    let book = world.book();
    let clients = Clients::start(&book, &world.targets, SMALL, 1);
    until("tasks are accepted", async || (book.accepted() >= 100).then_some(())).await;
    world.kill_database();
    let before = book.accepted();
    // Long enough for every part to notice, and for heartbeats to fail.
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.start_database().await;
    until("tasks are accepted again", async || (book.accepted() >= before + 100).then_some(())).await;
    let mut history = clients.stop().await;
    world.finish(&mut history, END).await;
    assert_whole(&history);
    let unknown = history.requests.iter().filter(|request| request.answer == Answer::Unknown).count();
    assert!(unknown > 0, "the fault hit no request");
}

/// Longer than every lease: a coordinator's is 5 s, a worker's 3 s here.
const STOPPED: Duration = Duration::from_secs(7);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_stopped_past_every_lease_and_goes_on_costs_no_accepted_task() {
    let worker_arguments = &["--slots", "40"];
    let mut world =
        World::start(Plan { coordinators: 2, own_cluster: true, worker_arguments, ..Plan::default() }).await;
    let book = world.book();
    let mut clients = Clients::start(&book, &world.targets, SMALL, 1);
    let held_back = hold_back(&book, &world.database.url, 400);
    let mut hits = Hits::default();
    while hits.each().iter().any(|count| *count < ENOUGH) {
        assert!(hits.times < 15, "the fault hit too little: {hits}");
        volley(&book, &world.targets, &world.database.url).await;
        hits.count(&world.database.url, Whose::Everybodys).await;
        hits.creating += clients.volley(0, hits.times).await;
        world.pause_database();
        tokio::time::sleep(STOPPED).await;
        world.resume_database();
        let before = book.accepted();
        until("tasks are accepted again", async || (book.accepted() >= before + 20).then_some(())).await;
    }
    eprintln!("    database stopped: {hits}");
    drop(held_back);
    let mut history = clients.stop().await;
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert!(world.parts().all(|part| !part.ended_by_itself()));
}

#[tokio::test]
async fn a_task_that_kills_its_worker_every_time_is_failed_and_everything_else_goes_on() {
    let mut world = World::start(Plan { workers: 3, ..Plan::default() }).await;
    let book = world.book();
    let spec = Spec { poison: true, ..Spec::default() };
    let poison = world.create(&book, Deed::Command { ms: 0 }, spec).await;
    let api = world.api(0);
    let task = until("the poison task ends", async || {
        world.tend().await;
        world.create(&book, Deed::Http { ms: 0 }, Spec::default()).await;
        Some(api.get(poison).await).filter(|task| task.status.is_terminal())
    })
    .await;
    assert_eq!(task.status, TaskStatus::Failed, "{task:?}");
    assert_eq!(task.error.unwrap().code, ErrorCode::WorkerLost);
    assert_eq!(world.targets.of(poison).len(), 5, "five workers, and no more");
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
    let others = history.rows.iter().filter(|row| row.id != poison);
    assert!(others.clone().count() > 10);
    assert!(others.clone().all(|row| row.status == TaskStatus::Complete), "{:?}", others.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_creating_request_whose_answer_is_lost_stores_its_tasks_once_and_whole() {
    let mut world = World::start(Plan::default()).await;
    let book = world.book();
    world.gateways[0].reached.set(Flows::LOST_ANSWERS);
    for size in [1, 3, 1] {
        let task = || (Spec::default(), world.targets.task(Deed::Http { ms: 0 }, &Spec::default()));
        assert!(book.create(0, (0..size).map(|_| task()).collect()).await.is_empty());
    }
    world.gateways[0].reached.set(Flows::PASS);
    let mut history = book.take();
    assert!(history.requests.iter().all(|request| request.answer == Answer::Unknown));
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert_eq!(history.rows.len(), 5, "each took effect");
    assert_eq!(history.executions.len(), 5);
}

#[tokio::test]
async fn tasks_whose_push_was_answered_in_vain_run_once() {
    let mut world = World::start(Plan { workers: 1, ..Plan::default() }).await;
    let book = world.book();
    world.workers[0].reached.set(Flows::LOST_ANSWERS);
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(world.create(&book, Deed::Http { ms: 300 }, Spec::default()).await);
    }
    for task in &tasks {
        world.runs(*task, 1).await;
    }
    world.api(0).all_ended(&tasks).await;
    world.workers[0].reached.set(Flows::PASS);
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert_eq!(history.executions.len(), 5, "no push was run twice");
}

#[tokio::test]
async fn reports_whose_answers_are_lost_are_recorded_once() {
    let mut world = World::start(Plan { workers: 1, heartbeat_seconds: 5.0, ..Plan::default() }).await;
    let book = world.book();
    world.coordinators[0].reached.set(Flows::LOST_ANSWERS);
    let mut tasks = Vec::new();
    for fails in [0, 1, 3, 0, 1] {
        let spec = Spec { fails, ..Spec::default() };
        tasks.push(world.create(&book, Deed::Http { ms: 20 }, spec).await);
    }
    world.api(0).all_ended(&tasks).await;
    world.coordinators[0].reached.set(Flows::PASS);
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert_eq!(history.executions.len(), 1 + 2 + 3 + 1 + 2, "every attempt ran once");
}

/// Texts of statements of the store, which nothing else has.
const CLAIM: &str = "from seated, number";
const RECORD: &str = "gone as (\n    delete from tasks t using done";

#[tokio::test]
async fn tasks_whose_claim_was_answered_in_vain_run_within_seconds_and_once() {
    let mut world = World::start(Plan { workers: 1, heartbeat_seconds: 5.0, ..Plan::default() }).await;
    let book = world.book();
    let database = |world: &World| world.coordinators[0].database.as_ref().unwrap().left_to_lose();
    world.coordinators[0].database.as_ref().unwrap().lose_answers_of(CLAIM, 2);
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..5 {
        tasks.push(world.create(&book, Deed::Http { ms: 0 }, Spec::default()).await);
    }
    until("answers are lost", async || (database(&world) == 0).then_some(())).await;
    world.api(0).all_ended(&tasks).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert_eq!(history.executions.len(), 5);
    assert!(history.rows.iter().any(|row| row.hand_backs > 0), "no claim was lost");
}

#[tokio::test]
async fn outcomes_whose_recording_was_answered_in_vain_are_recorded_once() {
    let mut world = World::start(Plan { workers: 1, heartbeat_seconds: 5.0, ..Plan::default() }).await;
    let book = world.book();
    world.coordinators[0].database.as_ref().unwrap().lose_answers_of(RECORD, 3);
    let mut tasks = Vec::new();
    for fails in [0, 1, 3, 0, 1] {
        let spec = Spec { fails, ..Spec::default() };
        tasks.push(world.create(&book, Deed::Http { ms: 50 }, spec).await);
    }
    world.api(0).all_ended(&tasks).await;
    assert_eq!(world.coordinators[0].database.as_ref().unwrap().left_to_lose(), 0, "answers were lost");
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert_eq!(history.executions.len(), 1 + 2 + 3 + 1 + 2, "every attempt ran once");
}

#[tokio::test]
async fn a_worker_that_lies_about_what_it_was_never_given_or_another_has_changes_nothing() {
    let mut world = World::start(Plan { workers: 1, ..Plan::default() }).await;
    let book = world.book();
    let coordinator = world.coordinators[0].reached.url();
    let honest = world.workers[0].id.clone();
    let running = world.create(&book, Deed::Http { ms: 3_000 }, Spec::default()).await;
    let over = world.create(&book, Deed::Http { ms: 0 }, Spec::default()).await;
    let later = Utc::now() + TimeDelta::seconds(6);
    let later = DateTime::from_timestamp_micros(later.timestamp_micros());
    let waiting = world.create(&book, Deed::Http { ms: 0 }, Spec { scheduled_at: later, ..Spec::default() }).await;
    world.api(0).ended(over).await;
    world.api(0).wait_until(running, TaskStatus::Started).await;

    let mut liar = Liar::new().await;
    liar.beat(&coordinator, 0, Vec::new()).await.unwrap();
    let highest = world.count("select max(id) from claims").await;
    let before = [world.api(0).get(running).await, world.api(0).get(over).await, world.api(0).get(waiting).await];
    for claim in 1..=highest + 1 {
        for task_id in [running, over, waiting, Uuid::now_v7()] {
            let claim = TaskClaim { task_id, claim };
            liar.beat(&coordinator, 0, vec![claim]).await.unwrap();
            for lie in lies(claim) {
                let results = liar.report(&coordinator, &liar.id, vec![lie.clone(), lie.clone()]).await.unwrap();
                assert!(results.iter().all(|result| result.status >= 400), "{lie:?}: {results:?}");
                let refused = liar.report(&coordinator, &honest, vec![lie]).await.unwrap_err();
                assert_eq!(refused.status().map(|status| status.as_u16()), Some(401));
            }
        }
    }
    let after = [world.api(0).get(running).await, world.api(0).get(over).await, world.api(0).get(waiting).await];
    assert_eq!(before, after);
    liar.leave(&coordinator).await;
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
    assert_eq!(history.executions.len(), 3, "nothing was run again, and nothing was stopped");
}

#[tokio::test]
async fn a_worker_that_contradicts_itself_has_its_first_outcome_recorded() {
    let mut world = World::start(Plan { workers: 1, ..Plan::default() }).await;
    let book = world.book();
    let coordinator = world.coordinators[0].reached.url();
    let mut liar = Liar::new().await;
    liar.beat(&coordinator, 1, Vec::new()).await.unwrap();
    let mut document = world.targets.task(Deed::Http { ms: 0 }, &Spec::default());
    // A queue of the liar's own would be the honest worker's, too: it serves them all.
    world.workers[0].kill9();
    document["queue"] = json!("lies");
    let [task] = book.create(0, vec![(Spec::default(), document)]).await.try_into().unwrap();
    let given = until("the liar is given a task", async || liar.given().first().cloned()).await;
    assert_eq!(given.task_id, task);
    let claim = TaskClaim { task_id: task, claim: given.claim };
    let other = |by: i64| lies(TaskClaim { claim: claim.claim + by, ..claim });
    for lie in other(-1).into_iter().filter(|lie| lie.claim > 0).chain(other(1)) {
        let [result] = liar.report(&coordinator, &liar.id, vec![lie]).await.unwrap().try_into().unwrap();
        assert_eq!(result.status, 409, "{result:?}");
    }
    let complete = lies(claim).remove(1);
    let [result] = liar.report(&coordinator, &liar.id, vec![complete]).await.unwrap().try_into().unwrap();
    assert_eq!(result.code, ReportCode::Recorded);
    let recorded = world.api(0).get(task).await;
    for lie in lies(claim) {
        let [result] = liar.report(&coordinator, &liar.id, vec![lie]).await.unwrap().try_into().unwrap();
        assert_eq!(result.code, ReportCode::AlreadyRecorded);
    }
    assert_eq!(world.api(0).get(task).await, recorded);
    assert_eq!(recorded.status, TaskStatus::Complete);
    liar.leave(&coordinator).await;
}

#[tokio::test]
async fn a_task_that_its_worker_forgets_and_one_that_it_never_ends_are_moved_on() {
    let coordinator_arguments = &["--timeout-margin-seconds", "1"];
    let mut world = World::start(Plan { workers: 0, coordinator_arguments, ..Plan::default() }).await;
    let book = world.book();
    let coordinator = world.coordinators[0].reached.url();
    let mut liar = Liar::new().await;
    liar.beat(&coordinator, 2, Vec::new()).await.unwrap();
    let create = async |spec: Spec, timeout: u64| {
        let mut document = world.targets.task(Deed::Http { ms: 0 }, &spec);
        (document["queue"], document["timeout_seconds"]) = (json!("lies"), json!(timeout));
        let [task] = book.create(0, vec![(spec, document)]).await.try_into().unwrap();
        let given = async || liar.given().into_iter().find(|given| given.task_id == task);
        let given = until("the worker is given a task", given).await;
        TaskClaim { task_id: task, claim: given.claim }
    };
    let hung = create(Spec { fails: 1, max_attempts: 1, ..Spec::default() }, 1).await;
    let forgotten = create(Spec::default(), 300).await;
    let started = lies(hung).remove(0);
    liar.report(&coordinator, &liar.id, vec![started]).await.unwrap();
    let began = Instant::now();
    world.add_worker().await;
    let api = world.api(0);
    let mut hung_took = None;
    let ended = until("both are moved on", async || {
        // It is there, and holds but the one.
        let _ = liar.beat(&coordinator, 0, vec![hung]).await;
        let tasks = [api.get(hung.task_id).await, api.get(forgotten.task_id).await];
        if tasks[0].status.is_terminal() {
            hung_took.get_or_insert(began.elapsed());
        }
        tasks.iter().all(|task| task.status.is_terminal()).then_some(tasks)
    })
    .await;
    assert_eq!(ended[0].error.as_ref().map(|error| error.code), Some(ErrorCode::Timeout), "{ended:?}");
    assert!(hung_took.unwrap() < Duration::from_secs(6), "{hung_took:?}: a time-out of 1 s, and a margin of 1 s");
    assert_eq!(ended[1].status, TaskStatus::Complete, "{ended:?}");
    assert!(began.elapsed() < Duration::from_secs(16), "{:?}", began.elapsed());
    liar.leave(&coordinator).await;
    let mut history = book.take();
    world.finish(&mut history, END).await;
    assert_whole(&history);
}
