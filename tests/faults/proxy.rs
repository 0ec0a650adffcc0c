//! The ways between the parts: each is a small TCP proxy that can be slow, hold what is sent, or lose it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use super::support::in_background;

/// What becomes of bytes in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Pass,
    /// Every piece comes so much later.
    Slow(Duration),
    /// Nothing arrives until this changes; then everything does, late.
    Hold,
    /// The first piece is thrown away, and the connection is closed: an answer that is lost after the effect.
    Lose,
}

/// Both directions of a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flows {
    /// From who connects to who listens: requests.
    pub there: Flow,
    /// Answers.
    pub back: Flow,
}

impl Flows {
    pub const PASS: Self = Self { there: Flow::Pass, back: Flow::Pass };
    /// Cut both ways.
    pub const CUT: Self = Self { there: Flow::Hold, back: Flow::Hold };
    /// Requests get through, and answers do not.
    pub const NO_ANSWER: Self = Self { there: Flow::Pass, back: Flow::Hold };
    pub const LOST_ANSWERS: Self = Self { there: Flow::Pass, back: Flow::Lose };

    pub const fn slow(by: Duration) -> Self {
        Self { there: Flow::Slow(by), back: Flow::Slow(by) }
    }
}

/// A text of SQL: the answers of the next so many statements with it are lost.
type Doom = Arc<Mutex<Option<(&'static str, usize)>>>;

/// A text of SQL, and what the database is told instead: no longer than the text.
pub type Swap = (&'static str, &'static str);
/// Texts that are swapped, and how often each was.
type Swaps = Arc<Mutex<Vec<(Swap, usize)>>>;

/// Bytes of a piece.
const PIECE_BYTES: usize = 64 * 1024;

/// A way to one listener. Gone, with all its connections, when dropped.
pub struct Proxy {
    address: SocketAddr,
    upstream: Arc<Mutex<SocketAddr>>,
    flows: watch::Sender<Flows>,
    doom: Doom,
    swaps: Swaps,
    /// Accepts and carries; none while connections are refused.
    running: Option<AbortHandle>,
}

impl Proxy {
    /// Listens on `address`.
    pub async fn start(address: SocketAddr, upstream: SocketAddr) -> Self {
        let upstream = Arc::new(Mutex::new(upstream));
        let flows = watch::Sender::new(Flows::PASS);
        let (doom, swaps) = (Doom::default(), Swaps::default());
        let mut proxy = Self { address, upstream, flows, doom, swaps, running: None };
        proxy.admit().await;
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Leads elsewhere from the next connection on.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    pub fn set(&self, flows: Flows) {
        self.flows.send_replace(flows);
    }

    /// On the way to the database: loses the answers of the next `count` statements with this text, after their effect.
    pub fn lose_answers_of(&self, sql: &'static str, count: usize) {
        *self.doom.lock().unwrap_or_else(PoisonError::into_inner) = Some((sql, count));
    }

    pub fn lose_no_more(&self) {
        *self.doom.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// How many of these answers have not been lost yet.
    pub fn left_to_lose(&self) -> usize {
        self.doom.lock().unwrap_or_else(PoisonError::into_inner).map_or(0, |(_, left)| left)
    }

    /// On the way to the database: swaps texts of the statements that are prepared from now on.
    pub fn swap(&self, swaps: &[Swap]) {
        let unused = |swap: &Swap| (*swap, 0);
        *self.swaps.lock().unwrap_or_else(PoisonError::into_inner) = swaps.iter().map(unused).collect();
    }

    /// The texts to swap that no statement had so far.
    pub fn not_swapped(&self) -> Vec<Swap> {
        let swaps = self.swaps.lock().unwrap_or_else(PoisonError::into_inner);
        swaps.iter().filter(|(_, times)| *times == 0).map(|(swap, _)| *swap).collect()
    }

    /// Refuses connections, and breaks those that there are: nobody listens behind it.
    pub fn refuse(&mut self) {
        if let Some(running) = self.running.take() {
            running.abort();
        }
    }

    /// Accepts connections again.
    pub async fn admit(&mut self) {
        self.refuse();
        let (address, upstream, flows) = (self.address, self.upstream.clone(), self.flows.subscribe());
        let (doom, swaps) = (self.doom.clone(), self.swaps.clone());
        let started = in_background(async move {
            // The one before may need a moment to let go of the address.
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
                    Err(error) => panic!("{address}: {error}"),
                }
            };
            tokio::spawn(accept(listener, upstream, flows, doom, swaps)).abort_handle()
        });
        self.running = Some(started.await);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.refuse();
    }
}

async fn accept(
    listener: TcpListener,
    upstream: Arc<Mutex<SocketAddr>>,
    flows: watch::Receiver<Flows>,
    doom: Doom,
    swaps: Swaps,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((client, _)) = listener.accept() => {
                let upstream = *upstream.lock().unwrap_or_else(PoisonError::into_inner);
                connections.spawn(carry(client, upstream, flows.clone(), doom.clone(), swaps.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries one connection until either end closes it, or something in it is lost.
async fn carry(client: TcpStream, upstream: SocketAddr, flows: watch::Receiver<Flows>, doom: Doom, swaps: Swaps) {
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let (client_read, client_write) = client.into_split();
    let (server_read, server_write) = server.into_split();
    let doomed = AtomicBool::new(false);
    let mut statements = Statements::default();
    let there = |piece: &mut [u8]| {
        swap(piece, &swaps);
        if statements.are_doomed(piece, &doom) {
            doomed.store(true, Ordering::SeqCst);
        }
        false
    };
    let back = |_: &mut [u8]| doomed.load(Ordering::SeqCst);
    tokio::select! {
        () = pump(client_read, server_write, flows.clone(), |flows| flows.there, there) => {}
        () = pump(server_read, client_write, flows, |flows| flows.back, back) => {}
    }
}

/// Knows by which name a connection calls the statement whose answer is to be lost.
#[derive(Default)]
struct Statements {
    name: Option<Vec<u8>>,
}

/// How sqlx names statements.
const NAME: &[u8] = b"sqlx_s_";

impl Statements {
    fn are_doomed(&mut self, piece: &[u8], doom: &Doom) -> bool {
        let mut doom = doom.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((sql, left)) = doom.as_mut() else { return false };
        if let Some(at) = find(piece, sql.as_bytes()) {
            // The name stands before the text, and ends with a zero.
            self.name = piece[..at].windows(NAME.len()).rposition(|window| window == NAME).map(|begin| {
                let end = piece[begin..].iter().position(|byte| *byte == 0).unwrap_or(0);
                piece[begin..=begin + end].to_vec()
            });
            // This only prepares it; it is run with the next piece that names it, or with this one.
        }
        let Some(name) = &self.name else { return false };
        // A portal, without a name, is bound to the statement of this name.
        let bind: Vec<u8> = [&[0], name.as_slice()].concat();
        if *left > 0 && find(piece, &bind).is_some() {
            *left -= 1;
            return true;
        }
        false
    }
}

/// Messages say how long they are: what is shorter is filled up with spaces.
fn swap(piece: &mut [u8], swaps: &Swaps) {
    for ((text, instead), times) in swaps.lock().unwrap_or_else(PoisonError::into_inner).iter_mut() {
        while let Some(at) = find(piece, text.as_bytes()) {
            let place = &mut piece[at..at + text.len()];
            place.fill(b' ');
            place[..instead.len()].copy_from_slice(instead.as_bytes());
            *times += 1;
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// Carries one direction. `closes` is asked before each piece.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut flows: watch::Receiver<Flows>,
    direction: fn(&Flows) -> Flow,
    mut closes: impl FnMut(&mut [u8]) -> bool,
) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(count @ 1..) = from.read(&mut piece).await {
        let Ok(flow) = flows.wait_for(|flows| direction(flows) != Flow::Hold).await.map(|flows| direction(&flows))
        else {
            break;
        };
        match flow {
            Flow::Lose => break,
            Flow::Slow(by) => tokio::time::sleep(by).await,
            Flow::Pass | Flow::Hold => {}
        }
        if closes(&mut piece[..count]) || to.write_all(&piece[..count]).await.is_err() {
            break;
        }
    }
    // An end that closes while the way is cut is not heard of before the way is whole again.
    let _ = flows.wait_for(|flows| direction(flows) != Flow::Hold).await;
}

mod tests {
    use std::time::Instant;

    use super::*;
    use crate::world::places;

    /// Answers every piece with itself.
    async fn echo() -> SocketAddr {
        let listener = in_background(TcpListener::bind("127.0.0.1:0")).await.unwrap();
        let address = listener.local_addr().unwrap();
        in_background(async move {
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    tokio::spawn(async move {
                        let (mut read, mut write) = stream.split();
                        let _ = tokio::io::copy(&mut read, &mut write).await;
                    });
                }
            });
        })
        .await;
        address
    }

    async fn ask(stream: &mut TcpStream) -> std::io::Result<usize> {
        stream.write_all(b"ping").await?;
        stream.read(&mut [0; 8]).await
    }

    #[tokio::test]
    async fn a_proxy_passes_slows_holds_loses_and_refuses() {
        let place = places();
        let mut proxy = Proxy::start(SocketAddr::new(place, 8001), echo().await).await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), 4);

        proxy.set(Flows::slow(Duration::from_millis(30)));
        let began = Instant::now();
        assert_eq!(ask(&mut stream).await.unwrap(), 4);
        assert!(began.elapsed() >= Duration::from_millis(60));

        proxy.set(Flows::NO_ANSWER);
        let held = tokio::time::timeout(Duration::from_millis(100), ask(&mut stream)).await;
        assert!(held.is_err());
        proxy.set(Flows::PASS);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 4, "what was held arrives late");

        proxy.set(Flows::LOST_ANSWERS);
        assert!(matches!(ask(&mut stream).await, Ok(0) | Err(_)), "the connection is closed without the answer");

        proxy.refuse();
        let refused = async || TcpStream::connect(proxy.address()).await.is_err().then_some(());
        crate::support::until("connections are refused", refused).await;
        proxy.admit().await;
        proxy.set(Flows::PASS);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(ask(&mut stream).await.unwrap(), 4);
    }
}
