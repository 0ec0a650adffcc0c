//! How any TaskMaster process is configured, served, observed and stopped. Knows nothing of tasks.
//!
//! In reading order: [`settings`] (values of flags and environment variables), [`shutdown`] (one contract for everything that
//! runs), [`logging`], [`server`] (HTTP/1.1 with bounds), [`tls`] (over TLS), [`places`] (so many in
//! all, so many of each client), [`stage`] (a stage of a tower stack), [`layers`] (what every router is wrapped in), [`extract`] (bodies and
//! parameters, refused with problem documents), [`auth`] (bearer tokens), [`health`], [`client`] (the HTTP client between
//! processes), [`batch`] (many callers, one statement), [`pause`] (waits between tries).

pub mod auth;
pub mod batch;
pub mod client;
pub mod extract;
pub mod health;
pub mod layers;
pub mod logging;
pub mod pause;
pub mod places;
pub mod rate;
pub mod server;
pub mod settings;
pub mod shutdown;
pub mod stage;
pub mod tls;

pub use client::TrustArgs;
pub use health::Health;
pub use settings::Secret;
pub use shutdown::Shutdown;
pub use tls::{Tls, TlsFiles};
