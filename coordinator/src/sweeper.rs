//! Nothing stays stuck: signs of life, the dead, the stranded, and what is kept too long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_store::StoreError;
use taskmaster_store::fleet::COORDINATOR_LEASE_SECONDS;
use taskmaster_store::rescue::RescueLimits;

use crate::coordinator::Coordinator;
use crate::url_workers;

/// Signs of life are given, and the dead and the stranded looked for, this often.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// Claims that nobody removed are looked for this often.
const CLAIMS_EVERY: Duration = Duration::from_secs(10);
/// Partitions and retention are seen to this often.
const UPKEEP_EVERY: Duration = Duration::from_secs(600);
/// Younger claims are looked at only when a worker was lost.
const YOUNG_SECONDS: f64 = 2.0;
/// A claim that is not started for so long is taken back, even from a live worker of a live coordinator.
const UNSTARTED_SECONDS: f64 = 60.0;

pub(crate) struct Sweeper {
    coordinator: Arc<Coordinator>,
    /// The database has answered without a break since then.
    in_contact_since: Option<Instant>,
    next_claims: Instant,
    next_upkeep: Instant,
}

impl Sweeper {
    pub fn new(coordinator: Arc<Coordinator>) -> Self {
        let now = Instant::now();
        Self { coordinator, in_contact_since: None, next_claims: now, next_upkeep: now }
    }

    /// Sweeps until the stop is requested.
    pub async fn run(mut self) {
        let shutdown = self.coordinator.shutdown.clone();
        let mut asked = true;
        loop {
            let swept = self.sweep(asked).await;
            match self.coordinator.noted(swept) {
                Ok(()) => drop(self.in_contact_since.get_or_insert_with(Instant::now)),
                Err(_) => self.in_contact_since = None,
            }
            let woken = tokio::time::timeout(SWEEP_EVERY, self.coordinator.sweep.notified());
            match shutdown.or_stop(woken).await {
                None => return,
                Some(woken) => asked = woken.is_ok(),
            }
        }
    }

    /// `asked`: something may have to be rescued.
    async fn sweep(&mut self, asked: bool) -> Result<(), StoreError> {
        let coordinator = &self.coordinator;
        let store = &coordinator.store;
        let around = coordinator.say_alive().await?;
        let owed = coordinator.shared().owed();
        store.hand_back(&owed).await?;
        coordinator.shared().paid(owed.len());
        let finished = coordinator.shared().take_finished_claims();
        if !finished.confirmed.is_empty() {
            store.forget_claims(&finished.confirmed).await?;
        }
        if !finished.doubtful.is_empty() {
            store.forget_ended_claims(&finished.doubtful).await?;
        }
        if around.has_url_workers || !coordinator.shared().urls.is_empty() {
            url_workers::look_after(coordinator).await?;
        }
        self.leave_to_others().await?;
        let buried = self.bury().await?;
        let rescued = store.rescue(&self.limits(asked || buried)).await?;
        if rescued > 0 {
            tracing::info!(tasks = rescued, "rescued tasks");
        }
        if around.has_silent_targets {
            let expired = store.expire_detached().await?;
            // Another coordinator may have been first.
            if expired > 0 {
                tracing::info!(tasks = expired, "targets did not call back in time");
            }
        }
        self.keep_up().await
    }

    /// Workers that have found another home.
    async fn leave_to_others(&self) -> Result<(), StoreError> {
        let here = self.coordinator.shared().fleet.ids();
        if here.is_empty() {
            return Ok(());
        }
        let mine = self.coordinator.store.workers_at_home(self.coordinator.id).await?;
        for worker_id in here.iter().filter(|id| !mine.contains(id)) {
            tracing::info!(worker_id, "a worker is at home elsewhere, or gone");
            self.coordinator.shared().remove(worker_id);
        }
        Ok(())
    }

    /// Gives up workers without heartbeats; whether there were any. After the database was away, and at the start, workers first
    /// get the time to be heard.
    async fn bury(&self) -> Result<bool, StoreError> {
        let lease = self.coordinator.config.worker_lease();
        if self.in_contact_since.is_none_or(|since| since.elapsed() < lease) {
            return Ok(false);
        }
        let dead = self.coordinator.store.remove_dead_workers(lease.as_secs_f64()).await?;
        for worker_id in &dead {
            tracing::warn!(worker_id, "a worker has no heartbeat any more");
            self.coordinator.shared().remove(worker_id);
        }
        Ok(!dead.is_empty())
    }

    /// `all`: everybody's claims, of any age, are looked at.
    fn limits(&self, all: bool) -> RescueLimits {
        RescueLimits {
            coordinator_lease_seconds: COORDINATOR_LEASE_SECONDS,
            unstarted_seconds: UNSTARTED_SECONDS,
            timeout_margin_seconds: self.coordinator.config.timeout_margin_seconds.as_secs_f64(),
            claimed_seconds_ago: if all { 0.0 } else { YOUNG_SECONDS },
            of: (!all).then_some(self.coordinator.id),
        }
    }

    async fn keep_up(&mut self) -> Result<(), StoreError> {
        let (store, config) = (&self.coordinator.store, &self.coordinator.config);
        let now = Instant::now();
        if now >= self.next_claims {
            store.sweep_claims().await?;
            store.trim_events(config.events_kept_seconds.as_secs_f64()).await?;
            store.trim_idempotency_keys().await?;
            store.trim_queue_flows().await?;
            store.trim_schedule_runs(config.history_days).await?;
            self.next_claims = now + CLAIMS_EVERY;
        }
        if now >= self.next_upkeep {
            store.ensure_partitions().await?;
            store.trim_deliveries(config.history_days).await?;
            let dropped = store.drop_old_partitions(config.history_days).await?;
            if !dropped.is_empty() {
                tracing::info!(?dropped, "dropped old history");
            }
            self.next_upkeep = now + UPKEEP_EVERY;
        }
        Ok(())
    }
}
