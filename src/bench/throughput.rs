//! Tasks a second: as many as fit, and for how long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_openapi::task::NewTask;
use uuid::Uuid;

use super::BenchArgs;
use super::client::Client;
use super::figures::Report;
use super::load::{Amount, Progress, Samples, create, watch};

/// Tasks that wait at most while the rate is sustained.
const WAITING_MAX: u64 = 20_000;

/// Creates all tasks as fast as possible, and waits until each is recorded.
pub(super) async fn measure(args: &BenchArgs, client: &Client, task: &NewTask) -> Result<Report, String> {
    let tasks = args.tasks_or(50_000).into();
    let progress = Arc::new(Progress::default());
    let amount = Amount { tasks, waiting_max: u64::MAX };
    let before = client.recorded().await?;
    let began = Instant::now();
    let ((create_ms, created_in), (recorded, _)) = tokio::try_join!(
        async {
            let create_ms = create(args, client, task, amount, &progress).await?;
            Ok((create_ms, began.elapsed()))
        },
        watch(args, client, &progress, before, || Some(tasks)),
    )?;
    let recorded_in = began.elapsed();
    let report = Report::new(format!("{tasks} tasks, {} of them failed", recorded.failed))
        .rate("created", tasks as f64, created_in, "tasks")
        .rate("recorded", tasks as f64, recorded_in, "tasks")
        .times("create", create_ms, "a request");
    times(report, client, progress.sample()).await
}

/// Creates all tasks as fast as possible, far ahead of their time.
pub(super) async fn measure_create(args: &BenchArgs, client: &Client, task: &NewTask) -> Result<Report, String> {
    let tasks = args.tasks_or(50_000).into();
    let task = NewTask { delay_seconds: Some(3_600.0), ..task.clone() };
    let amount = Amount { tasks, waiting_max: u64::MAX };
    let began = Instant::now();
    let create_ms = create(args, client, &task, amount, &Arc::default()).await?;
    let report = Report::new(format!("{tasks} tasks, due in an hour"));
    Ok(report.rate("created", tasks as f64, began.elapsed(), "tasks").times("create", create_ms, "a request"))
}

/// Creates tasks as fast as they are recorded, for as long as asked for.
pub(super) async fn measure_sustained(args: &BenchArgs, client: &Client, task: &NewTask) -> Result<Report, String> {
    let seconds = args.seconds_or(60);
    let progress = Arc::new(Progress::default());
    let amount = Amount { tasks: u64::MAX, waiting_max: WAITING_MAX };
    let before = client.recorded().await?;
    let began = Instant::now();
    let end = async {
        tokio::time::sleep(seconds).await;
        progress.enough();
        Ok(())
    };
    let over = || (began.elapsed() >= seconds).then(|| progress.asked());
    let (create_ms, (recorded, samples), ()) = tokio::try_join!(
        create(args, client, task, amount, &progress),
        watch(args, client, &progress, before, over),
        end,
    )?;
    let part = (seconds / 10).min(Duration::from_secs(60));
    let within = |from: Duration, to: Duration| at(&samples, began + to) - at(&samples, began + from);
    let tasks = recorded.all().max(0) as u64;
    let report = Report::new(format!("{tasks} tasks, {} of them failed", recorded.failed))
        .rate("recorded", within(Duration::ZERO, seconds), seconds, "tasks")
        .rate("first", within(Duration::ZERO, part), part, "tasks")
        .rate("last", within(seconds - part, seconds), part, "tasks")
        .times("create", create_ms, "a request");
    times(report, client, progress.sample()).await
}

/// How many tasks were recorded by then.
fn at(samples: &Samples, moment: Instant) -> f64 {
    let next = samples.partition_point(|(taken, _)| *taken <= moment).min(samples.len() - 1);
    let ((before, low), (after, high)) = (samples[next.saturating_sub(1)], samples[next]);
    let share = (moment - before).as_secs_f64() / (after - before).as_secs_f64().max(1e-9);
    low as f64 + (high - low) as f64 * share.min(1.0)
}

async fn times(report: Report, client: &Client, tasks: Vec<Uuid>) -> Result<Report, String> {
    let (mut late_ms, mut end_to_end_ms) = (Vec::new(), Vec::new());
    for times in client.times(tasks).await? {
        late_ms.push(times.late_ms());
        end_to_end_ms.push(times.end_to_end_ms());
    }
    let report = report.times("start late", late_ms, "after it was due");
    Ok(report.times("end to end", end_to_end_ms, "from created to its end"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_between_two_looks_is_shared_out_evenly() {
        let began = Instant::now();
        let second = |n: u64| began + Duration::from_secs(n);
        let samples = vec![(began, 0), (second(2), 100), (second(4), 100), (second(5), 300)];
        for (moment, recorded) in [(0, 0.0), (1, 50.0), (2, 100.0), (3, 100.0), (5, 300.0), (9, 300.0)] {
            assert_eq!(at(&samples, second(moment)), recorded, "after {moment} s");
        }
    }
}
