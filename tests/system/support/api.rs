//! A client of the public API.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::BoxStream;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use taskmaster_openapi::coordinator::{Worker, WorkerList};
use taskmaster_openapi::event::Event;
use taskmaster_openapi::gateway::{AttemptList, CreatedBatch, Stats, TaskList};
use taskmaster_openapi::task::{Attempt, Task, TaskStatus};
use uuid::Uuid;

use super::process::PATIENCE;

/// Seconds of one `Prefer: wait`.
const WAIT: &str = "wait=30";

/// Speaks to one gateway.
#[derive(Debug, Clone)]
pub struct Api {
    /// Such as `http://127.0.0.1:8081`.
    pub url: String,
    http: reqwest::Client,
}

/// An answer, read in whole.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Reply {
    /// The body, of an answer with this status.
    pub fn expect<T: DeserializeOwned>(&self, status: u16) -> T {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Api {
    pub fn new(url: &str) -> Self {
        taskmaster_service::client::install_tls();
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { url: url.to_owned(), http: http.build().expect("a client") }
    }

    /// The same gateway, asked with an API key.
    pub fn with_key(&self, token: &str) -> Self {
        let headers = HeaderMap::from_iter([(
            reqwest::header::AUTHORIZATION,
            format!("Bearer {token}").parse().expect("a header"),
        )]);
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { url: self.url.clone(), http: http.default_headers(headers).build().expect("a client") }
    }

    /// The HTTP client, for requests that the methods here do not make.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Makes a request with a JSON body or none; an error when there is no answer.
    pub async fn try_send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Reply> {
        let mut request = self.http.request(method, format!("{}{path}", self.url)).timeout(PATIENCE);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        Ok(Reply { status: answer.status(), headers: answer.headers().clone(), text: answer.text().await? })
    }

    /// Makes a request that is answered.
    pub async fn send(&self, method: Method, path: &str, body: Option<&Value>, headers: &[(&str, &str)]) -> Reply {
        let answer = self.try_send(method.clone(), path, body, headers).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error:?}"))
    }

    pub async fn fetch(&self, path: &str) -> Reply {
        self.send(Method::GET, path, None, &[]).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(Method::POST, path, Some(body), &[]).await
    }

    pub async fn create(&self, task: Value) -> Task {
        self.post("/v1/tasks", &task).await.expect(201)
    }

    /// Creates a task and waits until it has ended.
    pub async fn run(&self, task: Value) -> Task {
        let created = self.create(task).await;
        self.ended(created.id).await
    }

    pub async fn create_batch(&self, tasks: &[Value]) -> Vec<Uuid> {
        let created: CreatedBatch = self.post("/v1/tasks/batch", &json!({"tasks": tasks})).await.expect(201);
        assert_eq!(created.tasks.len(), tasks.len());
        created.tasks.into_iter().map(|task| task.id).collect()
    }

    pub async fn get(&self, id: Uuid) -> Task {
        self.fetch(&format!("/v1/tasks/{id}")).await.expect(200)
    }

    pub async fn attempts(&self, id: Uuid) -> Vec<Attempt> {
        self.fetch(&format!("/v1/tasks/{id}/attempts")).await.expect::<AttemptList>(200).attempts
    }

    /// All tasks that the query (`status=QUEUED&queue=default`, or nothing) selects, over as many pages as it takes.
    pub async fn list(&self, query: &str) -> Vec<Task> {
        let (mut tasks, mut token) = (Vec::new(), String::new());
        loop {
            let page: TaskList =
                self.fetch(&format!("/v1/tasks?page_size=500&page_token={token}&{query}")).await.expect(200);
            tasks.extend(page.tasks);
            token = page.next_page_token;
            if token.is_empty() {
                return tasks;
            }
        }
    }

    /// Asks for a cancel: 200 or 202, and the task.
    pub async fn cancel(&self, id: Uuid) -> (StatusCode, Task) {
        let answer = self.send(Method::POST, &format!("/v1/tasks/{id}/cancel"), None, &[]).await;
        (answer.status, answer.expect(answer.status.as_u16()))
    }

    pub async fn retry(&self, id: Uuid) -> Task {
        self.send(Method::POST, &format!("/v1/tasks/{id}/retry"), None, &[]).await.expect(200)
    }

    pub async fn stats(&self) -> Stats {
        self.fetch("/v1/stats").await.expect(200)
    }

    pub async fn workers(&self) -> Vec<Worker> {
        self.fetch("/v1/workers").await.expect::<WorkerList>(200).workers
    }

    pub async fn worker_ids(&self) -> Vec<String> {
        self.workers().await.into_iter().map(|worker| worker.worker_id).collect()
    }

    /// The status of `/readyz`; none when nobody answers.
    pub async fn readyz(&self) -> Option<u16> {
        Some(self.try_send(Method::GET, "/readyz", None, &[]).await.ok()?.status.as_u16())
    }

    /// Waits until a task has ended.
    pub async fn ended(&self, id: Uuid) -> Task {
        let began = Instant::now();
        let path = format!("/v1/tasks/{id}");
        loop {
            let task: Task = self.send(Method::GET, &path, None, &[("Prefer", WAIT)]).await.expect(200);
            if task.status.is_terminal() {
                return task;
            }
            assert!(began.elapsed() < PATIENCE, "not ended within {PATIENCE:?}: {task:?}");
        }
    }

    /// Waits until a task is in this state, by following its events.
    pub async fn wait_until(&self, id: Uuid, status: TaskStatus) -> Task {
        let mut events = self.events(&format!("task_id={id}&after=0")).await;
        loop {
            let task = self.get(id).await;
            if task.status == status {
                return task;
            }
            assert!(!task.status.is_terminal(), "waiting for {status:?}: {task:?}");
            events.next().await;
        }
    }

    /// Waits until all of these tasks have ended, by following the events of the whole log.
    pub async fn all_ended(&self, ids: &[Uuid]) {
        self.all_ended_within(PATIENCE, ids).await;
    }

    /// As [`Self::all_ended`], with a limit of its own.
    pub async fn all_ended_within(&self, limit: Duration, ids: &[Uuid]) {
        let mut left: HashSet<Uuid> = ids.iter().copied().collect();
        let mut events = self.events("types=task.completed,task.failed,task.cancelled&after=0").await;
        let following = async {
            while !left.is_empty() {
                let event = events.next().await;
                left.remove(&event.event().task_id.expect("an event of a task"));
            }
        };
        let ended = tokio::time::timeout(limit, following).await;
        assert!(ended.is_ok(), "{} of {} tasks have not ended within {limit:?}", left.len(), ids.len());
    }

    /// Follows the events that the query selects.
    pub async fn events(&self, query: &str) -> Events {
        Events::open(self, query, None).await
    }

    /// Follows the events that the query selects, after the one with this id.
    pub async fn events_after(&self, query: &str, last_event_id: &str) -> Events {
        Events::open(self, query, Some(last_event_id.to_owned())).await
    }
}

