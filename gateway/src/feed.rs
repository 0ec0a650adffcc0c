//! One reader of the event log for all clients of this process.
//!
//! It reads while somebody follows: subscribers, who get the batches of events that have something for them, and waiters, who are told
//! that one task has ended. Where the reader begins or leaves something out (it was idle, or the log was trimmed meanwhile) it says so to
//! all, and whoever has not come so far fetches the rest from the log.

mod frames;
mod ring;
mod waiters;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use taskmaster_openapi::event::EventType;
use taskmaster_service::Shutdown;
use taskmaster_store::wakeup::{Channel, Listener};
use taskmaster_store::{EventPage, Store, StoreError};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use uuid::Uuid;

pub use frames::{Batch, Filter};
pub(crate) use frames::{RETRY_HINT, truncated_frame};
use ring::Ring;
pub(crate) use ring::Subscription;
pub(crate) use waiters::Waiter;
use waiters::Waiters;

/// Batches that a subscriber may lag behind before it is cut off.
const LAG_BATCHES_MAX: usize = 256;
/// Events of one batch: with the above, what a subscriber that does not read may keep in memory.
const BATCH_EVENTS_MAX: usize = 500;
/// Followers that read the log at once, so that many who come back together leave connections to others.
const REPLAYS_MAX: usize = 4;
/// Events read at once by a follower; some more when a batch of the log is larger.
pub(crate) const PAGE_EVENTS: i64 = 500;
/// Events read at once by the reader for all.
const LIVE_PAGE_EVENTS: i64 = 5_000;
/// The safety net below the notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Reads come no closer together than this, so that under load they fetch more and cost less.
const READ_INTERVAL_MIN: Duration = Duration::from_millis(5);
/// A read that takes longer has failed: its connection may lead to a machine that is gone.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the reader goes on when nobody follows: clients that come and go do not stop and start it.
const LINGER: Duration = Duration::from_secs(10);
/// Notifications swallowed before a read: they all say the same.
const NOTIFICATIONS_DRAINED_MAX: usize = 10_000;

/// The feed of events. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    ring: Ring,
    waiters: Arc<Waiters>,
    demand: Notify,
    replays: Semaphore,
}

impl Feed {
    pub(crate) fn new(store: Store) -> Self {
        let (ring, replays) = (Ring::new(LAG_BATCHES_MAX), Semaphore::new(REPLAYS_MAX));
        Self(Arc::new(Shared { store, ring, waiters: Arc::default(), demand: Notify::new(), replays }))
    }

    /// A page of the log: the events after a number, about [`PAGE_EVENTS`] of them.
    ///
    /// # Errors
    /// In words, when the database is not available.
    pub(crate) async fn replay(&self, after: i64) -> Result<EventPage, String> {
        // The semaphore is never closed; without a permit the read would only go uncounted.
        let _permit = self.0.replays.acquire().await.ok();
        answered(self.0.store.events_after(after, PAGE_EVENTS)).await
    }

    /// Follows what passes the filter from now on.
    pub(crate) fn subscribe(&self, filter: Filter) -> Subscription {
        let subscription = self.0.ring.subscribe(filter);
        self.0.demand.notify_one();
        subscription
    }

    /// Waits for one task's end; `None` when too many wait already.
    pub(crate) fn waiter(&self, task_id: Uuid) -> Option<Waiter> {
        let waiter = self.0.waiters.add(task_id)?;
        self.0.demand.notify_one();
        Some(waiter)
    }

    fn is_wanted(&self) -> bool {
        self.0.ring.is_followed() || self.0.waiters.is_any()
    }

    /// Reads the log while somebody follows, until the stop is requested.
    pub(crate) async fn run(&self, shutdown: Shutdown) {
        while shutdown.or_stop(self.0.demand.notified()).await.is_some() {
            if self.is_wanted() {
                let mut reader = Reader::new(&self.0.store);
                let _ = shutdown.or_stop(self.follow(&mut reader)).await;
                self.0.waiters.stopped();
            }
        }
    }

    /// Reads and publishes until nobody has followed for a while.
    async fn follow(&self, reader: &mut Reader<'_>) {
        let mut cursor = reader.head().await;
        // Tells subscribers where the reader begins, so that they fetch what came before by themselves.
        self.publish(Batch::new(cursor, Vec::new()));
        self.0.waiters.started();
        let mut wanted_at = Instant::now();
        loop {
            let page = reader.page(cursor).await;
            cursor = self.publish_page(cursor, page);
            if self.is_wanted() {
                wanted_at = Instant::now();
            } else if wanted_at.elapsed() > LINGER && self.0.waiters.stop_unless_any() {
                return;
            }
            reader.wait().await;
        }
    }

    /// Publishes a page, and gives back where the next one begins.
    fn publish_page(&self, cursor: i64, page: EventPage) -> i64 {
        let truncated = page.begins_after > cursor;
        let mut after = page.begins_after;
        if truncated {
            self.publish(Batch::new(after, Vec::new()));
        }
        for events in page.events.chunks(BATCH_EVENTS_MAX) {
            let batch = Batch::new(after, events.to_vec());
            after = batch.last();
            self.publish(batch);
        }
        if truncated {
            self.0.waiters.wake_all();
        }
        after
    }

    fn publish(&self, batch: Batch) {
        let ends = batch.events().filter(|event| {
            matches!(event.event_type, EventType::TaskCompleted | EventType::TaskFailed | EventType::TaskCancelled)
        });
        self.0.waiters.wake(ends.filter_map(|event| event.task_id));
        self.0.ring.publish(batch);
    }
}

/// What the database answers within the deadline, or why it did not.
async fn answered<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(READ_TIMEOUT, call).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("no answer".into()),
    }
}

/// Reads the log, however often the database goes away.
struct Reader<'a> {
    store: &'a Store,
    listener: Listener,
    read_at: Instant,
    full: bool,
    failing: bool,
}

impl<'a> Reader<'a> {
    fn new(store: &'a Store) -> Self {
        let listener = store.listen(&[Channel::Events]);
        Self { store, listener, read_at: Instant::now(), full: false, failing: false }
    }

    async fn head(&mut self) -> i64 {
        loop {
            match answered(self.store.events_head()).await {
                Ok(head) => return head,
                Err(reason) => self.failed(&reason).await,
            }
        }
    }

    async fn page(&mut self, after: i64) -> EventPage {
        loop {
            self.read_at = Instant::now();
            match answered(self.store.events_after(after, LIVE_PAGE_EVENTS)).await {
                Ok(page) => {
                    self.full = page.events.len() >= LIVE_PAGE_EVENTS as usize;
                    self.failing = false;
                    return page;
                }
                Err(reason) => self.failed(&reason).await,
            }
        }
    }

    async fn failed(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!(reason, "the event log cannot be read; trying again every second");
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }

    /// Waits until there may be more to read.
    async fn wait(&mut self) {
        if self.full {
            return;
        }
        let next_read_at = self.read_at + POLL_INTERVAL;
        match tokio::time::timeout_at(next_read_at, self.listener.recv()).await {
            Ok(Ok(_)) => {
                tokio::time::sleep_until(self.read_at + READ_INTERVAL_MIN).await;
                self.drain_notifications();
            }
            // Not connected: the poll goes on without.
            Ok(Err(_)) => tokio::time::sleep_until(next_read_at).await,
            Err(_) => {}
        }
    }

    fn drain_notifications(&mut self) {
        for _ in 0..NOTIFICATIONS_DRAINED_MAX {
            if !matches!(self.listener.recv().now_or_never(), Some(Ok(_))) {
                return;
            }
        }
    }
}
