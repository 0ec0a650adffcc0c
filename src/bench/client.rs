//! The public API, as the measurement uses it.

use std::time::Duration;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use reqwest::{Method, RequestBuilder};
use serde::de::DeserializeOwned;
use taskmaster_openapi::gateway::{CreatedBatch, CreatedTask, NewTaskBatch, Stats, paths};
use taskmaster_openapi::problem::Problem;
use taskmaster_openapi::task::{NewTask, Task};
use taskmaster_service::{Secret, TrustArgs};
use uuid::Uuid;

use super::QUEUE;

/// No request takes longer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Tasks that are looked at at once.
const LOOKS_AT_ONCE: usize = 16;

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

    /// Creates the tasks of such a [`Self::body`], and gives back their ids.
    pub async fn create(&self, body: Bytes, tasks: u32) -> Result<Vec<Uuid>, String> {
        match tasks {
            1 => Ok(vec![self.create_one(body).await?]),
            _ => self.create_batch(body).await,
        }
    }

    pub async fn create_one(&self, body: Bytes) -> Result<Uuid, String> {
        self.send::<CreatedTask>(self.post(paths::TASKS, body)).await.map(|task| task.id)
    }

    pub async fn create_batch(&self, body: Bytes) -> Result<Vec<Uuid>, String> {
        let created: CreatedBatch = self.send(self.post(paths::TASKS_BATCH, body)).await?;
        Ok(created.tasks.into_iter().map(|task| task.id).collect())
    }

    fn post(&self, path: &str, body: Bytes) -> RequestBuilder {
        self.request(Method::POST, path).header("content-type", "application/json").body(body)
    }

    pub async fn recorded(&self) -> Result<Recorded, String> {
        let stats: Stats = self.send(self.request(Method::GET, paths::STATS)).await?;
        let queue = stats.queues.into_iter().find(|queue| queue.queue == QUEUE).map(|queue| queue.tasks);
        Ok(queue.map(|tasks| Recorded { complete: tasks.complete, failed: tasks.failed }).unwrap_or_default())
    }

    /// Times of these tasks, in their order; those that have not ended are left out.
    pub async fn times(&self, ids: Vec<Uuid>) -> Result<Vec<Times>, String> {
        let looked_at = futures::stream::iter(ids).map(|id| self.times_of(id)).buffered(LOOKS_AT_ONCE);
        looked_at.try_filter_map(async |times| Ok(times)).try_collect().await
    }

    async fn times_of(&self, id: Uuid) -> Result<Option<Times>, String> {
        let task: Task = self.send(self.request(Method::GET, &format!("{}/{id}", paths::TASKS))).await?;
        let (Some(started_at), Some(ended_at)) = (task.started_at, task.completed_at.or(task.failed_at)) else {
            return Ok(None);
        };
        Ok(Some(Times { id, created_at: task.created_at, due_at: task.run_at, started_at, ended_at }))
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
