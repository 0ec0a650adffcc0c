//! The HTTP client between TaskMaster's own processes.

use std::sync::Once;
use std::time::Duration;

/// How long a connection may take; the reference's figure.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Chooses the TLS implementation of the process: ring. Harmless when repeated.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only when another provider is installed, which then serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// A client whose every request ends within `timeout`: no proxies, no redirects.
///
/// # Errors
/// Fails when the TLS roots of the machine cannot be read.
pub fn build(timeout: Duration) -> reqwest::Result<reqwest::Client> {
    install_tls();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .tcp_nodelay(true)
        .pool_max_idle_per_host(8)
        // Below the servers' idle time-out, so that a connection is not taken in the moment it is closed.
        .pool_idle_timeout(Duration::from_secs(30))
        .build()
}
