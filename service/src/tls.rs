//! TLS for a server: its certificate and key are PEM files, which are read again when they change.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::{Shutdown, client};

/// A client that has not finished its handshake by then is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; further ones wait, and that is a part of their time.
const HANDSHAKES_MAX: usize = 1_024;
/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// No certificate chain or key is as large.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why TLS cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} has no certificate in it; it must be a PEM file (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    #[error("{} has no private key in it that can be used; it must be a PEM file (-----BEGIN PRIVATE KEY-----) without a password", .0.display())]
    NoKey(PathBuf),
    #[error("the key in {} is not the one of the certificate in {}", key.display(), certificate.display())]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("{} and {} cannot be used: {source}", certificate.display(), key.display())]
    Unusable { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Where certificate and key are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate first, then those between it and its root.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What is in the files.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl TlsFiles {
    fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents { certificate: read(&self.certificate)?, key: read(&self.key)? })
    }

    fn parse(&self, contents: &Contents) -> Result<CertifiedKey, TlsError> {
        let chain: Vec<CertificateDer<'static>> =
            CertificateDer::pem_slice_iter(&contents.certificate).filter_map(Result::ok).collect();
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|_| TlsError::NoKey(self.key.clone()))?;
        let (certificate, key_path) = (self.certificate.clone(), self.key.clone());
        CertifiedKey::from_der(chain, key, &provider()).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => TlsError::Mismatch { certificate, key: key_path },
            source => TlsError::Unusable { certificate, key: key_path, source },
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let read = || {
        let mut bytes = Vec::new();
        File::open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn provider() -> Arc<CryptoProvider> {
    client::install_tls();
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(rustls::crypto::ring::default_provider()))
}

/// Certificate and key as they are used now. Never without one: what replaces it has been checked.
#[derive(Debug)]
struct Identity(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Identity {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// TLS as a server serves it. Clones are the same.
#[derive(Clone)]
pub struct Tls {
    files: TlsFiles,
    identity: Arc<Identity>,
    acceptor: TlsAcceptor,
    handshakes: Arc<Semaphore>,
    handshake_timeout: Duration,
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One line: which file cannot be used, and why.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let key = files.parse(&files.read()?)?;
        let identity = Arc::new(Identity(RwLock::new(Arc::new(key))));
        let builder = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|source| {
            let TlsFiles { certificate, key } = files.clone();
            TlsError::Unusable { certificate, key, source }
        })?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(identity.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let (acceptor, handshakes) = (TlsAcceptor::from(Arc::new(config)), Arc::new(Semaphore::new(HANDSHAKES_MAX)));
        Ok(Self { files, identity, acceptor, handshakes, handshake_timeout: HANDSHAKE_TIMEOUT })
    }

    /// The handshake with a client.
    ///
    /// # Errors
    /// When it fails, or takes too long.
    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        let handshake = async {
            // Never closed.
            let _turn = self.handshakes.acquire().await.map_err(std::io::Error::other)?;
            self.acceptor.accept(stream).await
        };
        tokio::time::timeout(self.handshake_timeout, handshake).await?
    }

    /// Takes over what the files have when that has changed, until the stop is requested. What cannot be used (a key that has not
    /// followed its certificate yet) is said once, and changes nothing.
    pub async fn watch(&self, shutdown: &Shutdown) {
        let mut seen = None;
        loop {
            let files = self.files.clone();
            let read = tokio::task::spawn_blocking(move || files.read()).await;
            match read {
                // The same as last time, be it good or bad.
                Ok(Ok(contents)) if seen.as_ref() == Some(&contents) => {}
                Ok(Ok(contents)) => {
                    // The first time it is what is in use already, or has just changed.
                    self.take_over(&contents, seen.is_some());
                    seen = Some(contents);
                }
                Ok(Err(error)) => tracing::debug!(%error, "the certificate cannot be read; the one in use stays"),
                Err(_) => {}
            }
            if shutdown.or_stop(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }

    fn take_over(&self, contents: &Contents, is_news: bool) {
        match self.files.parse(contents) {
            Ok(key) => {
                *self.identity.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                if is_news {
                    tracing::info!(certificate = %self.files.certificate.display(), "the certificate has changed, and is used from now on");
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the certificate has changed and cannot be used; the one before stays")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::{ServerLimits, serve_tls};
    use axum::Router;
    use rcgen::CertifiedKey as Generated;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    fn tls(directory: &tempfile::TempDir) -> Tls {
        let Generated { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = TlsFiles { certificate: directory.path().join("c.pem"), key: directory.path().join("k.pem") };
        std::fs::write(&files.certificate, cert.pem()).unwrap();
        std::fs::write(&files.key, signing_key.serialize_pem()).unwrap();
        Tls::load(files).unwrap()
    }

    #[tokio::test]
    async fn whoever_does_not_finish_its_handshake_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let tls = Tls { handshake_timeout: Duration::from_millis(50), ..tls(&directory) };
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        let serving = serve_tls(listener, Router::new(), ServerLimits::default(), Some(tls), shutdown.clone());
        let serving = tokio::spawn(serving);
        let mut silent = TcpStream::connect(address).await.unwrap();
        assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
        // A handshake that has begun does not hold up the end.
        let _silent = TcpStream::connect(address).await.unwrap();
        shutdown.request();
        serving.await.unwrap();
    }

    #[test]
    fn what_replaces_a_certificate_is_taken_over_only_when_it_can_be_used() {
        let directory = tempfile::tempdir().unwrap();
        let tls = tls(&directory);
        let in_use = || tls.identity.0.read().unwrap().cert[0].clone();
        let before = in_use();
        tls.take_over(&Contents { certificate: b"nonsense".to_vec(), key: b"nonsense".to_vec() }, true);
        assert_eq!(in_use(), before);
        let Generated { cert, signing_key } = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mismatched = Contents { certificate: cert.pem().into(), ..tls.files.read().unwrap() };
        tls.take_over(&mismatched, true);
        assert_eq!(in_use(), before);
        tls.take_over(&Contents { certificate: cert.pem().into(), key: signing_key.serialize_pem().into() }, true);
        assert_eq!(&in_use(), cert.der());
    }
}
