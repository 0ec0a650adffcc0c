//! Serving a router over HTTP/1.1, with bounds: on the time a client takes to send its headers, on connections, in all and of one
//! address, and on the time a drain takes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::routing::any;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use taskmaster_openapi::{Code, Problem};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::either::Either;
use tower::ServiceExt;

use crate::places::{Place, Places, site};
use crate::{Shutdown, Tls, layers};

/// Bounds of a server.
#[derive(Debug, Clone)]
pub struct ServerLimits {
    /// Connections at once; further ones wait in the listener's backlog.
    pub connections_max: usize,
    /// … of one address, of IPv6 of one /64; further ones are answered once, with 503, and closed.
    pub connections_per_address_max: usize,
    /// Networks whose addresses may have more: proxies, which speak for many.
    pub proxies: Vec<IpNet>,
    /// A client that has not sent its request's headers by then is cut off (slowloris). Also ends idle keep-alive connections.
    pub header_read_timeout: Duration,
    /// How long requests in progress may go on after a stop was requested.
    pub drain_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            connections_per_address_max: usize::MAX,
            proxies: Vec::new(),
            header_read_timeout: Duration::from_secs(75),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// A peer that does not acknowledge what it was sent for so long is gone: an endless answer to it would never end by itself.
#[cfg(target_os = "linux")]
const UNREAD_MAX: Duration = Duration::from_secs(60);
/// Addresses with too many connections are told so; as many at once, and for as long. Beyond, they are only closed.
const REFUSALS_MAX: usize = 64;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves the router until the stop is requested, then lets requests in progress finish, within the drain time-out.
/// Handlers of endless answers must end them by themselves when the stop is requested.
///
/// Requests carry their peer's address as [`ConnectInfo<SocketAddr>`].
pub async fn serve(listener: TcpListener, router: Router, limits: ServerLimits, shutdown: Shutdown) {
    serve_tls(listener, router, limits, None, shutdown).await;
}

/// As [`serve`], over TLS if there is any. Its files are watched.
pub async fn serve_tls(
    listener: TcpListener,
    router: Router,
    limits: ServerLimits,
    tls: Option<Tls>,
    shutdown: Shutdown,
) {
    let graceful = GracefulShutdown::new();
    let mut tasks = tokio::task::JoinSet::new();
    if let Some(tls) = tls.clone() {
        let shutdown = shutdown.clone();
        tasks.spawn(async move { tls.watch(&shutdown).await });
    }
    let drain_timeout = limits.drain_timeout;
    let door = Door::new(router, limits, tls);
    while let Some((stream, peer, permit)) = shutdown.or_stop(accept(&listener, &door.connections)).await {
        if let Some(visit) = door.receive(stream, peer, permit) {
            let (watcher, shutdown) = (graceful.watcher(), shutdown.clone());
            tasks.spawn(async move {
                // A broken connection is the client's business: its request was answered or it was not.
                if let Err(error) = visit.run(watcher, &shutdown).await {
                    tracing::debug!(%error, %peer, "connection ended");
                }
            });
        }
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    if tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(timeout_seconds = drain_timeout.as_secs_f64(), "requests were cut off at the end of the drain");
    }
    tasks.shutdown().await;
}

type Permit = OwnedSemaphorePermit;

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

/// Decides how a connection is served.
struct Door {
    connections: Arc<Semaphore>,
    addresses: Arc<Places<IpAddr>>,
    refusals: Arc<Semaphore>,
    limits: ServerLimits,
    tls: Option<Tls>,
    router: Router,
    /// Answers those that have too many connections.
    refusal: Router,
}

impl Door {
    fn new(router: Router, limits: ServerLimits, tls: Option<Tls>) -> Self {
        let each_max = limits.connections_per_address_max;
        let refusal = async move || {
            let detail =
                format!("Your address has {each_max} connections already. Close some, and try again in a second.");
            Problem::new(Code::Overloaded, detail).retry_after_seconds(1)
        };
        Self {
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            addresses: Places::new(usize::MAX, each_max),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            limits,
            tls,
            router,
            refusal: layers::wrap(Router::new().route("/", any(refusal)).route("/{*path}", any(refusal))),
        }
    }

