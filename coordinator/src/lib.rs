//! The coordinator: who is there, who gets what, and what came of it. Any number of them work on one database, all active.
//!
//! In reading order: [`config`]; `took`, [`fleet`] (the workers at home here: room, round-robin, what each holds; pure); `part`
//! (what of it is to be taken first; pure), `poller` (what is due is claimed for those who have room), `dispatch` (and pushed to
//! them); `recorder` (what workers report is recorded); `heartbeat` (workers join and stay), [`home`] (with whom); `url_workers`,
//! `url_calls` (workers that are only a URL); `tether` (a worker's death is noticed at once); `cancel`; `firer` (schedules);
//! [`flows`] (how many deliveries may be in flight; pure), `webhooks` (events become deliveries, signed on their way); [`gates`]
//! (which lanes queues let through; pure); `sweeper` (nothing stays stuck); `api` (the contract), [`token`] (and who may speak
//! it).

pub mod config;
pub mod fleet;
pub mod flows;
pub mod gates;
pub mod home;
mod part;
pub mod token;
mod took;

mod api;
mod cancel;
mod coordinator;
mod dispatch;
mod equip;
mod firer;
mod heartbeat;
mod poller;
mod recorder;
mod sweeper;
mod tether;
mod url_calls;
mod url_workers;
mod webhooks;

pub use api::{operations, run};
pub use config::Config;
