//! Heartbeats: a worker joins with its first one and is there for as long as they come. A heartbeat counts once the database has
//! it, so that no coordinator can take a worker for dead that another has just heard.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use taskmaster_openapi::coordinator::{HeartbeatRequest, HeartbeatResponse, Home};
use taskmaster_openapi::report::TaskClaim;
use taskmaster_openapi::{Code, FieldError, Problem, checks, limits};
use taskmaster_service::Shutdown;
use taskmaster_service::batch::{BatchLimits, Batcher, Pace};
use taskmaster_store::Store;
use taskmaster_store::fleet::{Beat, BeatAnswer};
use tokio::sync::mpsc;

use crate::coordinator::{Coordinator, Line, Settled};
use crate::fleet::Sign;
use crate::{dispatch, home, tether};

type Answer = Option<BeatAnswer>;

/// What a worker was given must be among what it holds by then.
const ARRIVES_WITHIN: Duration = Duration::from_secs(10);
/// No heartbeat is overtaken by one that was sent so much later.
const OVERTAKES_WITHIN: Duration = Duration::from_secs(1);
/// Who joins with tasks of another coordinator says again so soon what it holds: what ended there meanwhile takes room here until then.
const SAYS_AGAIN: Duration = Duration::from_millis(1_500);

/// Heartbeats that come within so long of others are kept together: hundreds of workers cost a few statements a second.
const PACE: Pace = Pace { from_per_second: 0.0, apart: Duration::from_millis(200) };

/// Heartbeats on their way to the database.
pub(crate) type Beats = Batcher<Beat, Answer>;

/// What collects heartbeats, and what drives it.
pub(crate) fn beats(store: Store) -> (Beats, impl Future<Output = ()> + Send) {
    let limits = BatchLimits { waiting_max: 10_000, batch_weight_max: 1_000, concurrency: 1, pace: Some(PACE) };
    Batcher::new(
        limits,
        |_| 1,
        move |beats| {
            let store = store.clone();
            async move { keep(&store, beats).await }
        },
    )
}

/// Of several heartbeats of one worker the last one is kept; it answers them all.
async fn keep(store: &Store, beats: Vec<Beat>) -> Vec<Answer> {
    let ids: Vec<String> = beats.iter().map(|beat| beat.worker_id.clone()).collect();
    let last: HashMap<String, Beat> = beats.into_iter().map(|beat| (beat.worker_id.clone(), beat)).collect();
    let last: Vec<Beat> = last.into_values().collect();
    match store.beat(&last).await {
        Ok(answers) => {
            let answers: HashMap<String, BeatAnswer> = answers.into_iter().map(|a| (a.id.clone(), a)).collect();
            ids.iter().map(|id| answers.get(id).cloned()).collect()
        }
        Err(error) => {
            tracing::warn!(%error, heartbeats = ids.len(), "heartbeats were not kept");
            vec![None; ids.len()]
        }
    }
}

