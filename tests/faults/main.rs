//! The fault suite: the real program as processes, broken in every way, and one checker over all that happened.
//!
//! In reading order: `history` (what happened, from three sides), `checker` (what must hold of it), `target` and `load` (what
//! tasks do, and who creates them), `proxy` and `world` (processes, and the ways between them), `focused` (one fault at a time),
//! `mixed` (all of them at once, under load), `schedules` (which fire
//! while coordinators are killed), `webhooks` (every event reaches its subscriber), `hooks` (each delivery that
//! arrives is one task), `queues` (limits hold), `detached` (targets that finish after a 202), `sabotage` (the product spoilt on purpose: the
//! checker sees it). What needs root is
//! ignored unless asked for: `network` and `namespaces` (packets lost between hosts), `clock` (wall clocks that jump), `disk` (no
//! room under the database), `patroni` and `failover` (a database of several servers), `rebinding` (a resolver that lies); `hits` counts
//! what they hit.
//!
//! The long form: `TASKMASTER_FAULTS_SECONDS=1800 cargo test --release --test faults -- --nocapture mixed`; a run is repeated
//! with the `TASKMASTER_FAULTS_SEED` that it printed, as far as real processes can be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod checker;
mod clock;
mod detached;
mod disk;
mod failover;
mod focused;
mod history;
mod hits;
mod hooks;
mod liar;
mod load;
mod mixed;
mod namespaces;
mod network;
mod patroni;
mod proxy;
mod queues;
mod rebinding;
mod sabotage;
mod schedules;
#[path = "../system/support/mod.rs"]
mod support;
mod target;
mod url_workers;
mod webhooks;
mod world;
