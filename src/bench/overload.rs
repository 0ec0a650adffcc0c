//! What happens when more is asked for than can be done: the rate that a gateway sustains, then three times as much.
//!
//! Gateway and database have one half of the processors and the load the other, so that it is they that are at their limit.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::health::READYZ;
use taskmaster_openapi::task::{NewTask, Task};
use taskmaster_store::{DatabaseArgs, Store};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::BenchArgs;
use super::cores::{Shares, keep_process_on, resident_mib};
use super::figures::Report;
use super::wire::{Answers, Connection, closed, on_its_own, open, request};
use crate::postgres::{Options, PrivatePostgres};

/// What of the most that is possible counts as sustained, and how many times that is offered then.
const SUSTAINED: f64 = 0.8;
const OVERLOAD: f64 = 3.0;
/// Connections over which the most is found out, one number after another: more than are worked on at once are refused, fewer keep
/// nothing busy.
const CONNECTIONS_MAX_RATE: [usize; 3] = [16, 32, 64];
/// Connections over which rates are offered, below what a process may open by default.
const CONNECTIONS: usize = 800;

pub(super) async fn measure(args: &BenchArgs) -> Result<Report, String> {
    let shares = Shares::halves();
    keep_process_on(&shares.measured)?;
    let server = PrivatePostgres::start(&Options::ephemeral()).await.map_err(|error| error.to_string())?;
    let measured = async {
        let store = Store::new(server.connect_options(), &DatabaseArgs::default());
        store.migrate().await.map_err(|error| error.to_string())?;
        store.close().await;
        let gateway = Gateway::start(&server.url()).await?;
        offer(&gateway, &shares, args.seconds_or(10)).await
    };
    let measured = measured.await;
    server.stop().await;
    measured
}

async fn offer(gateway: &Gateway, shares: &Shares, within: Duration) -> Result<Report, String> {
    let task = NewTask { command: Some("true".into()), delay_seconds: Some(3_600.0), ..NewTask::default() };
    let body = serde_json::to_vec(&task).map_err(|error| error.to_string())?;
    let create = request("POST", paths::TASKS, None, &body);
    let (status, answer) = Connection::open(gateway.address).await?.ask_for_body(&create).await?;
    let task: Task = serde_json::from_slice(&answer).map_err(|error| format!("an answer of {status}: {error}"))?;
    let get = request("GET", &paths::TASK.replace("{id}", &task.id.to_string()), None, b"");
    let title = format!(
        "a gateway on processors {:?}, the load on {:?}; {OVERLOAD} times what it sustains, {} s each",
        shares.measured,
        shares.load,
        within.as_secs()
    );
    let gets = Found::out(gateway, shares, get, within).await?;
    let creates = Found::out(gateway, shares, create, within).await?;
    let report = gets.reported(Report::new(title), &GETS, within);
    Ok(creates.reported(report, &CREATES, within))
}

/// Names of the figures: the most, sustained, overload, admitted then, refused, memory before and after.
type Names = [&'static str; 7];
const GETS: Names =
    ["gets max", "gets normal", "gets overload", "gets admitted", "gets refused", "gets MiB then", "gets MiB after"];
const CREATES: Names =
    ["new max", "new normal", "new overload", "new admitted", "new refused", "new MiB then", "new MiB after"];

/// What was found out about one kind of request.
struct Found {
    most: f64,
    normal: Answers,
    overload: Answers,
    mib: [f64; 2],
}

impl Found {
    async fn out(gateway: &Gateway, shares: &Shares, request: Bytes, within: Duration) -> Result<Self, String> {
        let (address, load) = (gateway.address, &shares.load);
        let mut most: f64 = 0.0;
        for connections in CONNECTIONS_MAX_RATE {
            let answers = on_its_own(load.clone(), closed(address, request.clone(), connections, within)).await?;
            most = most.max(answers.admitted_ms.len() as f64 / within.as_secs_f64());
        }
        let offered =
            |per_second: f64| on_its_own(load.clone(), open(address, request.clone(), per_second, CONNECTIONS, within));
        let normal = offered(most * SUSTAINED).await?;
        let before = gateway.resident_mib()?;
        let overload = offered(most * SUSTAINED * OVERLOAD).await?;
        Ok(Self { most, normal, overload, mib: [before, gateway.resident_mib()?] })
    }

    fn reported(self, report: Report, names: &Names, within: Duration) -> Report {
        let [most, normal, overload, admitted, refused, before, after] = *names;
        let count = |answers: &Answers| answers.admitted_ms.len() as f64;
        let asked = count(&self.overload) + self.overload.refused as f64;
        report
            .rate(most, self.most * within.as_secs_f64(), within, "requests, as fast as answers come")
            .rate(admitted, count(&self.overload), within, "requests, of three times what is sustained")
            .amount(refused, self.overload.refused as f64 / asked.max(1.0) * 100.0, "% of these, with 503")
            .times(normal, self.normal.admitted_ms, "four fifths of the most")
            .times(overload, self.overload.admitted_ms, "those that were admitted")
            .amount(before, self.mib[0], "MiB of the gateway before, resident")
            .amount(after, self.mib[1], "MiB of the gateway after")
    }
}

/// A gateway as a process of its own, with the defaults that it is shipped with but for the rate limits. Ends with this.
struct Gateway {
    address: SocketAddr,
    process: Child,
}

impl Gateway {
    async fn start(database_url: &str) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let mut command = Command::new(program);
        command.args(["gateway", "--listen", "127.0.0.1:0", "--rate-limit-reads", "0", "--rate-limit-writes", "0"]);
        command.env_clear().env("DATABASE_URL", database_url).env("TASKMASTER_LOG_FORMAT", "json");
        let spawned =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut process = spawned.map_err(|error| format!("the gateway does not start: {error}"))?;
        let log = process.stderr.take().ok_or("the gateway has no log")?;
        let mut lines = BufReader::new(log).lines();
        let address = loop {
            let line =
                lines.next_line().await.map_err(|error| error.to_string())?.ok_or("the gateway ended at once")?;
            let line: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(Ok(address)) = line["address"].as_str().map(str::parse) {
                break address;
            }
        };
        // What else it says is read, so that it can say it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ready = request("GET", READYZ, None, b"");
        while Connection::open(address).await?.ask(&ready).await? != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { address, process })
    }

    fn resident_mib(&self) -> Result<f64, String> {
        resident_mib(self.process.id().ok_or("the gateway has ended")?)
    }
}
