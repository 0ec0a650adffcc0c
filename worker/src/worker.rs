//! One worker: bound, run, drained. A process may run several.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use rand::Rng;
use taskmaster_openapi::client::CoordinatorClient;
use taskmaster_openapi::coordinator::Abilities;
use taskmaster_service::client::ClientError;
use taskmaster_service::server::{self, ServerLimits};
use taskmaster_service::{Health, Secret, Shutdown};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::address::Advertised;
use crate::board::{Bounds, StopReason};
use crate::config::Config;
use crate::error::WorkerError;
use crate::execute::Executor;
use crate::execute::command::CommandExecutor;
use crate::execute::http::HttpExecutor;
use crate::heartbeat::{COORDINATOR, Heart, Profile};
use crate::link::Link;
use crate::process;
use crate::reporter::Reporter;
use crate::routes::{self, Api};
use crate::slots::Slots;
use crate::targets::TargetGuard;

/// Deadline of one request to a coordinator.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections to the worker at once: some from every coordinator, and a few of people.
const CONNECTIONS_MAX: usize = 256;
/// How long requests in progress may go on at the end of a drain.
const SERVER_DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// What the health of a worker says that it waits for once it has been asked to leave.
pub const LEAVING: &str = "drain";
/// How long stopped tasks may take to end: killing a command takes a moment.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last reports may take at the end of a drain.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the good-bye to the coordinators may take.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Random bytes of the push secret; twice as many characters.
const PUSH_SECRET_BYTES: usize = 32;

/// A worker that listens, and will join when it is run.
#[derive(Debug)]
pub struct Worker {
    profile: Arc<Profile>,
    listener: TcpListener,
    listen_address: SocketAddr,
    router: Router,
    slots: Arc<Slots>,
    link: Arc<Link>,
    client: CoordinatorClient,
    health: Health,
    drain_timeout: Duration,
}

/// Binds a worker and runs it until the stop is requested or a coordinator asks it to leave.
///
/// # Errors
/// Fails when the worker cannot start; later on it retries.
pub async fn run(config: Config, health: Health, shutdown: Shutdown) -> Result<(), WorkerError> {
    Worker::bind(config, health).await?.run(shutdown).await
}

impl Worker {
    /// Checks the settings and listens; sends nothing yet. `health` is what the worker's `/readyz` tells: one for each worker.
    ///
    /// # Errors
    /// Says which setting is wrong, or why the worker cannot listen.
    pub async fn bind(config: Config, health: Health) -> Result<Self, WorkerError> {
        config.validate()?;
        let address = config.listen;
        let listening = TcpListener::bind(address).await;
        let listener = listening.map_err(|source| WorkerError::Listen { address, source })?;
        let listen_address = listener.local_addr().map_err(|source| WorkerError::Listen { address, source })?;
        let bounds = Bounds {
            slots: config.slots.into(),
            queue_max: config.queue_max.into(),
            outcomes_max: config.outcomes_max(),
        };
        let slots = Slots::new(bounds, executor(&config)?);
        let profile = Arc::new(profile(&config, listen_address));
        let api = Api {
            worker_id: profile.worker_id.clone(),
            push_secret: profile.push_secret.clone(),
            allow_commands: config.allow_commands,
            slots_count: profile.slots,
            slots: slots.clone(),
        };
        // From the very beginning: whoever looks before the first heartbeat must not take the worker for ready.
        health.waiting(COORDINATOR, "no heartbeat has been answered yet");
        Ok(Self {
            router: routes::router(Arc::new(api), &health),
            profile,
            listener,
            listen_address,
            slots,
            link: Arc::new(Link::new(config.coordinator_url)),
            client: CoordinatorClient::new(config.trust.build(REQUEST_TIMEOUT)?),
            health,
            drain_timeout: config.drain_timeout,
        })
    }

    /// The worker's id: new for every worker.
    pub fn id(&self) -> &str {
        &self.profile.worker_id
    }

    /// Where the worker listens, with the port it was given.
    pub fn address(&self) -> SocketAddr {
        self.listen_address
    }

