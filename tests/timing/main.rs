//! Claims about time, on whole processes. The tests take turns, so that none waits for another's work.
//!
//! Lower bounds (never early) are strict. Upper bounds hold for a machine that has time: what the machine itself was late by
//! meanwhile, which [`Yardstick`] measures with a timer of its own, is granted on top.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "../system/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use support::{Answer, System, Target};
use taskmaster_openapi::task::TaskStatus;

/// Whose turn it is.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Measures by how much this machine lets timers be late, until dropped.
struct Yardstick {
    lateness: Arc<Mutex<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Yardstick {
    const EVERY: Duration = Duration::from_millis(5);

    fn start() -> Self {
        let (lateness, stop) = (Arc::<Mutex<Vec<Duration>>>::default(), Arc::<AtomicBool>::default());
        let (kept, stopped) = (lateness.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let asked = Instant::now();
                std::thread::sleep(Self::EVERY);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(asked.elapsed().saturating_sub(Self::EVERY));
            }
        });
        Self { lateness, stop, thread: Some(thread) }
    }

    /// By how much it was late so far, at this percentile.
    fn percentile(&self, percent: usize) -> Duration {
        percentile(self.lateness.lock().unwrap_or_else(PoisonError::into_inner).clone(), percent)
    }

    /// The bound, and what the machine adds: every hop between processes may be late as a timer is.
    fn granted(&self, bound: Duration, percent: usize) -> Duration {
        const HOPS: u32 = 10;
        bound + self.percentile(percent) * HOPS
    }
}

impl Drop for Yardstick {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn percentile(mut values: Vec<Duration>, percent: usize) -> Duration {
    values.sort_unstable();
    values[((values.len() * percent).div_ceil(100)).clamp(1, values.len()) - 1]
}

#[tokio::test]
async fn no_task_is_early_and_99_of_100_arrive_within_50_ms() {
    const TASKS: usize = 200;
    let _turn = TURN.lock().await;
    let target = Target::quick().await;
    let system = System::builder().coordinators(2).workers(2).start().await;
    let yardstick = Yardstick::start();
    // Spread over the next forty seconds, beyond the thirty that a poll looks ahead, at odd instants.
    let began = Utc::now() + TimeDelta::seconds(1);
    let due = |n: usize| began + TimeDelta::microseconds((n * 39_000_000 / TASKS + (n * 7_919) % 150_000) as i64);
    let task = |n: usize| {
        let mut task = target.task();
        task["http"]["url"] = json!(target.url(&format!("/{n}")));
        task["scheduled_at"] = json!(due(n));
        task
    };
    let ids = system.api.create_batch(&(0..TASKS).map(task).collect::<Vec<Value>>()).await;
    let arrivals = target.arrived(TASKS).await;
    system.api.all_ended(&ids).await;
    assert_eq!(target.count(), TASKS);
    let mut lateness = Vec::new();
    for arrival in arrivals {
        let n: usize = arrival.path[1..].parse().unwrap();
        let late = arrival.wall - due(n);
        assert!(late >= TimeDelta::zero(), "task {n} arrived {} µs early", -late.num_microseconds().unwrap());
        lateness.push(late.to_std().unwrap());
    }
    for id in ids {
        let task = system.api.get(id).await;
        assert!(task.started_at.unwrap() >= task.scheduled_at, "{task:?}");
    }
    let (p50, p99) = (percentile(lateness.clone(), 50), percentile(lateness, 99));
    eprintln!("late by {p50:?} (median), {p99:?} (99 of 100); the machine's timers by {:?}", yardstick.percentile(99));
    assert!(p99 <= yardstick.granted(Duration::from_millis(50), 99), "{p99:?}");
}

#[tokio::test]
async fn a_task_for_now_starts_within_20_ms_on_an_idle_system() {
    const TASKS: usize = 30;
    let _turn = TURN.lock().await;
    let target = Target::quick().await;
    let system = System::builder().start().await;
    // Connections, statements and lanes are there after the first ones.
    for _ in 0..5 {
        system.api.run(target.task()).await;
    }
    let yardstick = Yardstick::start();
    let (mut started, mut arrived) = (Vec::new(), Vec::new());
    for _ in 0..TASKS {
        let sent = Instant::now();
        let task = system.api.run(target.task()).await;
        started.push((task.started_at.unwrap() - task.created_at).to_std().unwrap());
        arrived.push(target.of(task.id)[0].at - sent);
    }
    let (started, arrived) = (percentile(started, 50), percentile(arrived, 50));
    eprintln!("started after {started:?}, arrived after {arrived:?} (medians)");
    let bound = yardstick.granted(Duration::from_millis(20), 50);
    assert!(started <= bound && arrived <= bound, "{started:?}, {arrived:?}, allowed {bound:?}");
}

#[tokio::test]
async fn without_notifications_the_poll_gets_a_task_within_11_s() {
    let _turn = TURN.lock().await;
    let target = Target::quick().await;
    let system = System::builder().coordinator_args(&["--no-notifications"]).start().await;
    // Whatever woke the poller at the start is over after the first one.
    system.api.run(target.task()).await;
    let yardstick = Yardstick::start();
    for _ in 0..2 {
        let task = system.api.create(target.task()).await;
        let task = system.api.ended(task.id).await;
        let waited = (task.started_at.unwrap() - task.created_at).to_std().unwrap();
        eprintln!("started after {waited:?}");
        assert!(waited <= yardstick.granted(Duration::from_secs(11), 99), "{waited:?}");
    }
}

#[tokio::test]
async fn twelve_tasks_of_one_second_take_a_worker_with_five_slots_three_seconds() {
    let _turn = TURN.lock().await;
    let target = Target::start(|_| Answer::ok().after(Duration::from_secs(1))).await;
    let system = System::builder().start().await;
    let yardstick = Yardstick::start();
    let began = Instant::now();
    let ids = system.api.create_batch(&vec![target.task(); 12]).await;
    system.api.all_ended(&ids).await;
    let took = began.elapsed();
    eprintln!("took {took:?}");
    assert_eq!((target.count(), target.most_in_progress()), (12, 5));
    for id in ids {
        let task = system.api.get(id).await;
        assert_eq!((task.status, task.attempt), (TaskStatus::Complete, 1), "{task:?}");
    }
    assert!(took >= Duration::from_secs(3), "{took:?}");
    assert!(took <= yardstick.granted(Duration::from_millis(4_500), 99), "{took:?}");
}
