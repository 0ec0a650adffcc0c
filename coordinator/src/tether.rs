//! A connection to each worker that nobody uses: when the worker dies, the kernel closes it, and the death is known at once.

use std::sync::Arc;
use std::time::Duration;

use taskmaster_service::Shutdown;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::coordinator::Coordinator;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between looking again at a worker whose connection ended.
const PAUSE: Duration = Duration::from_millis(200);
/// A worker whose port refuses so often in a row is given up.
const REFUSALS_MAX: u32 = 3;
/// A worker that closes idle connections is looked at no more often than this.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Holds a connection to the worker until the line ends or the coordinator stops.
pub(crate) async fn run(coordinator: Arc<Coordinator>, worker_id: String, ended: Shutdown) {
    coordinator.shutdown.or_stop(hold(&coordinator, worker_id, ended)).await;
}

/// Holds a connection to the worker, and gives the worker up when its port refuses others. A worker that cannot be reached at
/// all is left to its heartbeats: it may only be the way to it that is cut.
async fn hold(coordinator: &Coordinator, worker_id: String, ended: Shutdown) {
    let mut refusals = 0;
    loop {
        let Some(address) = authority(coordinator, &worker_id) else { return };
        let Some(connected) = ended.or_stop(connect(&address)).await else { return };
        let pause = match connected {
            Ok(stream) => {
                refusals = 0;
                let held_since = std::time::Instant::now();
                if ended.or_stop(closed(stream)).await.is_none() {
                    return;
                }
                if held_since.elapsed() < LOOK_EVERY { PAUSE.max(LOOK_EVERY / 10) } else { PAUSE }
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                refusals += 1;
                if refusals >= REFUSALS_MAX {
                    return coordinator.give_up(&worker_id, "its port refuses connections").await;
                }
                PAUSE
            }
            Err(_) => LOOK_EVERY,
        };
        if ended.or_stop(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
    }
}

/// `host:port` of the worker's address.
fn authority(coordinator: &Coordinator, worker_id: &str) -> Option<String> {
    let shared = coordinator.shared();
    let address = shared.fleet.get(worker_id)?.address.clone();
    let url = url::Url::parse(&address).ok()?;
    Some(format!("{}:{}", url.host_str()?, url.port_or_known_default()?))
}

async fn connect(address: &str) -> std::io::Result<TcpStream> {
    tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await?
}

/// Waits until the other end closes.
async fn closed(mut stream: TcpStream) {
    let mut byte = [0];
    while matches!(stream.read(&mut byte).await, Ok(n) if n > 0) {}
}
