//! Who creates tasks: clients that write down what they asked for and what they were answered, and ask nothing twice.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use taskmaster_openapi::gateway::CreatedBatch;
use taskmaster_openapi::task::Task;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::checker::tag;
use super::history::{Answer, CancelAnswer, History, Request, Spec, Stamp};
use super::target::{Deed, Targets};

/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Between looks at whether there is room for more.
const PAUSE: Duration = Duration::from_millis(50);
/// The share of tasks whose cancel is asked for, and when.
const CANCELLED: f64 = 0.1;
const CANCEL_WITHIN_MS: u64 = 2_000;
/// What is on its way when a gateway breaks.
const VOLLEY_REQUESTS: usize = 4;
const VOLLEY_TASKS: usize = 10;
const VOLLEY_HITS: i64 = 30;
const VOLLEY_WITHIN: Duration = Duration::from_millis(100);
/// How far ahead future tasks are.
const LATER_WITHIN_MS: i64 = 4_000;

/// An answer that says 5xx.
#[derive(Debug, Clone)]
pub struct Failure {
    pub status: u16,
    pub content_type: String,
    pub text: String,
}

/// What all clients share.
pub struct Book {
    gateways: Vec<String>,
    http: reqwest::Client,
    next: AtomicU64,
    history: Mutex<History>,
    stop: AtomicBool,
    /// The answers that said 5xx.
    failures: Mutex<Vec<Failure>>,
    /// Tasks whose creating request is on its way, by gateway.
    pub creating: Vec<AtomicI64>,
    /// Clients hold back while it is set.
    pub full: AtomicBool,
    /// Live tasks, as [`hold_back`] saw them last.
    pub live: AtomicI64,
}

impl Book {
    pub fn new(gateways: Vec<String>) -> Arc<Self> {
        taskmaster_service::client::install_tls();
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build().expect("a client");
        let creating = gateways.iter().map(|_| AtomicI64::new(0)).collect();
        let (next, stop, full) = (AtomicU64::new(1), AtomicBool::new(false), AtomicBool::new(false));
        let (history, failures) = (Mutex::default(), Mutex::default());
        let live = AtomicI64::new(0);
        Arc::new(Self { gateways, http, next, history, stop, failures, creating, full, live })
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the clients know. To be taken when they have stopped.
    pub fn take(&self) -> History {
        std::mem::take(&mut *self.history())
    }

    pub fn gateways(&self) -> usize {
        self.gateways.len()
    }

    /// What was answered with 5xx so far.
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn accepted(&self) -> usize {
        let accepted = |request: &Request| match &request.answer {
            Answer::Accepted(ids) => ids.len(),
            _ => 0,
        };
        self.history().requests.iter().map(accepted).sum()
    }

    /// Creates tasks in one request of one gateway, and writes down what came of it. The ids, when it was accepted.
    pub async fn create(&self, gateway: usize, tasks: Vec<(Spec, Value)>) -> Vec<Uuid> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let count = tasks.len() as i64;
        let (specs, mut documents): (Vec<Spec>, Vec<Value>) = tasks.into_iter().unzip();
        for (place, document) in documents.iter_mut().enumerate() {
            document["tags"] = json!([tag(number, place)]);
        }
        let single = documents.len() == 1;
        let (path, body) = match single {
            true => ("/v1/tasks", documents.remove(0)),
            false => ("/v1/tasks/batch", json!({"tasks": documents})),
        };
        self.creating[gateway].fetch_add(count, Ordering::Relaxed);
        let answer = self.ask(gateway, path, Some(&body)).await;
        self.creating[gateway].fetch_sub(count, Ordering::Relaxed);
        let answer = match answer {
            Some((201, text)) if single => Answer::Accepted(vec![parse::<Task>(&text).id]),
            Some((201, text)) => {
                Answer::Accepted(parse::<CreatedBatch>(&text).tasks.iter().map(|task| task.id).collect())
            }
            Some((400..500, text)) => {
                eprintln!("    refused: {text}");
                Answer::Refused
            }
            _ => Answer::Unknown,
        };
        let ids = match &answer {
            Answer::Accepted(ids) => ids.clone(),
            _ => Vec::new(),
        };
        self.history().requests.push(Request { number, tasks: specs, answer });
        ids
    }

    /// Asks for a cancel, and writes down what was answered.
    pub async fn cancel(&self, gateway: usize, task: Uuid) -> Option<u16> {
        self.history().cancels_asked.push(task);
        let (status, _) = self.ask(gateway, &format!("/v1/tasks/{task}/cancel"), None).await?;
        self.history().cancels.push(CancelAnswer { task, status, answered: Stamp::now() });
        Some(status)
    }

    /// The answer, read in whole; none when it was lost on its way.
    async fn ask(&self, gateway: usize, path: &str, body: Option<&Value>) -> Option<(u16, String)> {
        let mut request = self.http.post(format!("{}{path}", self.gateways[gateway]));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let content_type =
            answer.headers().get("content-type").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let text = answer.text().await.ok()?;
        if status >= 500 {
            let failure = Failure { status, content_type: content_type.unwrap_or_default(), text: text.clone() };
            self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
        }
        Some((status, text))
    }
}

fn parse<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// How much is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub clients: u64,
    /// The longest pause of a client between two requests.
    pub pause_ms: u64,
    pub batch_max: usize,
    /// Of a hundred tasks, so many are commands.
    pub commands: u32,
}