/// Handles a heartbeat.
///
/// # Errors
/// `unauthorized`, `validation_failed`, `database_unavailable`.
pub(crate) async fn handle(
    coordinator: &Arc<Coordinator>,
    beats: &Beats,
    headers: &HeaderMap,
    worker_id: String,
    mut heartbeat: HeartbeatRequest,
) -> Result<HeartbeatResponse, Problem> {
    coordinator.tokens.check_join(headers, &worker_id)?;
    check(coordinator, &worker_id, &heartbeat)?;
    let beat = Beat {
        worker_id: worker_id.clone(),
        address: heartbeat.address.clone(),
        slots: heartbeat.slots as i32,
        held: heartbeat.held.len() as i32,
        abilities: heartbeat.abilities.clone(),
        labels: heartbeat.labels.clone(),
        draining: heartbeat.draining,
        home: coordinator.id,
    };
    let unavailable =
        || Problem::new(Code::DatabaseUnavailable, "The heartbeat does not count: the database is not available.");
    let answer = beats.submit(beat).await.ok().flatten().ok_or_else(unavailable)?;
    if !answer.known {
        // New, or given up since its last heartbeat: what it was given then went to others.
        coordinator.shared().remove(&worker_id);
    }
    let stop = compare(coordinator, &worker_id, &heartbeat.held).await?;
    // What ended while the heartbeat was on its way, or went to others, takes no room.
    let over: HashSet<&TaskClaim> = stop.iter().collect();
    heartbeat.held.retain(|claim| !over.contains(claim));
    let has_tasks = !heartbeat.held.is_empty();
    let (joined, home) = settle_in(coordinator, &worker_id, heartbeat, answer.drain_requested);
    let every = coordinator.config.heartbeat_seconds;
    let next = if joined && has_tasks { every.min(SAYS_AGAIN) } else { every };
    let coordinators = coordinator.shared().peers.iter().map(|peer| peer.address.clone()).collect();
    Ok(HeartbeatResponse {
        known: answer.known,
        token: coordinator.tokens.of_worker(&worker_id),
        home,
        coordinators,
        heartbeat_ms: next.as_millis() as u64,
        lease_ms: coordinator.config.worker_lease().as_millis() as u64,
        stop,
        drain: answer.drain_requested,
    })
}

/// What of its tasks the worker is to stop. What it took and does not have goes to others.
async fn compare(
    coordinator: &Arc<Coordinator>,
    worker_id: &str,
    held: &[TaskClaim],
) -> Result<Vec<TaskClaim>, Problem> {
    let now = Instant::now();
    let ago = |within| now.checked_sub(within).unwrap_or(now);
    let missing = coordinator.shared().fleet.missing(worker_id, held, ago(ARRIVES_WITHIN), ago(OVERTAKES_WITHIN));
    if !missing.is_empty() {
        tracing::warn!(worker_id, tasks = missing.len(), "a worker lost tasks");
        coordinator.noted(coordinator.store.lose(&missing).await)?;
        coordinator.settled(worker_id, &missing, Settled::Presumed);
    }
    // Also of what was given here: anybody may have taken it back meanwhile.
    Ok(coordinator.noted(coordinator.store.to_stop(worker_id, held).await)?)
}

/// Makes the worker at home here, or sends it to a coordinator that has fewer. Whether it was not at home here before, and where
/// it is now.
fn settle_in(
    coordinator: &Arc<Coordinator>,
    worker_id: &str,
    heartbeat: HeartbeatRequest,
    drain: bool,
) -> (bool, Home) {
    let mut shared = coordinator.shared();
    let joined = shared.fleet.get(worker_id).is_none();
    let sign = Sign {
        address: heartbeat.address,
        push_secret: heartbeat.push_secret,
        abilities: heartbeat.abilities,
        labels: heartbeat.labels,
        slots: heartbeat.slots as usize,
        room: heartbeat.room as usize,
        held: heartbeat.held,
        closed: heartbeat.draining || drain,
    };
    shared.fleet.sign(worker_id, sign, Instant::now());
    if joined {
        tracing::info!(worker_id, workers = shared.fleet.len(), "a worker is at home here");
        let (parcels, receiver) = mpsc::unbounded_channel();
        let ended = Shutdown::new();
        let (id, line_ended) = (worker_id.to_owned(), ended.clone());
        coordinator.tasks.spawn(dispatch::run(coordinator.clone(), id.clone(), receiver, line_ended.clone()));
        coordinator.tasks.spawn(tether::run(coordinator.clone(), id.clone(), line_ended));
        shared.lines.insert(id, Line { parcels, ended });
    }
    let here = Home { coordinator_id: coordinator.id, address: coordinator.address.clone() };
    // Those that were sent elsewhere a moment ago are not counted twice.
    let mine = shared.fleet.open() as i64;
    let home = match home::better_home(coordinator.id, mine, &shared.peers) {
        Some(peer) => {
            let home = Home { coordinator_id: peer.id, address: peer.address.clone() };
            // It comes back with its next heartbeat if the other cannot be reached.
            shared.fleet.close(worker_id);
            shared.peers.iter_mut().filter(|p| p.id == home.coordinator_id).for_each(|p| p.workers += 1);
            home
        }
        None => here,
    };
    drop(shared);
    coordinator.room.notify_one();
    (joined, home)
}

