//! What tasks do, and the record of every run, kept outside of the database.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

use super::history::{Execution, Spec, Stamp};
use super::support::{Scratch, in_background};

type Record = Arc<Mutex<Vec<Execution>>>;

/// An HTTP server that HTTP tasks call, and a file to which commands append.
pub struct Targets {
    base: String,
    record: Record,
    scratch: Scratch,
    serving: tokio::task::AbortHandle,
}

/// What a task does, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Http { ms: u64 },
    Command { ms: u64 },
}

impl Targets {
    pub async fn start() -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST.into()).await
    }

    pub async fn start_at(address: IpAddr) -> Self {
        let record = Record::default();
        let router = Router::new().route("/", any(arrive)).with_state(record.clone());
        let serve = async move {
            let listener = TcpListener::bind((address, 0)).await.expect("a port");
            let base = format!("http://{}", listener.local_addr().expect("an address"));
            let serving = tokio::spawn(async move { axum::serve(listener, router).await.expect("serves") });
            (base, serving.abort_handle())
        };
        let (base, serving) = in_background(serve).await;
        Self { base, record, scratch: Scratch::new(), serving }
    }

    fn file(&self) -> PathBuf {
        self.scratch.path().join("runs")
    }

    /// The document of a task that does this, and fails as often as its spec says.
    pub fn task(&self, deed: Deed, spec: &Spec) -> Value {
        let mut task = match deed {
            Deed::Http { ms } => {
                json!({"http": {"method": "POST", "url": format!("{}/?ms={ms}&fails={}", self.base, spec.fails)}})
            }
            Deed::Command { ms } => json!({"command": self.command(ms, spec)}),
        };
        task["max_attempts"] = json!(spec.max_attempts);
        task["retry"] = json!({"delays_seconds": [0.1], "jitter": 0.5});
        if let Some(at) = spec.scheduled_at {
            task["scheduled_at"] = json!(at);
        }
        task
    }

    /// Appends a line when it begins, and one when it ends. The shell's parent is the worker.
    fn command(&self, ms: u64, spec: &Spec) -> String {
        let file = self.file();
        let file = file.display();
        let line = |what: &str| {
            format!(
                "read u x </proc/uptime; \
                 echo {what} $TASKMASTER_TASK_ID $TASKMASTER_ATTEMPT $TASKMASTER_CLAIM $u $(date +%s%N) >>{file}"
            )
        };
        let begin = line("began");
        if spec.poison {
            return format!("{begin}; kill -9 $PPID; sleep 60");
        }
        let (failed, done) = (line("failed"), line("done"));
        let sleep = if ms == 0 { String::new() } else { format!("sleep {}; ", ms as f64 / 1000.0) };
        format!("{begin}; {sleep}if [ $TASKMASTER_ATTEMPT -le {} ]; then {failed}; exit 1; fi; {done}", spec.fails)
    }

    /// Every run so far.
    pub fn executions(&self) -> Vec<Execution> {
        let mut runs = self.record.lock().unwrap_or_else(PoisonError::into_inner).clone();
        runs.extend(parse(&std::fs::read_to_string(self.file()).unwrap_or_default()));
        runs
    }

    /// The runs of a task so far.
    pub fn of(&self, task: Uuid) -> Vec<Execution> {
        self.executions().into_iter().filter(|run| run.task == task).collect()
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Writes the end of a run down when it is dropped: when it is answered, or its caller is gone.
struct Run {
    record: Record,
    number: usize,
    succeeded: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        let run = &mut self.record.lock().unwrap_or_else(PoisonError::into_inner)[self.number];
        run.ended = Some(Stamp::now());
        run.succeeded = self.succeeded;
    }
}

async fn arrive(
    State(record): State<Record>,
    Query(told): Query<HashMap<String, u64>>,
    headers: HeaderMap,
) -> StatusCode {
    let began = Stamp::now();
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).expect("a header of every task");
    let task: Uuid = header("taskmaster-task-id").parse().expect("a task's id");
    let attempt: i64 = header("taskmaster-attempt").parse().expect("an attempt");
    let run = Execution { task, attempt, claim: None, began, ended: None, succeeded: false };
    let number = {
        let mut runs = record.lock().unwrap_or_else(PoisonError::into_inner);
        runs.push(run);
        runs.len() - 1
    };
    let mut run = Run { record, number, succeeded: false };
    tokio::time::sleep(Duration::from_millis(told["ms"])).await;
    run.succeeded = attempt > told["fails"] as i64;
    if run.succeeded { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR }
}

/// The runs that commands wrote down.
fn parse(text: &str) -> Vec<Execution> {
    let mut runs: Vec<Execution> = Vec::new();
    let mut open: HashMap<(Uuid, i64), usize> = HashMap::new();
    // A line that is being written is not one yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let [what, task, attempt, claim, uptime, wall] = words[..] else { panic!("a line of the file: {line:?}") };
        let (task, claim): (Uuid, i64) = (task.parse().expect("an id"), claim.parse().expect("a claim"));
        let wall = DateTime::<Utc>::from_timestamp_nanos(wall.parse().expect("a time"));
        let stamp = Stamp { monotonic: uptime.parse().expect("an uptime"), wall };
        match what {
            "began" => {
                open.insert((task, claim), runs.len());
                let attempt = attempt.parse().expect("an attempt");
                runs.push(Execution { task, attempt, claim: Some(claim), began: stamp, ended: None, succeeded: false });
            }
            end => {
                let run = &mut runs[open[&(task, claim)]];
                run.ended = Some(stamp);
                run.succeeded = end == "done";
            }
        }
    }
    runs
}
