//! What the parts of a coordinator share.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use taskmaster_openapi::client::WorkerClient;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_service::{Health, Shutdown};
use taskmaster_store::claim::ClaimedTask;
use taskmaster_store::fleet::{COORDINATOR_LEASE_SECONDS, Coordinator as Peer, Surroundings};
use taskmaster_store::webhooks::push::Attempted;
use taskmaster_store::{Store, StoreError};
use tokio::sync::{Notify, mpsc};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::Config;
use crate::fleet::Fleet;
use crate::flows::Flows;
use crate::recorder::Recorder;
use crate::token::Tokens;
use crate::url_calls::UrlCaller;
use crate::url_workers::Urls;

/// A task on its way to its worker. The wait until it is due is counted from `claimed_at`.
#[derive(Debug, Clone)]
pub(crate) struct Parcel {
    pub task: ClaimedTask,
    pub claimed_at: Instant,
}

/// How long a sign of life counts.
const LEASE: Duration = Duration::from_millis((COORDINATOR_LEASE_SECONDS * 1000.0) as u64);

/// The name under which readiness speaks of the database.
pub(crate) const DATABASE: &str = "database";

/// What the parts of a coordinator share.
pub(crate) struct Coordinator {
    pub id: Uuid,
    pub address: String,
    pub config: Config,
    pub store: Store,
    pub tokens: Tokens,
    pub workers: WorkerClient,
    pub url_caller: UrlCaller,
    pub health: Health,
    pub shutdown: Shutdown,
    pub recorder: Recorder,
    /// Everything that was begun on behalf of a worker; waited for at the end.
    pub tasks: TaskTracker,
    /// A worker has room.
    pub room: Notify,
    /// Something may have to be rescued.
    pub sweep: Notify,
    /// A schedule was changed.
    pub schedules: Notify,
    /// Deliveries have ended.
    pub delivered: Notify,
    shared: Mutex<Shared>,
}

/// What changes.
#[derive(Default)]
pub(crate) struct Shared {
    pub fleet: Fleet,
    pub flows: Flows,
    pub urls: Urls,
    /// What became of deliveries, to be noted.
    pub attempted: Vec<Attempted>,
    /// Lanes of queues with limits.
    pub limited: HashSet<i32>,
    /// What was in flight of such a queue, or may have been, is so no more.
    pub freed: bool,
    /// Where each worker's tasks are put on their way; dropping one ends its dispatcher and its tether.
    pub lines: HashMap<String, Line>,
    /// What of each of our claims is still out.
    claims: HashMap<i64, Out>,
    /// Claims of which nothing is out any more.
    finished_claims: FinishedClaims,
    /// The live coordinators, as of the last sign of life.
    pub peers: Vec<Peer>,
    /// Until then others take this coordinator for alive; none before its first sign of life.
    alive_until: Option<Instant>,
    /// Claims that are to go back, and could not yet.
    owed: Vec<TaskClaim>,
}

/// What of a claim is still out.
#[derive(Debug, Default)]
struct Out {
    tasks: usize,
    /// For some task the database has not confirmed that it is out of flight.
    doubtful: bool,
}

/// Claims of which nothing is out any more.
#[derive(Debug, Default)]
pub(crate) struct FinishedClaims {
    /// The database has confirmed it for every task.
    pub confirmed: Vec<i64>,
    /// As far as is known here.
    pub doubtful: Vec<i64>,
}

/// How tasks came off a worker's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// The database has recorded what came of them.
    Recorded,
    /// As far as is known here: the database knows better, or is about to be told.
    Presumed,
}

/// The way to one worker.
pub(crate) struct Line {
    pub parcels: mpsc::UnboundedSender<Vec<Parcel>>,
    /// Ends what serves the worker.
    pub ended: Shutdown,
}

