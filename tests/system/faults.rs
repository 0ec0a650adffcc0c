//! Processes that die, hang, come back, and start in any order.

use std::collections::HashSet;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rand::Rng;
use serde_json::json;
use taskmaster_openapi::task::{ErrorCode, TaskStatus};
use uuid::Uuid;

use crate::support::{
    Answer, Api, Cluster, Database, JOIN_TOKEN, Process, System, Target, command_line, until, until_within,
};

/// A worker that says nothing is gone by then, and its tasks run elsewhere.
const GONE_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_worker_that_says_nothing_is_gone_within_20_s_and_one_heartbeat_brings_it_back() {
    let mut system = System::builder().workers(2).start().await;
    let silent = system.worker_id(0).await;
    let mut events = system.api.events("types=worker.lost,worker.joined").await;
    system.workers[0].pause();
    let began = Instant::now();
    until_within(GONE_WITHIN, "the silent worker is gone", async || {
        (!system.api.worker_ids().await.contains(&silent)).then_some(())
    })
    .await;
    assert!(began.elapsed() >= Duration::from_secs(9), "two heartbeats may be missed");
    let lost = loop {
        // The joining of both may still have been on its way to the log.
        let event = events.next().await.event();
        if event.event_type.as_str() == "worker.lost" {
            break event;
        }
    };
    assert_eq!(lost.worker_id.as_ref(), Some(&silent));
    assert!(began.elapsed() < GONE_WITHIN, "{:?}", began.elapsed());

    system.workers[0].resume();
    let joined = events.next().await.event();
    assert_eq!((joined.event_type.as_str(), joined.worker_id.as_ref()), ("worker.joined", Some(&silent)));
    assert!(system.api.worker_ids().await.contains(&silent));
}

#[tokio::test]
async fn a_worker_that_is_asked_to_stop_finishes_its_task_and_leaves_at_once() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(2))).await;
    let mut system = System::builder().start().await;
    let task = system.api.create(target.task()).await;
    target.arrived(1).await;
    system.workers[0].terminate().await;
    // It said good-bye before it ended.
    assert_eq!(system.api.worker_ids().await, Vec::<String>::new());
    let task = system.api.get(task.id).await;
    assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
    assert_eq!(target.count(), 1);
}

#[tokio::test]
async fn a_task_whose_worker_is_killed_runs_again_elsewhere_within_seconds() {
    let target = Target::start(|arrival| match arrival.headers.get("x-slow").is_some() {
        true => Answer::ok().after(Duration::from_secs(4)),
        false => Answer::ok(),
    })
    .await;
    let mut system = System::builder().start().await;
    let first = system.worker_id(0).await;
    let slow = json!({"method": "GET", "url": target.url("/"), "headers": {"x-slow": "yes"}});
    let task = system.api.create(json!({"http": slow, "max_attempts": 1})).await;
    target.arrived(1).await;
    system.api.wait_until(task.id, TaskStatus::Started).await;
    let second = system.add_worker(&[]).await;
    system.workers_listed(2).await;
    system.workers[0].kill9();
    let killed = Instant::now();
    let arrivals = target.arrived(2).await;
    let after = arrivals[1].at.saturating_duration_since(killed);
    assert!(after < Duration::from_secs(5), "its port refuses connections, and still it took {after:?}");
    let task = system.api.ended(task.id).await;
    // The lost attempt does not count against the task.
    assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
    let attempts = system.api.attempts(task.id).await;
    assert_eq!(attempts.len(), 2, "{attempts:?}");
    assert_eq!((attempts[0].status, &attempts[0].worker_id), (TaskStatus::Failed, &first));
    assert_eq!(attempts[0].error.as_ref().map(|error| error.code), Some(ErrorCode::WorkerLost));
    assert_eq!((attempts[1].status, &attempts[1].worker_id), (TaskStatus::Complete, &second));
}

