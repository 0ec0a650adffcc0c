//! Who gets what, and who holds it; and whether a worker is who it says.

use std::collections::HashSet;
use std::time::Instant;

use http::{HeaderMap, HeaderValue};
use taskmaster_coordinator::fleet::{Fleet, Group, Sign};
use taskmaster_coordinator::token::Tokens;
use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::report::TaskClaim;
use taskmaster_service::Secret;
use taskmaster_store::claim::{Kind, Labels, Lane, LaneKey};

use crate::{Call, ITEMS, Part, samples};

pub(crate) const FUNCTIONS: Part = &[
    ("coordinator/seats", seats),
    ("coordinator/groups", groups),
    ("coordinator/give_take_settle", give_take_settle),
    ("coordinator/heartbeat", heartbeat),
    ("coordinator/worker_tokens", worker_tokens),
];

const WORKERS: usize = 100;
/// Also the slots of each, and the lanes that each serves.
const TASKS_OF_EACH: usize = ITEMS / WORKERS;

fn worker_id(i: usize) -> String {
    format!("01890a5d-3c1f-7d60-8f5e-{i:012}")
}

/// Every other worker names the queues it serves.
fn sign(i: usize) -> Sign {
    let queues = if i.is_multiple_of(2) { Vec::new() } else { (0..TASKS_OF_EACH).map(queue).collect() };
    Sign {
        address: format!("http://10.0.0.{i}:4000"),
        push_secret: "a secret of sixteen or more".into(),
        abilities: Abilities { commands: true, http: true, http_rules: true, queues },
        labels: Labels::new(),
        slots: TASKS_OF_EACH,
        room: ITEMS,
        held: Vec::new(),
        closed: false,
    }
}

fn queue(i: usize) -> String {
    format!("queue-{i}")
}

fn fleet(now: Instant) -> Fleet {
    let mut fleet = Fleet::default();
    (0..WORKERS).for_each(|i| fleet.sign(&worker_id(i), sign(i), now));
    fleet
}

fn seats() -> Call {
    let now = Instant::now();
    let fleet = fleet(now);
    let ids = fleet.ids();
    Box::new(move || fleet.seats(&ids, ITEMS, now).len())
}

fn groups() -> Call {
    let fleet = fleet(Instant::now());
    let key = |i: usize| LaneKey {
        queue: queue(i).into(),
        kind: [Kind::Http, Kind::Command][i % 2],
        requires: Labels::new(),
    };
    let lane = |i: usize| Lane { id: i as i32, key: key(i) };
    let lanes: Vec<Lane> = (0..TASKS_OF_EACH).map(lane).collect();
    let pairs = |group: Group| group.lanes.len() * group.workers.len();
    Box::new(move || fleet.groups(&lanes).into_iter().map(pairs).sum())
}

/// A claim's tasks go to all workers, who take them and end them.
fn give_take_settle() -> Call {
    let now = Instant::now();
    let mut fleet = fleet(now);
    let claims = samples::claims();
    let part = |(i, part): (usize, &[TaskClaim])| (worker_id(i), part.to_vec(), part.iter().copied().collect());
    let parts: Vec<(String, Vec<TaskClaim>, HashSet<TaskClaim>)> =
        claims.chunks(TASKS_OF_EACH).enumerate().map(part).collect();
    Box::new(move || {
        let mut settled = 0;
        for (worker_id, claims, taken) in &parts {
            claims.iter().for_each(|claim| fleet.give(worker_id, *claim, 1, now));
            fleet.take(worker_id, taken, now);
            settled += fleet.settle(worker_id, claims).len();
            fleet.note_work(worker_id, claims.len(), &[0.0; TASKS_OF_EACH], now);
        }
        settled
    })
}

/// The heartbeat of a worker that holds many tasks, all of them its own.
fn heartbeat() -> Call {
    let now = Instant::now();
    let mut fleet = fleet(now);
    let id = worker_id(0);
    let held = samples::claims();
    held.iter().for_each(|claim| fleet.give(&id, *claim, 1, now));
    Box::new(move || {
        fleet.sign(&id, Sign { held: held.clone(), ..sign(0) }, now);
        held.len() - fleet.missing(&id, &held, now, now).len()
    })
}

fn worker_tokens() -> Call {
    let tokens = Tokens::new(Secret::new("a join token of some length"));
    let id = worker_id(0);
    let mut headers = HeaderMap::new();
    let bearer = HeaderValue::try_from(format!("Bearer {}", tokens.of_worker(&id)));
    headers.extend(bearer.map(|bearer| (http::header::AUTHORIZATION, bearer)));
    Box::new(move || (0..ITEMS).filter(|_| tokens.check_worker(&headers, &id).is_ok()).count())
}
