//! What happened, from three sides that know nothing of one another: the client that asked, the targets that did the work, and the
//! database that kept the books.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{Connection, PgConnection, Row as _};
use taskmaster_openapi::event::{Event, EventType};
use taskmaster_openapi::gateway::StatusCounts;
use taskmaster_openapi::task::TaskStatus;
use uuid::Uuid;

/// A moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Stamp {
    /// Seconds since the machine started: never set.
    pub monotonic: f64,
    pub wall: DateTime<Utc>,
}

impl Stamp {
    pub fn now() -> Self {
        Self { monotonic: uptime(), wall: Utc::now() }
    }
}

/// The clock of `/proc/uptime`, which shell commands can read, too.
fn uptime() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: fills the struct that it is given.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) }, 0);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// What a task was created to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its first attempts fail, so many of them.
    pub fails: i64,
    pub max_attempts: i64,
    /// Kills its worker whenever it runs.
    pub poison: bool,
    /// The time that was asked for.
    pub scheduled_at: Option<DateTime<Utc>>,
}

impl Default for Spec {
    fn default() -> Self {
        Self { fails: 0, max_attempts: 3, poison: false, scheduled_at: None }
    }
}

/// What a client knows of a creating request. Its tasks carry its number and their place in it as a tag: `7/0`, `7/1`, ….
#[derive(Debug, Clone)]
pub struct Request {
    pub number: u64,
    pub tasks: Vec<Spec>,
    pub answer: Answer,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// 201, and the ids in order.
    Accepted(Vec<Uuid>),
    /// 4xx: nothing was stored.
    Refused,
    /// No answer, or 5xx: it may have been stored or not.
    Unknown,
}

/// A cancel that was answered.
#[derive(Debug, Clone, Copy)]
pub struct CancelAnswer {
    pub task: Uuid,
    pub status: u16,
    pub answered: Stamp,
}

/// One run of a task, as its target saw it.
#[derive(Debug, Clone)]
pub struct Execution {
    pub task: Uuid,
    pub attempt: i64,
    /// Commands know the claim that they run for.
    pub claim: Option<i64>,
    pub began: Stamp,
    /// None when nobody saw the end: the run was broken off.
    pub ended: Option<Stamp>,
    /// Whether the target said that it succeeded, at the end.
    pub succeeded: bool,
}

/// A task as the database has it.
#[derive(Debug, Clone)]
pub struct Row {
    pub id: Uuid,
    /// In `tasks`, rather than in `task_history`.
    pub live: bool,
    pub status: TaskStatus,
    pub tags: Vec<String>,
    pub attempt: i64,
    pub max_attempts: i64,
    pub lost_workers: i64,
    pub hand_backs: i64,
    pub claim: i64,
    pub scheduled_at: DateTime<Utc>,
    pub error: Option<String>,
}

/// An earlier attempt as the database has it.
#[derive(Debug, Clone)]
pub struct AttemptRow {
    pub task: Uuid,
    pub claim: i64,
    pub attempt: i64,
    pub error: Option<String>,
}

/// A row of the log of events: where it begins, and how many it has.
pub type LogRow = (i64, i32);

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub requests: Vec<Request>,
    /// Tasks whose cancel was asked for, answered or not.
    pub cancels_asked: Vec<Uuid>,
    pub cancels: Vec<CancelAnswer>,
    pub executions: Vec<Execution>,
    pub rows: Vec<Row>,
    pub attempts: Vec<AttemptRow>,
    pub log_rows: Vec<LogRow>,
    pub events: Vec<Event>,
    pub counters: StatusCounts,
    /// Nothing was broken meanwhile.
    pub calm: bool,
}

/// So long, and not a little less, a worker keeps what waits for a slot. Events say when they were left, some milliseconds after.
const WAITED: TimeDelta = TimeDelta::milliseconds(900);

impl History {
    /// How often each task was handed back after it had waited for a slot for too long: nothing needs to be broken for that.
    pub fn waited_in_vain(&self) -> HashMap<Uuid, i64> {
        let mut picked: HashMap<Uuid, DateTime<Utc>> = HashMap::new();
        let mut times: HashMap<Uuid, i64> = HashMap::new();
        for event in &self.events {
            let Some(task) = event.task_id else { continue };
            let since = picked.remove(&task);
            match event.event_type {
                EventType::TaskPicked => drop(picked.insert(task, event.at)),
                EventType::TaskRetrying if since.is_some_and(|since| event.at - since >= WAITED) => {
                    *times.entry(task).or_default() += 1;
                }
                _ => {}
            }
        }
        times
    }

    /// Adds what the database knows. Nothing must be moving any more.
    pub async fn read_database(&mut self, url: &str) {
        let mut connection = PgConnection::connect(url).await.expect("the database");
        self.rows = rows(&mut connection).await;
        self.attempts = attempts(&mut connection).await;
        (self.log_rows, self.events) = events(&mut connection).await;
        connection.close().await.expect("closed");
    }
}

fn status(code: i16) -> TaskStatus {
    TaskStatus::ALL[code as usize]
}

async fn rows(connection: &mut PgConnection) -> Vec<Row> {
    const COLUMNS: &str =
        "id, status, coalesce(array(select jsonb_array_elements_text(tags)), '{}') as tags, attempt, max_attempts,
        lost_workers, hand_backs, claim, scheduled_at, error->>'code' as error";
    let sql = format!("select {COLUMNS}, true as live from tasks union all select {COLUMNS}, false from task_history");
    let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(connection).await.expect("the tasks");
    let small = |row: &sqlx::postgres::PgRow, name: &str| i64::from(row.get::<i16, _>(name));
    rows.iter()
        .map(|row| Row {
            id: row.get("id"),
            live: row.get("live"),
            status: status(row.get("status")),
            tags: row.get("tags"),
            attempt: small(row, "attempt"),
            max_attempts: small(row, "max_attempts"),
            lost_workers: small(row, "lost_workers"),
            hand_backs: i64::from(row.get::<i32, _>("hand_backs")),
            claim: row.get("claim"),
            scheduled_at: row.get("scheduled_at"),
            error: row.get("error"),
        })
        .collect()
}

async fn attempts(connection: &mut PgConnection) -> Vec<AttemptRow> {
    let sql = "select task_id, claim, attempt, error->>'code' from attempts";
    let rows: Vec<(Uuid, i64, i16, Option<String>)> =
        sqlx::query_as(sql).fetch_all(connection).await.expect("attempts");
    let row = |(task, claim, attempt, error)| AttemptRow { task, claim, attempt: i64::from(attempt), error };
    rows.into_iter().map(row).collect()
}

type EventRow = (i64, DateTime<Utc>, i16, i32, Vec<Uuid>, Vec<i16>, Vec<Option<String>>);

async fn events(connection: &mut PgConnection) -> (Vec<LogRow>, Vec<Event>) {
    let sql = "select first_id, at, type, n, task_ids, attempts, workers from events order by first_id";
    let rows: Vec<EventRow> = sqlx::query_as(sql).fetch_all(connection).await.expect("the log");
    let log_rows = rows.iter().map(|row| (row.0, row.3)).collect();
    let unpack = |(first, at, code, n, tasks, attempts, workers): EventRow| {
        (0..n as usize).map(move |i| Event {
            id: first + i as i64,
            event_type: EventType::ALL[code as usize],
            at,
            task_id: tasks.get(i).copied(),
            queue: None,
            attempt: attempts.get(i).copied().map(i64::from),
            worker_id: workers.get(i).cloned().flatten(),
            schedule_id: None,
            webhook_id: None,
        })
    };
    (log_rows, rows.into_iter().flat_map(unpack).collect())
}
