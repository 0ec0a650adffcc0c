//! The worker: an HTTP server with a few slots and a small queue, which runs commands and HTTP requests and reports what became
//! of them. It never touches the database.
//!
//! In reading order: [`Config`] (settings), [`Worker`] (bind, run, drain), `routes` (the worker's contract), `board` (what it
//! holds: the only state), `slots` (what starts when), `link` (which coordinators there are), `heartbeat`, `reporter`, and the
//! executors under `execute`: `command`, with `programs`, `workspace`, `output`, `exit`, `family`, the [`guard`] process and `process`
//! (what keeps commands out of the worker's own); `http`, with [`targets`].

mod config;
mod error;
mod worker;

mod routes;

mod board;
mod circuits;
mod slots;

mod address;
mod heartbeat;
mod link;
mod reporter;

mod execute;
pub mod guard;
mod process;
pub mod targets;

pub use config::Config;
pub use error::WorkerError;
pub use guard::{GUARD_SUBCOMMAND, guard_main};
pub use worker::{LEAVING, Worker, run};
