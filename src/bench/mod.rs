//! Measuring, through the public API alone: batches in, every task recorded.

mod client;
mod figures;

use std::time::{Duration, Instant};

use clap::Args;
use futures::stream::{self, StreamExt, TryStreamExt};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use taskmaster_openapi::limits;
use taskmaster_openapi::task::NewTask;
use taskmaster_service::settings::seconds_or_zero;
use taskmaster_service::{Secret, Shutdown};

use crate::up::{Up, UpArgs};
use client::Client;
use figures::{Percentiles, Report};

/// The queue of measured tasks: its counts tell when all are recorded.
const QUEUE: &str = "bench";
/// How often progress is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Tasks whose times are looked at: the newest ones.
const SAMPLED_MAX: usize = 100_000;

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// A running gateway. When left out, everything is started in this process on a throw-away database
    #[arg(long, env = "TASKMASTER_URL", value_name = "URL")]
    url: Option<String>,
    /// The gateway's API key, where it has any
    #[arg(long, env = "TASKMASTER_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<Secret>,
    /// Tasks to create
    #[arg(long, default_value_t = 50_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    tasks: u32,
    /// Tasks of one request; 1 creates each by itself
    #[arg(long, default_value_t = 1_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=limits::BATCH_TASKS_MAX as i64))]
    batch: u32,
    /// Requests at once
    #[arg(long, default_value_t = 4, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// The task, as JSON; the default does nothing
    #[arg(long, default_value = r#"{"command":"true"}"#, value_name = "JSON", value_parser = task)]
    task: NewTask,
    /// Workers of the throw-away installation
    #[arg(long, default_value_t = 1, value_name = "COUNT", conflicts_with = "url")]
    workers: u16,
    /// Workers of the throw-away installation take so many seconds a task, and do nothing
    #[arg(long, default_value = "0", value_parser = seconds_or_zero, value_name = "SECONDS", conflicts_with_all = ["url", "real"])]
    simulate: Duration,
    /// Workers of the throw-away installation really run the tasks
    #[arg(long, conflicts_with = "url")]
    real: bool,
    /// Give up when nothing is recorded for so many seconds
    #[arg(long, default_value = "60", value_parser = seconds_or_zero, value_name = "SECONDS")]
    stall_seconds: Duration,
}

fn task(json: &str) -> Result<NewTask, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

/// Measures, and prints the figures.
///
/// # Errors
/// One line: what went wrong.
pub async fn run(args: BenchArgs, shutdown: Shutdown) -> Result<(), String> {
    let up = match &args.url {
        Some(_) => None,
        None => match Up::start(&throw_away(&args), &shutdown).await? {
            None => return Ok(()),
            up => up,
        },
    };
    let url = match (&args.url, &up) {
        (Some(url), _) => url.trim_end_matches('/').to_owned(),
        (None, Some(up)) => format!("http://{}", up.api),
        (None, None) => return Ok(()),
    };
    let measured = shutdown.or_stop(measure(&args, &url)).await;
    if let Some(up) = up {
        up.stop().await;
    }
    match measured {
        Some(report) => print(&report?),
        None => return Err("stopped before the end".into()),
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the figures are what the command is for")]
fn print(report: &Report) {
    println!("{report}");
}

fn throw_away(args: &BenchArgs) -> UpArgs {
    UpArgs {
        port: 0,
        workers: args.workers,
        slots: 5,
        simulate: (!args.real).then_some(args.simulate),
        data_dir: std::env::temp_dir(),
        ephemeral: true,
        database_url: None,
        listen: None,
        api_keys: Vec::new(),
    }
}

async fn measure(args: &BenchArgs, url: &str) -> Result<Report, String> {
    let client = Client::new(url, args.api_key.clone())?;
    let before = client.recorded().await?;
    let began = Instant::now();
    let progress = progress(args.tasks);
    let watching = watch(args, &client, before, &progress);
    let (create_ms, recorded) = tokio::try_join!(
        async {
            let create_ms = create(args, &client).await?;
            Ok((create_ms, began.elapsed()))
        },
        watching,
    )?;
    let elapsed = began.elapsed();
    progress.finish_and_clear();
    let (mut lateness_ms, mut end_to_end_ms) = (Vec::new(), Vec::new());
    for times in client.times(SAMPLED_MAX.min(args.tasks as usize)).await? {
        lateness_ms.push(times.lateness_ms);
        end_to_end_ms.push(times.end_to_end_ms);
    }
    Ok(Report {
        tasks: args.tasks,
        failed: recorded.failed - before.failed,
        created_in: create_ms.1,
        recorded_in: elapsed,
        create_ms: Percentiles::of(create_ms.0),
        lateness_ms: Percentiles::of(lateness_ms),
        end_to_end_ms: Percentiles::of(end_to_end_ms),
    })
}

/// Creates all tasks; gives back how long each request took, in milliseconds.
async fn create(args: &BenchArgs, client: &Client) -> Result<Vec<f64>, String> {
    let task = NewTask { queue: Some(QUEUE.into()), ..args.task.clone() };
    let full = client.body(&task, args.batch)?;
    let rest = args.tasks % args.batch;
    let last = if rest > 0 { Some(client.body(&task, rest)?) } else { None };
    let bodies = (0..args.tasks / args.batch).map(|_| full.clone()).chain(last);
    stream::iter(bodies)
        .map(|body| async {
            let began = Instant::now();
            client.create(body, args.batch).await?;
            Ok(began.elapsed().as_secs_f64() * 1000.0)
        })
        .buffer_unordered(args.connections as usize)
        .try_collect()
        .await
}

/// Waits until all tasks are recorded.
async fn watch(
    args: &BenchArgs,
    client: &Client,
    before: client::Recorded,
    progress: &ProgressBar,
) -> Result<client::Recorded, String> {
    let (mut last, mut moved) = (before, Instant::now());
    loop {
        let now = client.recorded().await?;
        if now != last {
            (last, moved) = (now, Instant::now());
        }
        let recorded = now.all() - before.all();
        progress.set_position(u64::try_from(recorded).unwrap_or(0));
        if recorded >= i64::from(args.tasks) {
            return Ok(now);
        }
        if moved.elapsed() > args.stall_seconds {
            return Err(format!("only {recorded} of {} tasks are recorded, and no more for a while", args.tasks));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn progress(tasks: u32) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(tasks.into()), ProgressDrawTarget::stderr_with_hz(4));
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} recorded, {per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    bar
}
