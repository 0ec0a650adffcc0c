//! The system as its users run it: the real program, as processes, driven over HTTP. What the tests are made of is in `support`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod api_events;
mod api_examples;
mod api_inputs;
mod api_lists;
mod api_origin;
mod api_readme;
mod commands;
mod cookbook;
mod dispatch;
mod events;
mod faults;
mod foreign;
mod hooks;
mod hostile;
mod http_tasks;
mod keys;
mod outcomes;
mod queues;
mod quotas;
mod requires;
mod restarts;
mod schedules;
mod support;
mod tls;
mod up;
mod url_workers;
mod webhooks;