    /// What the worker waits for: a coordinator, at first.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The routes that the worker serves; for tests that compare them with the contract.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Serves, heartbeats, works and reports until the stop is requested or a coordinator asks the worker to leave; then
    /// drains, says good-bye and returns. When this is dropped, running tasks are stopped unreported.
    ///
    /// # Errors
    /// None at present: what goes wrong while running is retried.
    pub async fn run(self, shutdown: Shutdown) -> Result<(), WorkerError> {
        let _stop_on_drop = StopOnDrop(self.slots.clone());
        let (leave, beating, serving) = (Shutdown::new(), Shutdown::new(), Shutdown::new());
        let mut heart = JoinSet::new();
        heart.spawn(self.heart(leave.clone()).run(beating.clone()));
        let mut parts = JoinSet::new();
        let limits = ServerLimits {
            connections_max: CONNECTIONS_MAX,
            drain_timeout: SERVER_DRAIN_TIMEOUT,
            ..ServerLimits::default()
        };
        parts.spawn(self.slots.clone().run_timer(serving.clone()));
        parts.spawn(self.reporter().run(serving.clone()));
        let Self { listener, router, slots, link, client, profile, health, drain_timeout, listen_address } = self;
        parts.spawn(server::serve(listener, router, limits, serving.clone()));
        tracing::info!(worker_id = profile.worker_id, address = %listen_address, "worker listens");
        tokio::select! {
            () = shutdown.requested() => {}
            () = leave.requested() => {}
            // None of them ends by itself; if one does, leaving in order is the best that can be done.
            _ = parts.join_next() => tracing::error!("a part of the worker ended by itself: leaving"),
        }
        health.waiting(LEAVING, "the worker is leaving");
        drain(&slots, &link, drain_timeout).await;
        // A heartbeat after the good-bye would join again.
        beating.request();
        while heart.join_next().await.is_some() {}
        say_goodbye(&client, &link, &profile.worker_id).await;
        serving.request();
        while parts.join_next().await.is_some() {}
        tracing::info!(worker_id = profile.worker_id, "worker has left");
        Ok(())
    }

    fn heart(&self, leave: Shutdown) -> Heart {
        Heart {
            profile: self.profile.clone(),
            client: self.client.clone(),
            link: self.link.clone(),
            slots: self.slots.clone(),
            health: self.health.clone(),
            leave,
        }
    }

    fn reporter(&self) -> Reporter {
        Reporter {
            worker_id: self.profile.worker_id.clone(),
            client: self.client.clone(),
            link: self.link.clone(),
            slots: self.slots.clone(),
        }
    }
}

fn executor(config: &Config) -> Result<Executor, WorkerError> {
    if let Some(duration) = config.simulate {
        return Ok(Executor::Simulated(duration));
    }
    if config.allow_commands {
        process::keep_from_commands();
    }
    let targets = TargetGuard::new(&config.allow_targets, &config.allow_target_ports);
    Ok(Executor::Real {
        commands: CommandExecutor::new(config)?,
        http: HttpExecutor::new(targets, config.circuit_failures).map_err(ClientError::from)?,
    })
}

fn profile(config: &Config, listening: SocketAddr) -> Profile {
    let secret: [u8; PUSH_SECRET_BYTES] = rand::rng().random();
    Profile {
        worker_id: config.worker_id.clone().unwrap_or_else(|| Uuid::now_v7().to_string()),
        advertised: Advertised::new(config.advertise.clone(), listening),
        slots: config.slots.into(),
        abilities: Abilities {
            commands: config.allow_commands,
            http: true,
            http_rules: true,
            queues: config.queues.clone(),
        },
        labels: config.labels.clone(),
        push_secret: Secret::new(secret.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        join_token: config.join_token.clone().unwrap_or_else(|| Secret::new("")),
    }
}

/// Takes nothing new, hands back what has not started, lets what runs go on for so long and then stops it, and waits until all
/// of it has been reported. Bounded in time throughout.
async fn drain(slots: &Slots, link: &Link, timeout: Duration) {
    slots.board().drain(Instant::now());
    slots.reports.notify_one();
    link.beat_now.notify_one();
    if !settled(slots, timeout, |counts| counts.running == 0).await {
        tracing::warn!(timeout_seconds = timeout.as_secs_f64(), "tasks were stopped at the end of the drain");
        slots.board().stop_all(StopReason::WorkerLeaves);
        settled(slots, STOP_TIMEOUT, |counts| counts.running == 0).await;
    }
    if !settled(slots, FLUSH_TIMEOUT, |counts| counts.ended == 0).await {
        let unreported = slots.board().counts().ended;
        tracing::warn!(unreported, "no coordinator took the last reports: these tasks will run again elsewhere");
    }
    slots.executor.settled().await;
}

/// Waits until the board is as wanted; `false` when the time is over.
async fn settled(slots: &Slots, timeout: Duration, wanted: impl Fn(crate::board::Counts) -> bool) -> bool {
    let waiting = async {
        while !wanted(slots.board().counts()) {
            slots.settled.notified().await;
        }
    };
    tokio::time::timeout(timeout, waiting).await.is_ok()
}

/// Tells a coordinator that the worker holds nothing any more. If none hears it, they find out by the missing heartbeats.
async fn say_goodbye(client: &CoordinatorClient, link: &Link, worker_id: &str) {
    let Some(token) = link.token() else { return };
    let leaving = async {
        for address in link.candidates() {
            match client.remove_worker(&address, worker_id, token.expose()).await {
                Ok(()) => return,
                Err(error) => tracing::debug!(coordinator = address, %error, "the good-bye was not heard"),
            }
        }
    };
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, leaving).await;
}

/// Stops what runs when a worker's future is dropped.
struct StopOnDrop(Arc<Slots>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        let mut board = self.0.board();
        board.drain(Instant::now());
        board.stop_all(StopReason::NotOurs);
    }
}
