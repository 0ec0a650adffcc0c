//! What users look at, read from a standby server: what it has and is certain, or what it has and is new enough.
//!
//! Whatever decides something asks the primary, by the other methods of [`Store`]. How old a replica's answer may be is not a matter
//! of clocks, nor of what the replica believes: from time to time the primary is asked how far its log reaches, and a replica that
//! has replayed so much knows all that was committed before the question. That holds for an idle primary, for one that the replica
//! has lost sight of, and for several replicas behind one address, since each read asks on the connection that it uses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use taskmaster_openapi::coordinator::Worker;
use taskmaster_openapi::gateway::{Stats, TaskFilter};
use taskmaster_openapi::task::{Attempt, Task, TaskStatus};
use uuid::Uuid;

use crate::backlog::Backlogs;
use crate::database::{DatabaseArgs, Role, Store, pool};
use crate::error::StoreError;
use crate::pool::{Lease, Pool};
use crate::read::TaskPage;

/// How often the primary is asked how far its log reaches.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// Marks that are kept: of the last [`AGE_SECONDS_MAX`].
const MARKS_MAX: usize = 2 * AGE_SECONDS_MAX as usize;
/// The oldest answer that can be allowed.
pub const AGE_SECONDS_MAX: i64 = 300;
/// A replica that takes longer is not asked again until it answers.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen<T> {
    pub value: T,
    /// How old it may be, when a replica said it.
    pub age: Option<Duration>,
}

impl<T> Seen<T> {
    fn now(value: T) -> Self {
        Self { value, age: None }
    }

    fn aged(age: Duration, value: T) -> Self {
        Self { value, age: Some(age) }
    }
}

/// So far had the primary's log come at some time after this moment.
#[derive(Debug, Clone, Copy)]
struct Mark {
    at: Instant,
    position: i64,
}

/// A server that follows the primary.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) pool: Pool,
    backlogs: Backlogs,
    age_max: Duration,
    /// Whether it answered when it was asked last: nobody's request waits for one that does not.
    answers: AtomicBool,
    /// The youngest at the back.
    marks: Mutex<VecDeque<Mark>>,
}

impl Store {
    /// Has `read_…` ask a replica as well, for lists and figures while what it says is younger than this.
    #[must_use]
    pub fn with_replica(self, options: PgConnectOptions, args: &DatabaseArgs, age_max: Duration) -> Self {
        let replica = Replica {
            pool: pool(options, args, Role::Replica),
            backlogs: Backlogs::default(),
            age_max,
            answers: AtomicBool::new(false),
            marks: Mutex::default(),
        };
        Self { replica: Some(Arc::new(replica)), ..self }
    }

    /// Watches the replica, where there is one, for as long as it is polled: without this it is never asked.
    pub async fn watch_replica(&self) {
        let Some(replica) = &self.replica else { return };
        let mut known = None;
        loop {
            replica.mark(&self.pool).await;
            let (answers, state) = replica.look().await;
            replica.answers.store(answers, Ordering::Relaxed);
            if known.replace(state) != Some(state) {
                tracing::info!(state, "the replica for reads");
            }
            tokio::time::sleep(MARK_EVERY).await;
        }
    }

    /// As [`Store::get`]. A replica is believed when it says that the task is COMPLETE: then nothing changes it any more.
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn read_task(&self, id: Uuid) -> Result<Option<Task>, StoreError> {
        let read = async {
            let Some(mut replica) = self.any_replica().await? else { return Ok(None) };
            let task = self.get_on(&mut replica, id).await;
            Ok(replica.answered(task)?.filter(|task| task.status == TaskStatus::Complete))
        };
        match self.said_by_replica(read).await {
            Some(task) => Ok(Some(task)),
            None => self.get(id).await,
        }
    }

