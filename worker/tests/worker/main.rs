//! The worker against a fake coordinator, over HTTP. Every test has a coordinator and workers of its own.
// The lints know tests by their attribute; helpers are tests as well.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod coordinator;
mod fixture;
mod target;

mod contract;
mod membership;
mod scheduling;

mod commands;
mod family;
mod http_tasks;
mod reports;

mod foreign;