impl Coordinator {
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        config: Config,
        address: String,
        store: Store,
        workers: WorkerClient,
        url_caller: UrlCaller,
        recorder: Recorder,
        health: Health,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: Uuid::now_v7(),
            address,
            tokens: Tokens::new(config.join_token.clone()),
            config,
            store,
            workers,
            url_caller,
            health,
            shutdown,
            recorder,
            tasks: TaskTracker::new(),
            room: Notify::new(),
            sweep: Notify::new(),
            schedules: Notify::new(),
            delivered: Notify::new(),
            shared: Mutex::default(),
        })
    }

    /// What changes; never held across a wait.
    pub fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells readiness how a call of the database went.
    pub fn noted<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        match &result {
            Ok(_) => self.health.available(DATABASE),
            Err(error) if error.is_temporary() => self.health.waiting(DATABASE, error.to_string()),
            Err(error) => tracing::error!(%error, "the database refused a statement"),
        }
        result
    }

    /// Gives a sign of life, which counts for a lease from when it was given, and takes over what it learns.
    pub async fn say_alive(&self) -> Result<Surroundings, StoreError> {
        let given = Instant::now();
        let around = self.store.coordinator_alive(self.id, &self.address).await?;
        self.recorder.shared_by(around.coordinators.len());
        let mut shared = self.shared();
        let was_alive = shared.is_alive(Instant::now());
        shared.alive_until = given.checked_add(LEASE);
        shared.peers.clone_from(&around.coordinators);
        drop(shared);
        if !was_alive {
            self.room.notify_one();
        }
        Ok(around)
    }

    /// The worker does not hold these any more.
    pub fn settled(&self, worker_id: &str, claims: &[TaskClaim], how: Settled) {
        if claims.is_empty() {
            return;
        }
        let mut shared = self.shared();
        shared.note_freed(worker_id, claims);
        let had = shared.fleet.settle(worker_id, claims);
        shared.count_down(&had, how);
        drop(shared);
        self.room.notify_one();
    }

    /// Gives claims back to the database; what cannot be given back now is with a sweep.
    pub async fn hand_back(&self, worker_id: &str, claims: Vec<TaskClaim>) {
        if claims.is_empty() {
            return;
        }
        if let Err(error) = self.noted(self.store.hand_back(&claims).await) {
            tracing::warn!(%error, worker_id, tasks = claims.len(), "tasks wait for a sweep to be handed back");
            self.shared().owed.extend(&claims);
        }
        self.settled(worker_id, &claims, Settled::Presumed);
    }

    /// The worker is gone: from here, and from the database. What it held goes to others with the sweep that follows.
    pub async fn give_up(&self, worker_id: &str, why: &str) {
        tracing::warn!(worker_id, why, "giving up a worker");
        self.shared().remove(worker_id);
        let _ = self.noted(self.store.remove_workers(&[worker_id.to_owned()]).await);
        self.sweep.notify_one();
    }
}

impl Shared {
    /// Whether nobody can take this coordinator for dead.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.alive_until.is_some_and(|until| now < until)
    }

    /// Claims that are to go back, and could not yet.
    pub fn owed(&self) -> Vec<TaskClaim> {
        self.owed.clone()
    }

    /// These have gone back.
    pub fn paid(&mut self, count: usize) {
        self.owed.drain(..count.min(self.owed.len()));
    }

    /// Claims of ours went out.
    pub fn count_up(&mut self, claim: i64, tasks: usize) {
        self.claims.entry(claim).or_default().tasks += tasks;
    }

    fn count_down(&mut self, ended: &[TaskClaim], how: Settled) {
        for TaskClaim { claim, .. } in ended {
            let Some(out) = self.claims.get_mut(claim) else { continue };
            out.tasks = out.tasks.saturating_sub(1);
            out.doubtful |= how != Settled::Recorded;
            if out.tasks == 0 {
                match out.doubtful {
                    true => self.finished_claims.doubtful.push(*claim),
                    false => self.finished_claims.confirmed.push(*claim),
                }
                self.claims.remove(claim);
            }
        }
    }

    /// Claims of which nothing is out any more, since the last time.
    pub fn take_finished_claims(&mut self) -> FinishedClaims {
        std::mem::take(&mut self.finished_claims)
    }

    /// Notes whether these make room in a queue with limits. Of what was not given here that is not known.
    fn note_freed(&mut self, worker_id: &str, claims: &[TaskClaim]) {
        if self.limited.is_empty() || self.freed {
            return;
        }
        let may_be_limited =
            |claim| self.fleet.lane_of(worker_id, claim).is_none_or(|lane| self.limited.contains(&lane));
        self.freed = claims.iter().any(may_be_limited);
    }

    /// No more tasks are put on the way; those that are on it arrive.
    pub fn close_lines(&mut self) {
        self.lines.clear();
    }

    /// The worker is not at home here any more. Its claims may still be in flight: whether they are is for the sweeps to say.
    pub fn remove(&mut self, worker_id: &str) {
        for TaskClaim { claim, .. } in self.fleet.remove(worker_id) {
            self.claims.remove(&claim);
        }
        self.urls.forget(worker_id);
        if let Some(line) = self.lines.remove(worker_id) {
            line.ended.request();
        }
    }
}