#[tokio::test]
async fn the_report_of_a_worker_that_was_taken_for_dead_changes_nothing() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(2))).await;
    let mut system = System::builder().start().await;
    let task = system.api.create(target.task()).await;
    target.arrived(1).await;
    system.api.wait_until(task.id, TaskStatus::Started).await;
    let second = system.add_worker(&[]).await;
    system.workers_listed(2).await;
    system.workers[0].pause();
    let paused = Instant::now();
    target.arrived(2).await;
    assert!(paused.elapsed() < GONE_WITHIN, "{:?}", paused.elapsed());
    let ended = system.api.ended(task.id).await;
    assert_eq!((ended.status, ended.worker_id.as_ref()), (TaskStatus::Complete, Some(&second)), "{ended:?}");

    // It finds its answer, reports, and is told that this is over: it holds nothing any more.
    system.workers[0].resume();
    until("the worker is back with empty hands", async || {
        let workers = system.api.workers().await;
        (workers.len() == 2 && workers.iter().all(|worker| worker.held == 0)).then_some(())
    })
    .await;
    assert_eq!(system.api.get(task.id).await, ended);
    assert_eq!(system.api.attempts(task.id).await.len(), 2);
    assert_eq!(system.api.stats().await.tasks.complete, 1);
    // And it works again.
    system.workers[1].terminate().await;
    assert_eq!(system.api.run(target.task()).await.status, TaskStatus::Complete);
}

#[tokio::test]
async fn when_one_of_two_coordinators_is_killed_dispatch_goes_on_and_nothing_is_lost() {
    const TASKS: usize = 120;
    let target = Target::quick().await;
    let mut system = System::builder().coordinators(2).workers(4).start().await;
    let homes = async || {
        let homes: HashSet<Uuid> = system.api.workers().await.iter().filter_map(|worker| worker.home).collect();
        (homes.len() == 2).then_some(())
    };
    until("each coordinator has workers", homes).await;
    // One every tenth of a second, for twelve seconds.
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let mut task = target.task();
            task["delay_seconds"] = json!(1.0 + n as f64 / 10.0);
            task
        })
        .collect();
    let ids = system.api.create_batch(&tasks).await;
    target.arrived(TASKS / 4).await;
    system.coordinators[0].kill9();
    system.api.all_ended(&ids).await;

    let arrivals = target.arrivals();
    for id in &ids {
        let task = system.api.get(*id).await;
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
        assert!(!target.of(*id).is_empty());
    }
    let gap = arrivals.windows(2).map(|pair| pair[1].at - pair[0].at).max().unwrap();
    assert!(gap < Duration::from_secs(3), "no task arrived for {gap:?}");
    // The workers of the one that died turn to the other.
    until("all workers are at home with the coordinator that is left", async || {
        let homes: HashSet<_> = system.api.workers().await.iter().map(|worker| worker.home).collect();
        (homes.len() == 1).then_some(())
    })
    .await;
    assert_eq!(system.api.workers().await.len(), 4);
}

#[tokio::test]
async fn a_database_that_goes_away_for_20_s_ends_no_process_and_work_goes_on_by_itself() {
    let mut cluster = Cluster::start().await;
    let migrated = command_line(&["migrate"]).env("DATABASE_URL", cluster.database().url).output().unwrap();
    assert!(migrated.status.success(), "{migrated:?}");
    let target = Target::start(|arrival| match arrival.path.as_str() {
        "/slow" => Answer::ok().after(Duration::from_secs(6)),
        _ => Answer::ok(),
    })
    .await;
    let builder = System::builder().coordinators(2).workers(2).database(cluster.database());
    let mut system = builder.start().await;
    let slow = json!({"http": {"method": "GET", "url": target.url("/slow")}});
    let running = system.api.create_batch(&vec![slow; 4]).await;
    let mut later = target.task();
    later["delay_seconds"] = json!(10);
    let due_meanwhile = system.api.create_batch(&vec![later; 20]).await;
    target.arrived(4).await;
    for id in &running {
        system.api.wait_until(*id, TaskStatus::Started).await;
    }

    cluster.stop().await;
    let stopped = Instant::now();
    let parts: Vec<Api> = system.coordinator_urls.iter().chain([&system.api.url]).map(|url| Api::new(url)).collect();
    for part in &parts {
        until("it says that it is not ready", async || part.readyz().await.filter(|status| *status == 503)).await;
    }
    let refused = system.api.post("/v1/tasks", &target.task()).await;
    assert_eq!((refused.status.as_u16(), refused.header("content-type")), (503, Some("application/problem+json")));
    tokio::time::sleep_until((stopped + Duration::from_secs(20)).into()).await;
    for part in &parts {
        assert_eq!((part.readyz().await, part.fetch("/livez").await.status.as_u16()), (Some(503), 200));
    }
    for number in 0..2 {
        let worker = Api::new(&system.worker_url(number).await);
        assert_eq!(worker.fetch("/livez").await.status.as_u16(), 200);
    }

    cluster.start_again().await;
    system.ready().await;
    let afterwards = system.api.create_batch(&vec![target.task(); 20]).await;
    let all: Vec<Uuid> = [&running[..], &due_meanwhile, &afterwards].concat();
    system.api.all_ended(&all).await;
    for id in &all {
        let task = system.api.get(*id).await;
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    }
    for id in &running {
        // They ended while the database was away; that was reported once it was back, and nobody ran them again.
        assert_eq!((target.of(*id).len(), system.api.attempts(*id).await.len()), (1, 1));
    }
    assert_eq!(system.api.stats().await.tasks.complete, all.len() as i64);
    let System { gateways, coordinators, workers, .. } = &mut system;
    for process in gateways.iter_mut().chain(coordinators).chain(workers) {
        assert!(!process.has_ended(), "{} has ended", process.name);
    }
}

