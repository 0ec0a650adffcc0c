//! Why a worker cannot start. What goes wrong later is retried or reported, and never ends a worker.

use std::net::SocketAddr;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// A setting contradicts a limit or another setting.
    #[error("{flag}: {reason}")]
    Setting { flag: &'static str, reason: String },
    /// The address is taken, or is not this machine's.
    #[error("cannot listen on {address}: {source}; choose another address with --listen (port 0 takes any free port)")]
    Listen { address: SocketAddr, source: std::io::Error },
    /// TLS could not be set up.
    #[error(transparent)]
    HttpClient(#[from] taskmaster_service::client::ClientError),
}
