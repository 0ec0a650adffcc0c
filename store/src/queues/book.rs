//! What a process knows of all queues: coordinators to claim, gateways to fill in defaults.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use sqlx::{FromRow, Row};
use taskmaster_openapi::queue::QueueSettings;
use tokio::sync::Mutex;

use super::{SetRow, queue_columns};
use crate::database::Store;
use crate::error::StoreError;

/// How a queue's tasks are claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    Open,
    /// Within limits.
    Limited,
    /// Not at all.
    Paused,
}

/// What is set of every queue, as of a version.
#[derive(Debug, Default)]
pub struct QueueBook {
    pub(crate) version: i64,
    queues: HashMap<String, (Gate, QueueSettings)>,
}

impl QueueBook {
    /// How the queue's tasks are claimed.
    pub fn gate(&self, queue: &str) -> Gate {
        self.queues.get(queue).map_or(Gate::Open, |(gate, _)| *gate)
    }

    /// What is set of a queue; `None` where nothing is.
    pub fn settings(&self, queue: &str) -> Option<&QueueSettings> {
        self.queues.get(queue).map(|(_, settings)| settings)
    }

    /// Whether nothing is set of any queue.
    pub fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }
}

/// The book this process has, and when it was read.
#[derive(Debug, Default)]
pub(crate) struct Known {
    book: RwLock<(Option<Instant>, Arc<QueueBook>)>,
    /// Held by whoever reads it anew.
    reading: Mutex<()>,
}

impl Known {
    pub(crate) fn get(&self) -> (Option<Instant>, Arc<QueueBook>) {
        self.book.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Defaults are believed for so long.
const KEPT: Duration = Duration::from_secs(1);
/// While one reads anew, others go on with what is no older than this.
const KEPT_MEANWHILE: Duration = Duration::from_millis(1_500);

impl Store {
    /// What was read last.
    pub fn queue_book(&self) -> Arc<QueueBook> {
        self.queues.get().1
    }

    /// Reads what is set of every queue.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn load_queues(&self) -> Result<Arc<QueueBook>, StoreError> {
        let began = Instant::now();
        let sql = concat!("select h.version, ", queue_columns!(), " from queue_head h left join queues q on true");
        let rows = sqlx::query(sql).fetch_all(&self.pool).await?;
        let mut book = QueueBook::default();
        for row in &rows {
            book.version = row.try_get("version")?;
            if row.try_get::<Option<&str>, _>("queue")?.is_none() {
                continue;
            }
            let set = SetRow::from_row(row)?;
            let gate = match (set.paused_at, set.settings.has_limits()) {
                (Some(_), _) => Gate::Paused,
                (None, true) => Gate::Limited,
                (None, false) => Gate::Open,
            };
            book.queues.insert(set.queue, (gate, set.settings));
        }
        let mut known = self.queues.book.write().unwrap_or_else(PoisonError::into_inner);
        if known.1.version <= book.version {
            *known = (Some(began), Arc::new(book));
        }
        Ok(known.1.clone())
    }

    /// What is set of every queue, as it was a second ago or later, where that is known without asking.
    pub fn known_queues(&self) -> Option<Arc<QueueBook>> {
        let (at, book) = self.queues.get();
        at.is_some_and(|at| at.elapsed() < KEPT).then_some(book)
    }

    /// What is set of every queue, as it was a second ago or later.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn recent_queues(&self) -> Result<Arc<QueueBook>, StoreError> {
        let newer_than = |age: Duration| {
            let (at, book) = self.queues.get();
            at.is_some_and(|at| at.elapsed() < age).then_some(book)
        };
        if let Some(book) = newer_than(KEPT) {
            return Ok(book);
        }
        let reading = self.queues.reading.try_lock();
        if reading.is_err()
            && let Some(book) = newer_than(KEPT_MEANWHILE)
        {
            return Ok(book);
        }
        self.load_queues().await
    }
}
