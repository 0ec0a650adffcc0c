//! The HTTP client between TaskMaster's own processes.

use std::path::{Path, PathBuf};
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
    builder(timeout).build()
}

/// As [`build`], for more settings.
pub fn builder(timeout: Duration) -> reqwest::ClientBuilder {
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
}

/// Whose certificates a client believes.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct TrustArgs {
    /// A PEM file with certificates of authorities that are believed besides the system's: for a gateway whose certificate is of
    /// a private one
    #[arg(long, env = "TASKMASTER_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<String>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("--tls-ca: cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("--tls-ca: {} has no certificate in it that can be used; it must be a PEM file (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    #[error("cannot set up the HTTP client: {0}; are the machine's root certificates installed?")]
    Client(#[from] reqwest::Error),
}

impl TrustArgs {
    /// As [`builder`], for a client that believes these as well. Blank counts as none.
    ///
    /// # Errors
    /// One line: the file cannot be used.
    pub fn builder(&self, timeout: Duration) -> Result<reqwest::ClientBuilder, ClientError> {
        let path = self.tls_ca.as_deref().map(str::trim).filter(|path| !path.is_empty());
        Ok(match path {
            Some(path) => builder(timeout).tls_certs_merge(authorities(Path::new(path))?),
            None => builder(timeout),
        })
    }

    /// As [`build`], for a client that believes these as well.
    ///
    /// # Errors
    /// One line: the file cannot be used.
    pub fn build(&self, timeout: Duration) -> Result<reqwest::Client, ClientError> {
        Ok(self.builder(timeout)?.build()?)
    }
}

fn authorities(path: &Path) -> Result<Vec<reqwest::Certificate>, ClientError> {
    let pem = std::fs::read(path).map_err(|source| ClientError::Read { path: path.to_owned(), source })?;
    match reqwest::Certificate::from_pem_bundle(&pem) {
        Ok(authorities) if !authorities.is_empty() => Ok(authorities),
        _ => Err(ClientError::NoCertificate(path.to_owned())),
    }
}
