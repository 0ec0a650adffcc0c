//! TaskMaster's three HTTP contracts: the public API of the [`gateway`], what a [`coordinator`] answers, and what
//! a [`worker`] answers. Each is a module of types, paths (written once: the document, the router and the client use the
//! same constants), documented operations, and where processes call one another, a client.
//!
//! Public requests refuse fields they do not know: a misspelt one must not be lost. Messages between processes ignore them, so that
//! processes of neighbouring versions understand one another.
//!
//! The documents under `openapi/v1/` are generated from these modules ([`documents`]); a test says when they are stale.

pub mod attempt;
pub mod bounds;
pub mod checks;
pub mod destination;
pub mod event;
pub mod fields;
pub mod health;
pub mod hook;
pub mod key;
pub mod limits;
pub mod object;
pub mod problem;
pub mod queue;
pub mod report;
pub mod response;
pub mod schedule;
pub mod signing;
pub mod task;
pub mod webhook;
mod whole;

pub mod coordinator;
pub mod gateway;
pub mod gateway_queues;
pub mod gateway_schedules;
pub mod url_worker;
pub mod worker;

pub mod client;
pub mod documents;

pub use problem::{Code, FieldError, Problem};

/// The media type of JSON merge patches (RFC 7396).
pub const MERGE_PATCH_JSON: &str = "application/merge-patch+json";
