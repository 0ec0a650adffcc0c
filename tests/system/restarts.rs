//! Restarts in good order, draining, and workers that hang.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use taskmaster_openapi::task::TaskStatus;
use uuid::Uuid;

use crate::support::{Answer, Process, System, Target, until};

#[tokio::test]
async fn a_rolling_restart_of_coordinators_and_workers_loses_nothing_and_uses_up_no_attempt() {
    const TASKS: usize = 200;
    let target = Target::start(|_| Answer::ok().after(Duration::from_millis(300))).await;
    let mut system = System::builder().coordinators(2).workers(3).start().await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|n| {
            let mut task = target.task();
            task["delay_seconds"] = json!(n as f64 / 20.0);
            task["max_attempts"] = json!(1);
            task
        })
        .collect();
    let ids = system.api.create_batch(&tasks).await;
    target.arrived(5).await;
    for old in 0..3 {
        system.add_worker(&[]).await;
        system.workers[old].terminate().await;
    }
    for old in 0..2 {
        system.add_coordinator().await;
        system.coordinators[old].terminate().await;
    }
    system.api.all_ended(&ids).await;
    for id in &ids {
        let task = system.api.get(*id).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
        assert_eq!(target.of(*id).len(), 1, "{task:?}");
    }
    system.workers_listed(3).await;
}

#[tokio::test]
async fn a_worker_that_is_drained_through_the_api_finishes_its_work_and_ends() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(2))).await;
    let mut system = System::builder().start().await;
    let task = system.api.create(target.task()).await;
    target.arrived(1).await;
    let id = system.worker_id(0).await;
    let path = format!("/v1/workers/{id}/drain");
    let answer = system.api.send(Method::POST, &path, None, &[]).await;
    assert!(answer.status.is_success(), "{} {}", answer.status, answer.text);
    let status = system.workers[0].ended().await;
    assert!(status.success(), "{status}");
    assert_eq!(system.api.get(task.id).await.status, TaskStatus::Complete);
    assert_eq!(system.api.worker_ids().await, Vec::<String>::new());
    assert_eq!(target.count(), 1);
}

#[tokio::test]
async fn a_worker_that_hangs_holds_up_only_what_it_was_given_and_that_no_longer_than_its_lease() {
    let target = Target::quick().await;
    let mut system = System::builder().workers(2).start().await;
    let hung = system.worker_id(0).await;
    system.workers[0].pause();
    let began = Instant::now();
    let ids = system.api.create_batch(&vec![target.task(); 100]).await;
    // It has five slots: no more can be on their way to it.
    target.arrived(95).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    system.api.all_ended(&ids).await;
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    for id in ids {
        let task = system.api.get(id).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
        assert_ne!(task.worker_id.as_ref(), Some(&hung));
    }
}

#[tokio::test]
async fn a_coordinator_that_hangs_stops_nobody_and_may_come_back() {
    let target = Target::quick().await;
    let mut system = System::builder().coordinators(2).workers(2).start().await;
    system.coordinators[0].pause();
    let ids = system.api.create_batch(&vec![target.task(); 50]).await;
    system.api.all_ended(&ids).await;
    until("the workers are at home with the other one", async || {
        let workers = system.api.workers().await;
        (workers.len() == 2 && workers[0].home == workers[1].home).then_some(())
    })
    .await;
    system.coordinators[0].resume();
    system.ready().await;
    let more = system.api.create_batch(&vec![target.task(); 50]).await;
    system.api.all_ended(&more).await;
    for id in [ids, more].concat() {
        let task = system.api.get(id).await;
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    }
    assert_eq!(system.api.stats().await.tasks.complete, 100);
}

#[tokio::test]
async fn every_part_ends_in_good_order_on_sigterm_with_work_in_progress() {
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(1))).await;
    let mut system = System::builder().start().await;
    let ids: Vec<Uuid> = system.api.create_batch(&vec![target.task(); 20]).await;
    target.arrived(5).await;
    let System { gateways, coordinators, workers, .. } = &mut system;
    let mut all: Vec<&mut Process> = gateways.iter_mut().chain(coordinators).chain(workers).collect();
    for process in &mut all {
        process.signal(libc::SIGTERM);
    }
    for process in all {
        let status = process.ended().await;
        assert!(status.success(), "{} ended with {status}", process.name);
    }
    // Everything starts again, and all tasks complete.
    let again = System::builder().database(system.database.clone()).start().await;
    again.api.all_ended(&ids).await;
    for id in ids {
        let task = again.api.get(id).await;
        assert_eq!(task.status, TaskStatus::Complete, "{task:?}");
    }
}
