//! How many tasks a fault hit, in which state.

use std::fmt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::history::Spec;
use super::load::Book;
use super::target::{Deed, Targets};

/// Every fault hits so many tasks in each state that it can hit.
pub const ENOUGH: i64 = 100;

#[derive(Debug, Clone, Copy, Default)]
pub struct Hits {
    pub times: u64,
    /// Whose creating request was on its way.
    pub creating: i64,
    /// Not claimed, due or not.
    pub waiting: i64,
    pub picked: i64,
    pub started: i64,
}

/// Tasks of a volley.
const VOLLEY: usize = 120;
/// A volley's tasks are due so long after it: the first half, and the second.
const DUE_AFTER_MS: [i64; 2] = [800, 2_000];
/// So many of them are with workers, and wait for their time.
const VOLLEY_PICKED: i64 = 40;

/// Creates tasks that are due at once, and gives the moment back in which workers have them and may not start them yet.
pub async fn volley(book: &Book, targets: &Targets, url: &str) {
    let now = Utc::now().timestamp_micros();
    let task = |place: usize| {
        let due = TimeDelta::milliseconds(DUE_AFTER_MS[place * 2 / VOLLEY]);
        let at = DateTime::from_timestamp_micros(now).expect("a time") + due;
        let spec = Spec { scheduled_at: Some(at), ..Spec::default() };
        let mut task = targets.task(Deed::Http { ms: 50 }, &spec);
        task["priority"] = json!(9);
        (spec, task)
    };
    for gateway in 0..book.gateways() {
        if !book.create(gateway, (0..VOLLEY).map(task).collect()).await.is_empty() {
            break;
        }
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(DUE_AFTER_MS[0] as u64) {
        let mut hits = Hits::default();
        hits.count(url, Whose::Everybodys).await;
        if hits.picked >= VOLLEY_PICKED {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whose tasks a fault hits.
#[derive(Debug, Clone, Copy)]
pub enum Whose<'a> {
    Everybodys,
    /// Those that this worker holds.
    Worker(&'a str),
    /// Those that wait, and those that this coordinator's workers hold.
    Coordinator(&'a str),
}

impl Hits {
    /// Counts what is live at this moment; nothing when the database does not say.
    pub async fn count(&mut self, url: &str, whose: Whose<'_>) {
        self.times += 1;
        let (condition, parameter) = match whose {
            Whose::Everybodys => ("$1 = ''", ""),
            Whose::Worker(id) => ("worker_id = $1", id),
            Whose::Coordinator(id) => ("status = 0 or worker_id in (select id from workers where home::text = $1)", id),
        };
        let sql = format!("select status, count(*) from tasks where {condition} group by 1");
        let Ok(mut connection) = PgConnection::connect(url).await else { return };
        let counts = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(parameter).fetch_all(&mut connection).await;
        let counts: Vec<(i16, i64)> = counts.unwrap_or_default();
        let of = |status| counts.iter().find(|(code, _)| *code == status).map_or(0, |(_, count)| *count);
        self.waiting += of(0);
        self.picked += of(1);
        self.started += of(2);
    }

    /// Creating, waiting, PICKED, STARTED.
    pub fn each(&self) -> [i64; 4] {
        [self.creating, self.waiting, self.picked, self.started]
    }

    pub fn add(&mut self, other: Self) {
        self.times += other.times;
        self.creating += other.creating;
        self.waiting += other.waiting;
        self.picked += other.picked;
        self.started += other.started;
    }

    /// Counts what is being created through a gateway at this moment.
    pub fn count_creating(&mut self, book: &Book, gateway: usize) {
        self.creating += book.creating[gateway].load(Ordering::Relaxed);
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { times, creating, waiting, picked, started } = self;
        write!(
            f,
            "{times:>4} times,{creating:>7} creating,{waiting:>7} waiting,{picked:>7} PICKED,{started:>7} STARTED"
        )
    }
}