/// A port that nobody uses, outside of the range that outgoing connections take theirs from.
fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::rng().random_range(10_000..20_000u16));
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

#[tokio::test]
async fn the_parts_start_in_any_order_and_each_says_what_it_waits_for() {
    let database = Database::empty().await;
    let environment = [("DATABASE_URL", database.url.as_str())];
    let listen = format!("127.0.0.1:{}", free_port());
    let coordinator_url = format!("http://{listen}");
    let waits_for = async |api: &Api, what: &str| {
        until(&format!("{} waits for {what}", api.url), async || {
            let reply = api.fetch("/readyz").await;
            assert_eq!(reply.status.as_u16(), 503);
            reply.text.contains(what).then_some(())
        })
        .await;
        assert_eq!(api.fetch("/livez").await.status.as_u16(), 200);
    };
    let args = ["worker", "--coordinator-url", &coordinator_url, "--join-token", JOIN_TOKEN, "--allow-commands"];
    let mut worker = Process::spawn("worker", &args, &[]);
    let address = worker.logged("worker listens").await["address"].as_str().unwrap().to_owned();
    let worker_api = Api::new(&format!("http://{address}"));
    waits_for(&worker_api, "coordinator").await;

    let mut gateway = Process::spawn("gateway", &["gateway", "--listen", "127.0.0.1:0"], &environment);
    let address = gateway.logged("gateway").await["address"].as_str().unwrap().to_owned();
    let api = Api::new(&format!("http://{address}"));
    waits_for(&api, "schema").await;
    let refused = api.post("/v1/tasks", &json!({"command": "true"})).await;
    assert_eq!(refused.status.as_u16(), 503, "{}", refused.text);

    let args = ["coordinator", "--listen", &listen, "--join-token", JOIN_TOKEN];
    let mut coordinator = Process::spawn("coordinator", &args, &environment);
    coordinator.logged("coordinator").await;
    let coordinator_api = Api::new(&coordinator_url);
    waits_for(&coordinator_api, "schema").await;
    waits_for(&worker_api, "coordinator").await;

    let mut migrate = Process::spawn("migrate", &["migrate"], &environment);
    assert!(migrate.ended().await.success());
    for part in [&api, &coordinator_api, &worker_api] {
        until(&format!("{} is ready", part.url), async || part.readyz().await.filter(|status| *status == 200)).await;
    }
    assert_eq!(api.run(json!({"command": "true"})).await.status, TaskStatus::Complete);
    for mut process in [worker, gateway, coordinator] {
        process.terminate().await;
    }
}

#[tokio::test]
async fn a_gateway_accepts_tasks_while_no_coordinator_is_up() {
    let target = Target::quick().await;
    let mut system = System::builder().coordinators(0).workers(0).start().await;
    let ids = system.api.create_batch(&vec![target.task(); 10]).await;
    system.add_coordinator().await;
    system.add_worker(&[]).await;
    system.api.all_ended(&ids).await;
    assert_eq!(target.count(), 10);
}