    fn receive(&self, stream: TcpStream, peer: SocketAddr, permit: Option<Permit>) -> Option<Visit> {
        let address = peer.ip().to_canonical();
        let place = match self.limits.proxies.iter().any(|network| network.contains(&address)) {
            true => None,
            false => match self.addresses.take(site(address)) {
                Ok(place) => Some(place),
                Err(_) => return self.refuse(stream, peer, permit),
            },
        };
        let (router, header_read_timeout) = (self.router.clone(), self.limits.header_read_timeout);
        let (tls, holds) = (self.tls.clone(), Holds { _permit: permit, _place: place, _refusal: None });
        Some(Visit { stream, peer, tls, router, header_read_timeout, keep_alive: true, holds })
    }

    /// A refusal by one answer; a handshake would cost more than is saved.
    fn refuse(&self, stream: TcpStream, peer: SocketAddr, permit: Option<Permit>) -> Option<Visit> {
        if self.tls.is_some() {
            return None;
        }
        let refusal = self.refusals.clone().try_acquire_owned().ok()?;
        let holds = Holds { _permit: permit, _place: None, _refusal: Some(refusal) };
        let (router, header_read_timeout) = (self.refusal.clone(), REFUSAL_TIMEOUT);
        Some(Visit { stream, peer, tls: None, router, header_read_timeout, keep_alive: false, holds })
    }
}

/// What a connection occupies for as long as it lasts.
struct Holds {
    _permit: Option<Permit>,
    _place: Option<Place<IpAddr>>,
    _refusal: Option<Permit>,
}

/// A connection, and how it is served.
struct Visit {
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<Tls>,
    router: Router,
    header_read_timeout: Duration,
    keep_alive: bool,
    holds: Holds,
}

impl Visit {
    async fn run(self, watcher: Watcher, shutdown: &Shutdown) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let Self { stream, peer, tls, router, header_read_timeout, keep_alive, holds } = self;
        let stream = match tls {
            None => Either::Left(stream),
            Some(tls) => match shutdown.or_stop(tls.accept(stream)).await {
                Some(stream) => Either::Right(stream?),
                None => return Ok(()),
            },
        };
        let service = router.map_request(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(header_read_timeout)
            .keep_alive(keep_alive)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        let ended = watcher.watch(connection).await;
        drop(holds);
        Ok(ended?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    async fn served(limits: ServerLimits) -> (SocketAddr, Shutdown) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap(), Shutdown::new());
        let router = layers::wrap(Router::new().route("/", any(async || "here\n")));
        tokio::spawn(serve(listener, router, limits, shutdown.clone()));
        (address, shutdown)
    }

    async fn open(address: SocketAddr, bytes: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        stream
    }

    /// Everything up to the end of the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    const REQUEST: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    #[tokio::test]
    async fn whoever_takes_too_long_over_headers_or_between_requests_is_cut_off() {
        let header_read_timeout = Duration::from_millis(100);
        let (address, _) = served(ServerLimits { header_read_timeout, ..ServerLimits::default() }).await;
        assert_eq!(rest(open(address, "GET / HTTP/1.1\r\nHost: a\r\nX-Slow").await).await, "");
        assert_eq!(rest(open(address, "").await).await, "");
        assert!(
            rest(open(address, REQUEST).await).await.ends_with("here\n"),
            "it is answered, and its connection ends"
        );
    }

    #[tokio::test]
    async fn one_address_cannot_take_all_connections_and_is_told_so_unless_it_is_a_proxys() {
        let limits = ServerLimits { connections_per_address_max: 2, ..ServerLimits::default() };
        let (address, _) = served(limits.clone()).await;
        let mut held = Vec::new();
        for _ in 0..2 {
            let mut stream = open(address, REQUEST).await;
            stream.read_exact(&mut [0; 4]).await.unwrap();
            held.push(stream);
        }
        let refused = rest(open(address, REQUEST).await).await;
        assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("\"code\":\"overloaded\""), "{refused}");
        assert!(refused.contains("retry-after: 1\r\n") && refused.contains("connection: close\r\n"), "{refused}");
        // Another address has its own.
        let other = TcpSocket::new_v4().unwrap();
        other.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = other.connect(address).await.unwrap();
        other.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        other.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
        // Once one is closed, there is room: as soon as the server knows.
        drop(held.pop());
        while !rest(open(address, &REQUEST.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")).await)
            .await
            .contains("here")
        {}

        let (address, _) = served(ServerLimits { proxies: vec!["127.0.0.0/8".parse().unwrap()], ..limits }).await;
        for _ in 0..5 {
            let mut stream = open(address, REQUEST).await;
            stream.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200");
            held.push(stream);
        }
    }
}