/// Clients that create tasks of every kind until they are stopped.
pub struct Clients {
    book: Arc<Book>,
    targets: Arc<Targets>,
    pace: Pace,
    running: JoinSet<()>,
}

impl Clients {
    pub fn start(book: &Arc<Book>, targets: &Arc<Targets>, pace: Pace, seed: u64) -> Self {
        let mut running = JoinSet::new();
        for client in 0..pace.clients {
            let random = StdRng::seed_from_u64(seed.wrapping_add(client));
            running.spawn(create_on(book.clone(), targets.clone(), pace, random));
        }
        Self { book: book.clone(), targets: targets.clone(), pace, running }
    }

    /// Many creating requests of one gateway at once; gives back how many tasks are on their way.
    pub async fn volley(&mut self, gateway: usize, seed: u64) -> i64 {
        let mut random = StdRng::seed_from_u64(seed);
        for _ in 0..VOLLEY_REQUESTS {
            let tasks = (0..VOLLEY_TASKS).map(|_| any_task(&self.targets, self.pace, &mut random)).collect();
            let book = self.book.clone();
            self.running.spawn(async move { drop(book.create(gateway, tasks).await) });
        }
        let creating = &self.book.creating[gateway];
        let limit = tokio::time::Instant::now() + VOLLEY_WITHIN;
        while creating.load(Ordering::Relaxed) < VOLLEY_HITS && tokio::time::Instant::now() < limit {
            tokio::task::yield_now().await;
        }
        creating.load(Ordering::Relaxed)
    }

    /// What the clients know, once every request is over.
    pub async fn stop(self) -> History {
        self.book.stop.store(true, Ordering::Relaxed);
        self.running.join_all().await;
        self.book.take()
    }
}

/// Lets clients hold back beyond so many live tasks, until this is dropped. While the database says nothing, all stays as it is.
pub fn hold_back(book: &Arc<Book>, url: &str, live_max: i64) -> JoinSet<()> {
    let (book, url) = (book.clone(), url.to_owned());
    let look = async move {
        let mut connection = None;
        loop {
            if connection.is_none() {
                connection = PgConnection::connect(&url).await.ok();
            }
            if let Some(open) = &mut connection {
                match sqlx::query_scalar("select count(*) from tasks").fetch_one(open).await {
                    Ok(live) => book.live.store(live, Ordering::Relaxed),
                    Err(_) => connection = None,
                }
            }
            book.full.store(book.live.load(Ordering::Relaxed) >= live_max, Ordering::Relaxed);
            tokio::time::sleep(PAUSE).await;
        }
    };
    let mut looking = JoinSet::new();
    looking.spawn(look);
    looking
}

async fn create_on(book: Arc<Book>, targets: Arc<Targets>, pace: Pace, mut random: StdRng) {
    let mut cancels = JoinSet::new();
    while !book.stop.load(Ordering::Relaxed) {
        let pause = Duration::from_millis(random.random_range(0..=pace.pause_ms));
        tokio::time::sleep(if book.full.load(Ordering::Relaxed) { PAUSE } else { pause }).await;
        if book.full.load(Ordering::Relaxed) {
            continue;
        }
        let count = if random.random_bool(0.6) { 1 } else { random.random_range(2..=pace.batch_max) };
        let tasks = (0..count).map(|_| any_task(&targets, pace, &mut random)).collect();
        let gateway = random.random_range(0..book.gateways.len());
        let ids = book.create(gateway, tasks).await;
        for id in ids {
            if random.random_bool(CANCELLED) {
                let after = Duration::from_millis(random.random_range(0..CANCEL_WITHIN_MS));
                let (book, gateway) = (book.clone(), random.random_range(0..book.gateways.len()));
                cancels.spawn(async move {
                    tokio::time::sleep(after).await;
                    book.cancel(gateway, id).await;
                });
            }
        }
        while cancels.try_join_next().is_some() {}
    }
    cancels.join_all().await;
}

/// A task of any kind.
fn any_task(targets: &Targets, pace: Pace, random: &mut StdRng) -> (Spec, Value) {
    let fails = [0, 0, 0, 0, 0, 0, 0, 1, 2, 3][random.random_range(0..10)];
    // The contract's times have microseconds.
    let now = Utc::now().timestamp_micros();
    let later = TimeDelta::milliseconds(random.random_range(0..LATER_WITHIN_MS));
    let scheduled_at = random.random_bool(0.2).then(|| DateTime::from_timestamp_micros(now).expect("a time") + later);
    let spec = Spec { fails, scheduled_at, ..Spec::default() };
    let deed = match random.random_ratio(pace.commands, 100) {
        true => Deed::Command { ms: random.random_range(0..200) },
        false => Deed::Http { ms: [0, 10, 50, 300, 2_000][random.random_range(0..5)] },
    };
    let mut task = targets.task(deed, &spec);
    if random.random_bool(0.3) {
        task["priority"] = json!(random.random_range(0..10));
    }
    if random.random_bool(0.3) {
        task["queue"] = json!(["mail", "video"][random.random_range(0..2)]);
    }
    if random.random_bool(0.2) {
        // Every worker of these worlds has it, and no liar.
        task["requires"] = json!({"zone": "faults"});
    }
    (spec, task)
}
