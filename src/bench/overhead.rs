//! What the gateway's stack costs: `GET /v1/tasks/{id}` with an API key and a rate limit, beside the same route with the whole stack off.
//! Both have a runtime of their own in this process, and take turns, so that whatever slows the machine down slows both.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sqlx::postgres::PgConnectOptions;
use taskmaster_gateway::Config;
use taskmaster_gateway::config::RateLimits;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::key::Scope;
use taskmaster_openapi::task::{NewTask, Task};
use taskmaster_service::{Health, Secret, Shutdown};
use taskmaster_store::keys::{Expiry, KeyId, KeyToCreate, KeyToken};
use taskmaster_store::{DatabaseArgs, Store};
use tokio::net::TcpListener;

use super::BenchArgs;
use super::cores::ran_for;
use super::figures::Report;
use super::wire::{Answers, Connection, closed, request};
use crate::postgres::{Options, PrivatePostgres};

const TURNS: u32 = 5;
const CONNECTIONS: usize = 32;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);
/// Counted against, and never reached.
const RATE_LIMIT: u32 = 60_000_000;

pub(super) async fn measure(args: &BenchArgs) -> Result<Report, String> {
    let server = PrivatePostgres::start(&Options::ephemeral()).await.map_err(|error| error.to_string())?;
    let measured = side_by_side(args.seconds_or(2), server.connect_options()).await;
    server.stop().await;
    measured
}

async fn side_by_side(turn: Duration, database: PgConnectOptions) -> Result<Report, String> {
    let key = prepared(&database).await?;
    let (whole, bare) = (Side::start("whole-stack", &database)?, Side::start("bare-route", &database)?);
    let task = create(whole.address, &key).await?;
    let wanted = request("GET", &paths::TASK.replace("{id}", &task), Some(&key), b"");
    let (mut whole_used, mut bare_used) = (Used::default(), Used::default());
    for side in [&whole, &bare] {
        side.turn(&wanted, WARM_UP).await?;
    }
    for _ in 0..TURNS {
        whole_used.add(whole.turn(&wanted, turn).await?);
        bare_used.add(bare.turn(&wanted, turn).await?);
    }
    whole.stop();
    bare.stop();
    let (whole_cpu, bare_cpu) = (whole_used.cpu_us(), bare_used.cpu_us());
    let rate = |used: &Used| used.answers.admitted_ms.len() as f64 / used.within.as_secs_f64();
    let (whole_rate, bare_rate) = (rate(&whole_used), rate(&bare_used));
    Ok(Report::new(format!(
        "GET /v1/tasks/{{id}} over {CONNECTIONS} connections, with the stack and without, in {TURNS} turns each"
    ))
    .rate("whole", whole_used.answers.admitted_ms.len() as f64, whole_used.within, "requests")
    .rate("bare", bare_used.answers.admitted_ms.len() as f64, bare_used.within, "requests")
    .times("whole took", whole_used.answers.admitted_ms, "a request")
    .times("bare took", bare_used.answers.admitted_ms, "a request")
    .amount("whole cpu", whole_cpu, "µs a request, user and system, of the gateway's threads")
    .amount("bare cpu", bare_cpu, "µs a request")
    .amount("stack cpu", whole_cpu - bare_cpu, "µs a request")
    .amount("ratio cpu", whole_cpu / bare_cpu.max(1e-9), "times as much CPU with the stack")
    .amount("ratio time", bare_rate / whole_rate.max(1e-9), "times as long with the stack"))
}

/// Sets the database up, and makes an API key.
async fn prepared(database: &PgConnectOptions) -> Result<Secret, String> {
    let store = Store::new(database.clone(), &DatabaseArgs::default());
    store.migrate().await.map_err(|error| error.to_string())?;
    let token = KeyToken::random(KeyId::random());
    let key = KeyToCreate { name: "bench".into(), scopes: vec![Scope::Admin], expiry: Expiry::Never };
    store.create_key(&key, &token).await.map_err(|error| error.to_string())?;
    store.close().await;
    Ok(Secret::new(token.expose()))
}

/// A task that is due in an hour; its id.
async fn create(address: SocketAddr, key: &Secret) -> Result<String, String> {
    let task = NewTask { command: Some("true".into()), delay_seconds: Some(3_600.0), ..NewTask::default() };
    let body = serde_json::to_vec(&task).map_err(|error| error.to_string())?;
    let asked = request("POST", paths::TASKS, Some(key), &body);
    let (status, body) = Connection::open(address).await?.ask_for_body(&asked).await?;
    let task: Task = serde_json::from_slice(&body).map_err(|error| format!("an answer of {status}: {error}"))?;
    Ok(task.id.to_string())
}

/// What a side did in its turns.
#[derive(Debug, Default)]
struct Used {
    answers: Answers,
    within: Duration,
    cpu: Duration,
}

impl Used {
    fn add(&mut self, other: Self) {
        self.answers.add(other.answers);
        self.within += other.within;
        self.cpu += other.cpu;
    }

    fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.answers.admitted_ms.len().max(1) as f64
    }
}

/// One of the two, on threads of its own, by whose name its time is found.
struct Side {
    name: &'static str,
    address: SocketAddr,
    stop: Shutdown,
}

impl Side {
    fn start(name: &'static str, database: &PgConnectOptions) -> Result<Self, String> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| error.to_string())?;
        listener.set_nonblocking(true).map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_name(name).enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let (stop, database) = (Shutdown::new(), database.clone());
        let stopping = stop.clone();
        let run = move || runtime.block_on(serve(name, listener, database, stopping));
        std::thread::Builder::new().name(name.into()).spawn(run).map_err(|error| error.to_string())?;
        Ok(Self { name, address, stop })
    }

    async fn turn(&self, request: &Bytes, within: Duration) -> Result<Used, String> {
        let (began, before) = (Instant::now(), ran_for(self.name)?);
        let answers = closed(self.address, request.clone(), CONNECTIONS, within).await?;
        if answers.refused > 0 {
            return Err(format!("{}: {} requests were refused", self.name, answers.refused));
        }
        Ok(Used { answers, within: began.elapsed(), cpu: ran_for(self.name)?.saturating_sub(before) })
    }

    fn stop(self) {
        self.stop.request();
    }
}

async fn serve(name: &str, listener: std::net::TcpListener, database: PgConnectOptions, stop: Shutdown) {
    let served = async {
        let listener = TcpListener::from_std(listener).map_err(|error| error.to_string())?;
        let store = Store::new(database, &DatabaseArgs::default());
        let rate_limits = RateLimits { reads: RATE_LIMIT, writes: RATE_LIMIT, ..RateLimits::default() };
        let config = Config { require_keys: true, rate_limits, ..Config::default() };
        let served = match name {
            "whole-stack" => taskmaster_gateway::run(config, listener, store, Health::new(), None, stop).await,
            _ => taskmaster_gateway::run_bare(config, listener, store, stop).await,
        };
        served.map_err(|error| error.to_string())
    };
    if let Err(error) = served.await {
        let error: String = error;
        tracing::error!(error, side = name, "ended by itself");
    }
}