    /// As [`Store::attempts`]. A replica is believed as in [`Store::read_task`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn read_attempts(&self, id: Uuid) -> Result<Option<Vec<Attempt>>, StoreError> {
        let read = async {
            let Some(mut replica) = self.any_replica().await? else { return Ok(None) };
            let complete = |last: &Attempt| last.status == TaskStatus::Complete;
            let attempts = self.attempts_on(&mut replica, id).await;
            Ok(replica.answered(attempts)?.filter(|attempts| attempts.last().is_some_and(complete)))
        };
        match self.said_by_replica(read).await {
            Some(attempts) => Ok(Some(attempts)),
            None => self.attempts(id).await,
        }
    }

    /// As [`Store::list`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn read_list(
        &self,
        filter: &TaskFilter,
        before: Option<Uuid>,
        page_size: i64,
    ) -> Result<Seen<TaskPage>, StoreError> {
        let read = async {
            let Some((mut replica, age)) = self.current_replica().await? else { return Ok(None) };
            let page = self.list_on(&mut replica, filter, before, page_size).await;
            Ok(Some(Seen::aged(age, replica.answered(page)?)))
        };
        match self.said_by_replica(read).await {
            Some(seen) => Ok(seen),
            None => Ok(Seen::now(self.list(filter, before, page_size).await?)),
        }
    }

    /// As [`Store::stats`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn read_stats(&self) -> Result<Seen<Stats>, StoreError> {
        let read = async {
            let current = (&self.replica, self.current_replica().await?);
            let (Some(known), Some((mut replica, age))) = current else { return Ok(None) };
            let stats = self.stats_on(&mut replica, &known.backlogs, age).await;
            Ok(Some(Seen::aged(age, replica.answered(stats)?)))
        };
        match self.said_by_replica(read).await {
            Some(seen) => Ok(seen),
            None => Ok(Seen::now(self.stats().await?)),
        }
    }

    /// As [`Store::workers`].
    ///
    /// # Errors
    /// When the database is not available.
    pub async fn read_workers(&self) -> Result<Seen<Vec<Worker>>, StoreError> {
        let read = async {
            let Some((mut replica, age)) = self.current_replica().await? else { return Ok(None) };
            let workers = self.workers_on(&mut replica, age).await;
            Ok(Some(Seen::aged(age, replica.answered(workers)?)))
        };
        match self.said_by_replica(read).await {
            Some(seen) => Ok(seen),
            None => Ok(Seen::now(self.workers().await?)),
        }
    }

    /// What the reading of a replica comes to; `None` when the primary must be asked.
    async fn said_by_replica<T>(&self, read: impl Future<Output = Result<Option<T>, StoreError>>) -> Option<T> {
        let replica = self.replica.as_deref().filter(|replica| replica.answers.load(Ordering::Relaxed))?;
        let read = tokio::time::timeout(PATIENCE, read).await;
        if !matches!(read, Ok(Ok(_))) {
            replica.answers.store(false, Ordering::Relaxed);
        }
        read.ok()?.ok()?
    }

    async fn any_replica(&self) -> Result<Option<Lease>, StoreError> {
        match &self.replica {
            Some(replica) => Ok(Some(replica.pool.acquire().await?)),
            None => Ok(None),
        }
    }

    /// One that is current enough, and how old at most is what it says.
    async fn current_replica(&self) -> Result<Option<(Lease, Duration)>, StoreError> {
        let Some(replica) = &self.replica else { return Ok(None) };
        let (connection, age) = replica.connection().await?;
        Ok(age.filter(|age| *age <= replica.age_max).map(|age| (connection, age)))
    }
}

impl Replica {
    /// Asks the primary how far its log reaches. What it does not answer leaves the marks as they are: they grow old.
    async fn mark(&self, primary: &Pool) {
        let at = Instant::now();
        let asked = sqlx::query_scalar("select (pg_current_wal_flush_lsn() - '0/0')::bigint").fetch_one(primary);
        if let Ok(Ok(position)) = tokio::time::timeout(PATIENCE, asked).await {
            let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
            // Another server is the primary now, and does not have all that the old one had.
            if marks.back().is_some_and(|last| last.position > position) {
                marks.clear();
            }
            marks.push_back(Mark { at, position });
            let excess = marks.len().saturating_sub(MARKS_MAX);
            marks.drain(..excess);
        }
    }

    /// Whether it answers, and how it is, in words.
    async fn look(&self) -> (bool, &'static str) {
        match tokio::time::timeout(PATIENCE, self.connection()).await {
            Ok(Ok((_, Some(age)))) if age <= self.age_max => (true, "current"),
            Ok(Ok(_)) => (true, "too far behind: lists and figures are asked of the primary"),
            Ok(Err(_)) | Err(_) => (false, "no answer: the primary is asked"),
        }
    }

    /// A connection, and how old at most is what it says; `None` when that is not known.
    async fn connection(&self) -> Result<(Lease, Option<Duration>), StoreError> {
        let mut connection = self.pool.acquire().await?;
        // A server that follows nobody has no such position, or one from when it did: it may have gone a way of its own.
        let replayed: Option<i64> = sqlx::query_scalar(
            "select case when pg_is_in_recovery() then (pg_last_wal_replay_lsn() - '0/0')::bigint end",
        )
        .fetch_one(&mut *connection)
        .await?;
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let reached = marks.iter().rev().find(|mark| replayed >= Some(mark.position));
        let age = reached.map(|mark| mark.at.elapsed());
        drop(marks);
        Ok((connection, age))
    }
}
