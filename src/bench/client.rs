//! The public API, as the measurement uses it.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use taskmaster_openapi::gateway::{NewTaskBatch, Stats, TaskList, paths};
use taskmaster_openapi::limits;
use taskmaster_openapi::problem::Problem;
use taskmaster_openapi::task::{NewTask, Task};
use taskmaster_service::{Secret, TrustArgs};
use uuid::Uuid;

use super::QUEUE;

/// No request takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone)]
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

impl std::ops::Sub for Recorded {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self { complete: self.complete - before.complete, failed: self.failed - before.failed }
    }
}

/// When a task that has ended was created, due, started, and over.
pub(super) struct Times {
    pub id: Uuid,
    pub created_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
    pub started_at: DateTime<Utc>,
    pub ended_at: DateTime<Utc>,
}

impl Times {
    pub fn late_ms(&self) -> f64 {
        ms(self.due_at, self.started_at)
    }

    pub fn end_to_end_ms(&self) -> f64 {
        ms(self.created_at, self.ended_at)
    }
}

impl Client {
    pub fn new(url: &str, api_key: Option<Secret>, trust: &TrustArgs) -> Result<Self, String> {
        let http = trust.build(TIMEOUT).map_err(|error| error.to_string())?;
        Ok(Self { http, url: url.to_owned(), api_key })
    }

    /// The body of a request for so many tasks.
    pub fn body(&self, task: &NewTask, tasks: u32) -> Result<Vec<u8>, String> {
        match tasks {
            1 => serde_json::to_vec(task).map_err(|error| error.to_string()),
            _ => self.batch(vec![task.clone(); tasks as usize]),
        }
    }

    /// The body of a request for these tasks.
    pub fn batch(&self, tasks: Vec<NewTask>) -> Result<Vec<u8>, String> {
        serde_json::to_vec(&NewTaskBatch { tasks }).map_err(|error| error.to_string())
    }

    pub async fn create(&self, body: Bytes, tasks: u32) -> Result<(), String> {
        let path = if tasks == 1 { paths::TASKS } else { paths::TASKS_BATCH };
        self.send::<serde::de::IgnoredAny>(self.post(path, body)).await.map(drop)
    }

    /// Creates one task, and gives back its id.
    pub async fn create_one(&self, body: Bytes) -> Result<Uuid, String> {
        self.send::<Task>(self.post(paths::TASKS, body)).await.map(|task| task.id)
    }

    fn post(&self, path: &str, body: Bytes) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(body)
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
                if let (Some(started_at), Some(ended_at)) = (task.started_at, ended) {
                    let (id, created_at, due_at) = (task.id, task.created_at, task.run_at);
                    times.push(Times { id, created_at, due_at, started_at, ended_at });
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

pub(super) fn ms(from: DateTime<Utc>, to: DateTime<Utc>) -> f64 {
    (to - from).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0
}
