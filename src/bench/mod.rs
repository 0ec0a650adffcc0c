//! Measuring, through the public API alone: tasks in, every task recorded.
//!
//! In reading order: [`BenchArgs`]; `load` (who creates tasks, and who sees them recorded); the measurements, a file each; `limits`
//! (what the machine itself can do); `client` and `figures`. `overhead` and `overload` look at the gateway alone, by `wire` (load that
//! costs next to nothing) and `cores`.

mod client;
mod cores;
mod figures;
mod latency;
mod limits;
mod load;
mod on_time;
mod overhead;
mod overload;
mod sample;
mod target;
mod throughput;
mod wire;

use std::time::Duration;

use clap::{Args, ValueEnum};
use taskmaster_openapi::limits::BATCH_TASKS_MAX;
use taskmaster_openapi::task::NewTask;
use taskmaster_service::settings::seconds_or_zero;
use taskmaster_service::{Secret, Shutdown, TrustArgs};

use crate::up::{Up, UpArgs};
use client::Client;
use figures::Report;
use target::Target;

/// The queue of measured tasks: its counts tell when all are recorded.
const QUEUE: &str = "bench";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Measure {
    /// Tasks a second: all of them created as fast as possible, until each is recorded
    Throughput,
    /// Tasks created a second: they are due in an hour, and nothing runs
    Create,
    /// Tasks a second for --seconds, created as fast as they are recorded
    Sustained,
    /// An idle installation: one task at a time, from the request to its start
    Latency,
    /// Tasks due at one moment, or spread over --seconds: how late each starts
    OnTime,
    /// What the gateway's stack costs a request: GET /v1/tasks/{id} with all of it, and with none, in turns of --seconds
    Overhead,
    /// Three times what a gateway sustains: how long those wait that it admits, and how many it refuses; --seconds each
    Overload,
    /// What this machine itself can do: fsyncs, inserted rows, HTTP requests, and commands a second
    Limits,
}

impl Measure {
    fn starts_what_it_needs(self) -> bool {
        matches!(self, Measure::Overhead | Measure::Overload | Measure::Limits)
    }
}

#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// What to measure
    #[arg(value_enum, default_value = "throughput")]
    measure: Measure,
    /// A running gateway. When left out, everything is started in this process on a throw-away database
    #[arg(long, env = "TASKMASTER_URL", value_name = "URL")]
    url: Option<String>,
    /// The gateway's API key, where it has any
    #[arg(long, env = "TASKMASTER_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<Secret>,
    #[command(flatten)]
    trust: TrustArgs,
    /// Tasks to create: 50,000 when left out, for `latency` 500, for `on-time` 10,000
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    tasks: Option<u32>,
    /// Tasks of one request; 1 creates each by itself
    #[arg(long, default_value_t = 1_000, value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..=BATCH_TASKS_MAX as i64))]
    batch: u32,
    /// Requests at once
    #[arg(long, default_value_t = 4, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    connections: u32,
    /// Create at most so many tasks a second
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// How long `sustained` takes: 60 when left out; a turn of `overhead`: 2; a part of `overload`: 10; over how many seconds the
    /// tasks of `on-time` are due: all at one moment when left out
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: Option<u32>,
    /// The task, as JSON; the default does nothing
    #[arg(long, default_value = r#"{"command":"true"}"#, value_name = "JSON", value_parser = task)]
    task: NewTask,
    /// Tasks are HTTP requests to a target in this process, and really made
    #[arg(long, conflicts_with_all = ["task", "simulate"])]
    http: bool,
    /// Workers of the throw-away installation
    #[arg(long, default_value_t = 1, value_name = "COUNT", conflicts_with = "url")]
    workers: u16,
    /// Slots of each of them
    #[arg(long, default_value_t = 5, value_name = "COUNT", conflicts_with = "url",
        value_parser = clap::value_parser!(u16).range(1..=taskmaster_openapi::limits::SLOTS_MAX))]
    slots: u16,
    /// Workers of the throw-away installation take so many seconds a task, and do nothing
    #[arg(long, default_value = "0", value_parser = seconds_or_zero, value_name = "SECONDS", conflicts_with_all = ["url", "real"])]
    simulate: Duration,
    /// Workers of the throw-away installation really run the tasks
    #[arg(long, conflicts_with = "url")]
    real: bool,
    /// Give up when nothing is recorded for so many seconds
    #[arg(long, default_value = "60", value_parser = seconds_or_zero, value_name = "SECONDS")]
    stall_seconds: Duration,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

fn task(json: &str) -> Result<NewTask, String> {
    serde_json::from_str(json).map_err(|error| error.to_string())
}

impl BenchArgs {
    fn tasks_or(&self, default: u32) -> u32 {
        self.tasks.unwrap_or(default)
    }

    fn seconds_or(&self, default: u32) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(default).into())
    }

    fn throw_away(&self) -> UpArgs {
        UpArgs {
            port: 0,
            workers: self.workers,
            slots: self.slots,
            simulate: (!self.real && !self.http).then_some(self.simulate),
            data_dir: std::env::temp_dir(),
            ephemeral: true,
            database_url: None,
            listen: None,
            api_keys: Vec::new(),
        }
    }
}

/// Measures, and prints the figures.
///
/// # Errors
/// One line: what went wrong.
pub async fn run(args: BenchArgs, shutdown: Shutdown) -> Result<(), String> {
    if args.measure.starts_what_it_needs() {
        let Some(report) = shutdown.or_stop(measure_alone(&args)).await else { return stopped() };
        print(&report?, args.json);
        return Ok(());
    }
    let up = match &args.url {
        Some(_) => None,
        None => match Up::start(&args.throw_away(), &shutdown).await? {
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
    let Some(report) = measured else { return stopped() };
    print(&report?, args.json);
    Ok(())
}

fn stopped() -> Result<(), String> {
    Err("stopped before the end".into())
}

#[allow(clippy::print_stdout, reason = "the figures are what the command is for")]
fn print(report: &Report, json: bool) {
    match json {
        true => println!("{}", report.to_json()),
        false => println!("{report}"),
    }
}

async fn measure_alone(args: &BenchArgs) -> Result<Report, String> {
    match args.measure {
        Measure::Overhead => overhead::measure(args).await,
        Measure::Overload => overload::measure(args).await,
        _ => limits::measure().await,
    }
}

async fn measure(args: &BenchArgs, url: &str) -> Result<Report, String> {
    let target = if args.http { Some(Target::start().await?) } else { None };
    let work = match &target {
        Some(target) => target.task(),
        None => args.task.clone(),
    };
    let task = NewTask { queue: Some(QUEUE.into()), ..work };
    let client = Client::new(url, args.api_key.clone(), &args.trust)?;
    match args.measure {
        Measure::Throughput => throughput::measure(args, &client, &task).await,
        Measure::Create => throughput::measure_create(args, &client, &task).await,
        Measure::Sustained => throughput::measure_sustained(args, &client, &task).await,
        Measure::Latency => latency::measure(args, &client, &task).await,
        Measure::OnTime => on_time::measure(args, &client, &task).await,
        Measure::Overhead | Measure::Overload | Measure::Limits => measure_alone(args).await,
    }
}