/// A server-sent event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SseEvent {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
}

impl SseEvent {
    /// The document in it.
    pub fn event(&self) -> Event {
        serde_json::from_str(&self.data).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A stream of server-sent events. Connects again when it is cut off, as a browser does.
pub struct Events {
    api: Api,
    query: String,
    pub last_event_id: Option<String>,
    /// Times it was cut off.
    pub cuts: usize,
    bytes: BoxStream<'static, Vec<u8>>,
    buffer: Vec<u8>,
}

impl Events {
    async fn open(api: &Api, query: &str, last_event_id: Option<String>) -> Self {
        let bytes = Self::connect(api, query, last_event_id.as_deref()).await.expect("a stream of events");
        Self { api: api.clone(), query: query.to_owned(), last_event_id, cuts: 0, bytes, buffer: Vec::new() }
    }

    async fn connect(api: &Api, query: &str, last: Option<&str>) -> Option<BoxStream<'static, Vec<u8>>> {
        let mut request = api.http.get(format!("{}/v1/events?{query}", api.url));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let bytes = answer.bytes_stream().take_while(|part| std::future::ready(part.is_ok()));
        Some(bytes.filter_map(|part| async { Some(part.ok()?.to_vec()) }).boxed())
    }

    /// The next event.
    ///
    /// # Panics
    /// When none comes for [`PATIENCE`].
    pub async fn next(&mut self) -> SseEvent {
        let next = tokio::time::timeout(PATIENCE, self.advance()).await;
        next.unwrap_or_else(|_| panic!("no event of {:?} for {PATIENCE:?}", self.query))
    }

    /// The next event, if one comes within the limit.
    pub async fn next_within(&mut self, limit: Duration) -> Option<SseEvent> {
        tokio::time::timeout(limit, self.advance()).await.ok()
    }

    async fn advance(&mut self) -> SseEvent {
        loop {
            if let Some(event) = self.take_event() {
                if event.id.is_some() {
                    self.last_event_id.clone_from(&event.id);
                }
                return event;
            }
            match self.bytes.next().await {
                Some(part) => self.buffer.extend(part),
                None => self.reconnect().await,
            }
        }
    }

    async fn reconnect(&mut self) {
        self.cuts += 1;
        self.buffer.clear();
        loop {
            if let Some(bytes) = Self::connect(&self.api, &self.query, self.last_event_id.as_deref()).await {
                self.bytes = bytes;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Takes one whole event off the buffer; comments and hints are passed over.
    fn take_event(&mut self) -> Option<SseEvent> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let frame: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let frame = String::from_utf8(frame).expect("events are UTF-8");
            let mut event = SseEvent::default();
            let mut data = Vec::new();
            for line in frame.lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
                match field {
                    "id" => event.id = Some(value),
                    "event" => event.event = Some(value),
                    "data" => data.push(value),
                    _ => {}
                }
            }
            if !data.is_empty() {
                event.data = data.join("\n");
                return Some(event);
            }
        }
    }
}