fn check(coordinator: &Coordinator, worker_id: &str, heartbeat: &HeartbeatRequest) -> Result<(), Problem> {
    let mut errors = Vec::new();
    let mut expect = |holds: bool, pointer: &str, detail: &str| {
        if !holds {
            errors.push(FieldError::new(pointer, detail));
        }
    };
    expect(is_worker_id(worker_id), "worker_id", "1 to 128 letters, digits, '.', '_' and '-'");
    expect((1..=limits::SLOTS_MAX).contains(&heartbeat.slots), "/slots", "1 to 1000");
    expect((0..=limits::HELD_TASKS_MAX as i64).contains(&heartbeat.room), "/room", "0 to 10000");
    expect(heartbeat.held.len() <= limits::HELD_TASKS_MAX, "/held", "at most 10000 tasks");
    expect(heartbeat.labels.len() <= limits::LABELS_MAX, "/labels", "at most 20 labels");
    expect(
        heartbeat.labels.iter().all(|(name, text)| {
            checks::is_plain(name, limits::LABEL_NAME_CHARS_MAX) && checks::is_plain(text, limits::LABEL_CHARS_MAX)
        }),
        "/labels",
        "names have at most 100 characters, texts 200, and none is a control character",
    );
    let queues = &heartbeat.abilities.queues;
    expect(queues.len() <= limits::SERVED_QUEUES_MAX, "/abilities/queues", "at most 100 queues");
    let is_queue = |name: &String| checks::is_name(name, limits::QUEUE_NAME_CHARS_MAX);
    expect(queues.iter().all(is_queue), "/abilities/queues", "each 1 to 64 letters, digits, '.', '_' and '-'");
    let secret = heartbeat.push_secret.as_str();
    let is_secret = limits::PUSH_SECRET_CHARS.contains(&secret.len()) && secret.bytes().all(|b| b.is_ascii_graphic());
    expect(is_secret, "/push_secret", "16 to 128 visible ASCII characters");
    let is_address = heartbeat.address.len() <= limits::ADDRESS_CHARS_MAX;
    expect(is_address, "/address", "at most 200 characters");
    errors.extend(checks::claims("held", &heartbeat.held));
    match allowed_address(coordinator, &heartbeat.address) {
        Ok(()) => {}
        Err(detail) => errors.push(FieldError::new("/address", detail)),
    }
    match errors.is_empty() {
        true => Ok(()),
        false => Err(Problem::validation(errors)),
    }
}

/// Whether a worker may be called this.
pub(crate) fn is_worker_id(id: &str) -> bool {
    checks::is_name(id, limits::WORKER_ID_CHARS_MAX)
}

/// Coordinators send tasks and secrets to a worker's address: it is a plain origin, in a network that may have workers.
fn allowed_address(coordinator: &Coordinator, address: &str) -> Result<(), String> {
    const SHAPE: &str = "must look like http://10.0.0.7:4000, with an IP address";
    let url = url::Url::parse(address).map_err(|_| SHAPE.to_owned())?;
    let plain = matches!(url.scheme(), "http" | "https")
        && matches!(url.path(), "" | "/")
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && !address.ends_with('/');
    let ip: IpAddr = match url.host() {
        Some(url::Host::Ipv4(ip)) if plain => ip.into(),
        Some(url::Host::Ipv6(ip)) if plain => ip.into(),
        _ => return Err(SHAPE.into()),
    };
    match coordinator.config.worker_networks.iter().any(|network| network.contains(&ip)) {
        true => Ok(()),
        false => Err(format!("{ip} is in none of the networks that this coordinator allows (--worker-networks)")),
    }
}
