//! Serving a router over HTTP/1.1, with bounds: on the time a client takes to send its headers, on connections, and on the
//! time a drain takes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower::ServiceExt;

use crate::Shutdown;

/// Bounds of a server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// A client that has not sent its request's headers by then is cut off (slowloris). Also ends idle keep-alive connections.
    pub header_read_timeout: Duration,
    /// How long requests in progress may go on after a stop was requested.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            header_read_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// A peer that does not acknowledge what it was sent for so long is gone: an endless answer to it would never end by itself.
#[cfg(target_os = "linux")]
const UNREAD_MAX: Duration = Duration::from_secs(60);

/// Serves the router until the stop is requested, then lets requests in progress finish, within the drain time-out.
/// Handlers of endless answers must end them by themselves when the stop is requested.
///
/// Requests carry their peer's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, shutdown: Shutdown) {
    let graceful = GracefulShutdown::new();
    let connections = Arc::new(Semaphore::new(limits.connections_max));
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(accepted) = shutdown.or_stop(accept(&listener, &connections)).await {
        let (stream, peer, permit) = accepted;
        let service = router.clone().map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_read_timeout)
            .serve_connection(TokioIo::new(stream), hyper_util::service::TowerToHyperService::new(service));
        let watched = graceful.watch(connection);
        tasks.spawn(async move {
            // A broken connection is the client's business: its request was answered or it was not.
            if let Err(error) = watched.await {
                tracing::debug!(%error, %peer, "connection ended");
            }
            drop(permit);
        });
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(
            timeout_seconds = limits.drain_timeout.as_secs_f64(),
            "requests were cut off at the end of the drain"
        );
    }
    tasks.shutdown().await;
}

type Permit = tokio::sync::OwnedSemaphorePermit;

/// The next connection, once there is room for one more.
async fn accept(listener: &TcpListener, connections: &Arc<Semaphore>) -> (TcpStream, SocketAddr, Option<Permit>) {
    // The semaphore is never closed; without a permit the connection would only go uncounted.
    let permit = connections.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Without these options a connection is only slower to start and slower to be let go.
                let _ = stream.set_nodelay(true);
                #[cfg(target_os = "linux")]
                let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(UNREAD_MAX));
                return (stream, peer, permit);
            }
            Err(error) => {
                // Out of file descriptors, mostly: give others time to close some.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
