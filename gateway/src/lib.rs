//! The gateway: the public edge and the scheduler's API.
//!
//! In reading order: [`config`] (the settings), `server` (the process, and the stack that every request passes), `edge` (the
//! layers of that stack), `router` (the whole API on one page), `app` (what handlers share).
//!
//! Then one controller a resource: `tasks`, `list`, `batch`, `events`, `workers`, `stats`, `keys`, `signing`, `schedules`,
//! `webhooks`, `hooks`, `queues`, `url_workers`, `attempts` (targets call back), `docs`, and `forward` (the coordinator's
//! contract, passed on). What they are made of: `validate` (what a task must be like), `create` (many callers, one statement),
//! `feed` (one reader of the event log for all clients), `wait`, `prefer`, `conditional`, `aged`, `merge_patch`, `page_token`,
//! `trace` (what a request is part of).

pub mod config;
mod server;

mod edge;
mod router;

mod app;

mod attempts;
mod batch;
mod bulk;
mod deliveries;
mod docs;
mod events;
mod forward;
mod hooks;
mod keys;
mod list;
mod queues;
mod schedules;
mod signing;
mod stats;
mod tasks;
mod url_workers;
mod webhooks;
mod workers;

mod create;
mod feed;
mod once;
mod readiness;
mod validate;
mod wait;

mod aged;
mod conditional;
mod merge_patch;
mod page_token;
mod prefer;
mod trace;

pub use app::Scaler;
pub use config::{Config, ConfigError};
pub use server::{GatewayError, run};

/// What is hot and pure, for `benches/functions`; nothing that others may rely on.
#[doc(hidden)]
pub mod hot {
    pub use crate::batch::parse as parse_batch;
    pub use crate::feed::{Batch, Filter};
    pub use crate::page_token::{read as read_page_token, write as write_page_token};
    pub use crate::validate::task as validate_task;
}

/// `GET /v1/tasks/{id}` with nothing around it, for `bench overhead`; nothing that others may rely on.
#[doc(hidden)]
pub use server::run_bare;

/// Parsers of what strangers send, for `fuzz/`; nothing that others may rely on.
#[doc(hidden)]
#[cfg(feature = "fuzzing")]
pub mod fuzzing;

#[cfg(test)]
mod tests;
