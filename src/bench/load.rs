//! Who creates tasks, and who sees them recorded.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use taskmaster_openapi::task::NewTask;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::BenchArgs;
use super::client::{Client, Recorded};
use super::sample::Sample;

/// How often the number of recorded tasks is asked for: asking costs the database time, and so it is asked seldom while much is left.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(20);
const LOOK_EVERY_MAX: Duration = Duration::from_millis(500);
/// Between looks at whether more may be created.
const PAUSE: Duration = Duration::from_millis(2);

/// How much is created.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amount {
    pub tasks: u64,
    /// At most so many tasks wait to be recorded.
    pub waiting_max: u64,
}

/// What producers and the watcher share.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Tasks that are created, or about to be.
    asked: AtomicU64,
    recorded: AtomicU64,
    enough: AtomicBool,
    created: Mutex<Sample>,
}

impl Progress {
    /// No more is created.
    pub fn enough(&self) {
        self.enough.store(true, Ordering::Relaxed);
    }

    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// These were created.
    pub fn created(&self, ids: Vec<Uuid>) {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).offer(ids);
    }

    /// Some of those that were created.
    pub fn sample(&self) -> Vec<Uuid> {
        self.created.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Takes the next batch: how many tasks it has; none when there is no more to do.
    async fn next(&self, batch: u64, amount: Amount, rate: Option<u32>, began: Instant) -> Option<u64> {
        loop {
            if self.enough.load(Ordering::Relaxed) {
                return None;
            }
            let asked = self.asked();
            let count = batch.min(amount.tasks.saturating_sub(asked));
            if count == 0 {
                return None;
            }
            let waiting = asked.saturating_sub(self.recorded.load(Ordering::Relaxed));
            let allowed = rate.map_or(u64::MAX, |rate| (began.elapsed().as_secs_f64() * f64::from(rate)) as u64);
            if waiting + count > amount.waiting_max || asked + count > allowed {
                tokio::time::sleep(PAUSE).await;
            } else if self.asked.compare_exchange(asked, asked + count, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return Some(count);
            }
        }
    }
}

/// Creates tasks over as many connections as asked for; gives back how long each request took, in milliseconds.
pub(super) async fn create(
    args: &BenchArgs,
    client: &Client,
    task: &NewTask,
    amount: Amount,
    progress: &Arc<Progress>,
) -> Result<Vec<f64>, String> {
    let (batch, rate, began) = (args.batch, args.rate, Instant::now());
    let full = bytes::Bytes::from(client.body(task, batch)?);
    let mut producers = JoinSet::new();
    for _ in 0..args.connections {
        let (client, task, full, progress) = (client.clone(), task.clone(), full.clone(), progress.clone());
        producers.spawn(async move {
            let mut ms = Vec::new();
            while let Some(count) = progress.next(batch.into(), amount, rate, began).await {
                let count = count as u32;
                let body = if count == batch { full.clone() } else { client.body(&task, count)?.into() };
                let asked = Instant::now();
                let ids = client.create(body, count).await?;
                ms.push(asked.elapsed().as_secs_f64() * 1000.0);
                progress.created(ids);
            }
            Ok::<_, String>(ms)
        });
    }
    let mut all = Vec::new();
    while let Some(ms) = producers.join_next().await {
        all.extend(ms.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

/// How many tasks were recorded at which moment.
pub(super) type Samples = Vec<(Instant, u64)>;

/// Waits until so many tasks more are recorded than were `before` any was created; `wanted` says how many once it is known.
pub(super) async fn watch(
    args: &BenchArgs,
    client: &Client,
    progress: &Progress,
    before: Recorded,
    wanted: impl Fn() -> Option<u64>,
) -> Result<(Recorded, Samples), String> {
    let bar = bar(wanted());
    let (mut samples, mut moved): (Samples, Instant) = (vec![(Instant::now(), 0)], Instant::now());
    loop {
        let now = client.recorded().await? - before;
        let all = now.all().max(0) as u64;
        if samples.last().is_some_and(|(_, last)| *last != all) {
            moved = Instant::now();
        }
        samples.push((Instant::now(), all));
        progress.recorded.store(all, Ordering::Relaxed);
        bar.set_position(all);
        if wanted().is_some_and(|wanted| all >= wanted) {
            bar.finish_and_clear();
            return Ok((now, samples));
        }
        if moved.elapsed() > args.stall_seconds {
            let asked = progress.asked();
            return Err(format!("only {all} of {asked} tasks are recorded, and no more for a while"));
        }
        tokio::time::sleep(pause(&samples, wanted())).await;
    }
}

/// Until a quarter of what is left is recorded, at the rate so far.
fn pause(samples: &Samples, wanted: Option<u64>) -> Duration {
    let (Some((first, _)), Some((last, recorded)), Some(wanted)) = (samples.first(), samples.last(), wanted) else {
        return LOOK_EVERY_MAX / 5;
    };
    let left = wanted.saturating_sub(*recorded) as f64 / (*recorded).max(1) as f64;
    (*last - *first).mul_f64(left.min(1e3) / 4.0).clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX)
}

fn bar(tasks: Option<u64>) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(tasks, ProgressDrawTarget::stderr_with_hz(4));
    let template = match tasks {
        Some(_) => "{bar:40} {pos}/{len} recorded, {per_sec}, {elapsed}",
        None => "{spinner} {pos} recorded, {per_sec}, {elapsed}",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}
