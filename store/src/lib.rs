//! The task's lifecycle: pure rules, and the only SQL of TaskMaster.
//!
//! In reading order: [`rules`] (what may happen to a task, without a database), [`database`] (connections, migrations),
//! [`create`], [`read`], [`replica`] (the same from a standby), [`change`] (what users do), [`claim`], [`outcome`], [`rescue`],
//! [`detached`] (what coordinators do), [`fleet`] (workers and coordinators), [`url_workers`] (those that are only a URL),
//! [`keys`] (API keys), [`installation`] (what attempts are signed and named with), [`quotas`] (what gateways have admitted),
//! [`schedules`] (what makes tasks again and again), [`hooks`] (incoming webhooks), [`events`] (the log), [`webhooks`] (what is
//! sent of it), [`stats`], [`deep`] (when to look from the bottom), [`wakeup`] (notifications), [`upkeep`] (partitions,
//! retention).

pub mod rules;

pub mod database;
pub mod error;

pub mod change;
pub mod create;
pub mod read;
pub mod replica;

pub mod claim;
pub mod detached;
pub mod fleet;
pub mod outcome;
pub mod rescue;

pub mod hooks;
pub mod installation;
pub mod keys;
mod pool;
pub mod queues;
pub mod quotas;

pub mod schedules;

pub mod deep;
pub mod events;
pub mod stats;
pub mod upkeep;
pub mod url_workers;
pub mod wakeup;
pub mod webhooks;

mod backlog;
mod lanes;
mod news;
mod row;
mod silence;
mod trace;

pub use change::{Bulk, Cancel, Retry};
pub use create::{Callbacks, Due, Known, Once, OnceKey, TaskToCreate};
pub use database::{DatabaseArgs, Store};
pub use error::StoreError;
pub use events::EventPage;
pub use read::TaskPage;
pub use replica::Seen;
