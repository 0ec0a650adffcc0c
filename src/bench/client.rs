//! The public API, as the measurement uses it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use taskmaster_openapi::gateway::{NewTaskBatch, Stats, TaskList, paths};
use taskmaster_openapi::limits;
use taskmaster_openapi::problem::Problem;
use taskmaster_openapi::task::NewTask;
use taskmaster_service::{Secret, client};

use super::QUEUE;

/// No request takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    api_key: Option<Secret>,
}

/// Tasks of the queue that have ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Recorded {
    pub complete: i64,
    pub failed: i64,
}

impl Recorded {
    pub fn all(self) -> i64 {
        self.complete + self.failed
    }
}

/// How long one task took.
pub(super) struct Times {
    pub lateness_ms: f64,
    pub end_to_end_ms: f64,
}

impl Client {
    pub fn new(url: &str, api_key: Option<Secret>) -> Result<Self, String> {
        let http = client::build(TIMEOUT).map_err(|error| error.to_string())?;
        Ok(Self { http, url: url.to_owned(), api_key })
    }

    /// The body of a request for so many tasks.
    pub fn body(&self, task: &NewTask, tasks: u32) -> Result<Vec<u8>, String> {
        let body = match tasks {
            1 => serde_json::to_vec(task),
            _ => serde_json::to_vec(&NewTaskBatch { tasks: vec![task.clone(); tasks as usize] }),
        };
        body.map_err(|error| error.to_string())
    }

    pub async fn create(&self, body: Vec<u8>, batch: u32) -> Result<(), String> {
        let path = if batch == 1 { paths::TASKS } else { paths::TASKS_BATCH };
        let request = self.request(Method::POST, path).header("content-type", "application/json").body(body);
        self.send::<serde::de::IgnoredAny>(request).await.map(drop)
    }

    pub async fn recorded(&self) -> Result<Recorded, String> {
        let stats: Stats = self.send(self.request(Method::GET, paths::STATS)).await?;
        let queue = stats.queues.into_iter().find(|queue| queue.queue == QUEUE).map(|queue| queue.tasks);
        Ok(queue.map(|tasks| Recorded { complete: tasks.complete, failed: tasks.failed }).unwrap_or_default())
    }

    /// Times of the newest tasks of the queue.
    pub async fn times(&self, tasks: usize) -> Result<Vec<Times>, String> {
        let mut times = Vec::new();
        let mut page_token = String::new();
        loop {
            let query = format!("{}?queue={QUEUE}&page_size={}", paths::TASKS, limits::PAGE_SIZE_MAX);
            let query = if page_token.is_empty() { query } else { format!("{query}&page_token={page_token}") };
            let page: TaskList = self.send(self.request(Method::GET, &query)).await?;
            for task in page.tasks {
                let ended = task.completed_at.or(task.failed_at);
                if let (Some(started), Some(ended)) = (task.started_at, ended) {
                    let (run_at, created_at) = (task.run_at, task.created_at);
                    times.push(Times { lateness_ms: ms(run_at, started), end_to_end_ms: ms(created_at, ended) });
                }
            }
            page_token = page.next_page_token;
            if times.len() >= tasks || page_token.is_empty() {
                return Ok(times);
            }
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.api_key {
            Some(key) => request.bearer_auth(key.expose()),
            None => request,
        }
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, String> {
        let answer = request.send().await.map_err(|error| format!("{}: {error}", self.url))?;
        let success = answer.status().is_success();
        let bytes = answer.bytes().await.map_err(|error| error.to_string())?;
        if success {
            return serde_json::from_slice(&bytes).map_err(|error| format!("an answer was not understood: {error}"));
        }
        match serde_json::from_slice::<Problem>(&bytes) {
            Ok(problem) => Err(problem.to_string()),
            Err(_) => Err(format!("{} did not answer as a gateway does", self.url)),
        }
    }
}

fn ms(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0
}
