//! Firing schedules. Every coordinator does it; which fires what is decided by row locks, and that each occurrence fires once by a
//! primary key (see the store).
//!
//! A timer is set by what comes next, and a notification (which the poller hears) tells of changes; whatever either misses, the poll finds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use taskmaster_store::StoreError;

use crate::coordinator::Coordinator;

/// Schedules are looked at this often, whatever the timer says.
const POLL_EVERY: Duration = Duration::from_secs(5);
/// What waits for the run before, and what keeps failing, is looked at this often.
const TEND_EVERY: Duration = Duration::from_secs(1);
/// What a fault has disturbed is looked for this often.
const REARM_EVERY: Duration = Duration::from_secs(10);
/// Between two looks: schedules that come at close but different times are fired together.
const SOONEST: Duration = Duration::from_millis(20);
/// Between tries while the database is not available.
const PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct Firer {
    coordinator: Arc<Coordinator>,
    next_fire: Instant,
    next_tend: Instant,
    next_rearm: Instant,
}

impl Firer {
    pub fn new(coordinator: Arc<Coordinator>) -> Self {
        let now = Instant::now();
        Self { coordinator, next_fire: now, next_tend: now, next_rearm: now }
    }

    /// Fires until the stop is requested.
    pub async fn run(mut self) {
        let shutdown = self.coordinator.shutdown.clone();
        loop {
            let turn = self.turn().await;
            if self.coordinator.noted(turn).is_err() {
                self.next_fire = Instant::now() + PAUSE;
                self.next_tend = self.next_tend.max(self.next_fire);
                self.next_rearm = self.next_rearm.max(self.next_fire);
            }
            let next = self.next_fire.min(self.next_tend).min(self.next_rearm);
            let woken = tokio::time::timeout_at(next.into(), self.coordinator.schedules.notified());
            match shutdown.or_stop(woken).await {
                None => return,
                Some(Ok(())) => self.next_fire = Instant::now(),
                Some(Err(_)) => {}
            }
        }
    }

    async fn turn(&mut self) -> Result<(), StoreError> {
        let store = &self.coordinator.store;
        let now = Instant::now();
        if now >= self.next_rearm {
            if store.rearm_schedules().await?.schedules > 0 {
                tracing::warn!("schedules had lost their place in the line, and have it again");
            }
            self.next_rearm = now + REARM_EVERY;
        }
        if now >= self.next_tend {
            let untended = store.untended_schedules().await?;
            let more = untended.waiting && store.start_waiting().await?;
            let more = untended.failing && store.pause_failing_schedules().await? || more;
            self.next_tend = if more { now } else { now + TEND_EVERY };
        }
        if now >= self.next_fire {
            let fired = store.fire_schedules().await?;
            self.next_fire = if fired.more { now } else { self.look_ahead().await? };
        }
        Ok(())
    }

    /// When something is to be fired next.
    async fn look_ahead(&self) -> Result<Instant, StoreError> {
        let next_ms = self.coordinator.store.next_schedule_ms().await?;
        let wait = next_ms.map(|ms| Duration::try_from_secs_f64(ms / 1000.0).unwrap_or(SOONEST));
        Ok(Instant::now() + wait.unwrap_or(POLL_EVERY).clamp(SOONEST, POLL_EVERY))
    }
}
