//! Tasks that are known in advance: how late each starts.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use taskmaster_openapi::task::NewTask;

use super::BenchArgs;
use super::client::{Client, ms};
use super::figures::Report;
use super::load::{Progress, watch};

/// From the moment that all are created to the first that is due.
const LEAD: Duration = Duration::from_secs(3);
/// Tasks that are created a second, at least.
const CREATED_PER_SECOND: u32 = 5_000;

pub(super) async fn measure(args: &BenchArgs, client: &Client, task: &NewTask) -> Result<Report, String> {
    let tasks = args.tasks_or(10_000);
    let lead = LEAD + Duration::from_secs((tasks / CREATED_PER_SECOND).into());
    let before = client.recorded().await?;
    let first = Utc::now() + lead;
    let apart = args.seconds_or(0) / tasks;
    let due = |number: u32| first + TimeDelta::from_std(apart * number).unwrap_or_default();
    let mut ids = Vec::new();
    for begin in (0..tasks).step_by(args.batch as usize) {
        let end = tasks.min(begin + args.batch);
        let batch = (begin..end).map(|number| NewTask { scheduled_at: Some(due(number)), ..task.clone() });
        ids.extend(client.create_batch(client.batch(batch.collect())?.into()).await?);
    }
    let left = (first - Utc::now()).to_std().map_err(|_| "creating the tasks took longer than they are ahead")?;
    tokio::time::sleep(left).await;
    let progress = Arc::new(Progress::default());
    watch(args, client, &progress, before, || Some(tasks.into())).await?;
    let mut starts: Vec<(DateTime<Utc>, DateTime<Utc>)> =
        client.times(ids).await?.iter().map(|times| (times.started_at, times.due_at)).collect();
    starts.sort_unstable();
    let late_ms: Vec<f64> = starts.iter().map(|(started, due)| ms(*due, *started)).collect();
    let report = Report::new(format!("{tasks} tasks, known {} s and more ahead", LEAD.as_secs())).times(
        "start late",
        late_ms.clone(),
        "after it was due; below 0 would be early",
    );
    let (Some((begun, _)), Some((ended, _)), None) = (starts.first(), starts.last(), args.seconds) else {
        return Ok(report);
    };
    // All are due at once: what can start only after others is not late for that.
    let took = (*ended - *begun).to_std().unwrap_or_default();
    let each_ms = took.as_secs_f64() * 1000.0 / f64::from(tasks);
    let beyond_ms = late_ms.iter().enumerate().map(|(place, late)| late - each_ms * place as f64).collect();
    Ok(report.rate("started", f64::from(tasks), took, "tasks").times("beyond", beyond_ms, "later than at that rate"))
}
