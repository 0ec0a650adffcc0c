//! Runs everything, and drains it: Shuttle ends the process as soon as its services are dropped.

use std::net::SocketAddr;
use std::thread::JoinHandle;

use shuttle_runtime::{CustomError, Error, Service, async_trait};
use taskmaster::up::{self, UpArgs};
use taskmaster_service::Shutdown;
use tokio::sync::oneshot;

/// Gateway, coordinator and workers, as Shuttle's one service.
pub struct TaskMaster {
    args: UpArgs,
}

impl TaskMaster {
    pub fn new(args: UpArgs) -> Self {
        Self { args }
    }
}

#[async_trait]
impl Service for TaskMaster {
    async fn bind(self, address: SocketAddr) -> Result<(), Error> {
        let args = UpArgs { listen: Some(address), ..self.args };
        let mut running = Running::start(args).map_err(CustomError::new)?;
        // A sender that is dropped unused is a panic, which has been printed.
        let ended = (&mut running.ended).await.unwrap_or_else(|_| Err("ended with a panic".into()));
        ended.map_err(|error| CustomError::msg(error).into())
    }
}

/// Everything, running on a thread and runtime of its own, so that it can finish while Shuttle's runtime is ending.
struct Running {
    shutdown: Shutdown,
    ended: oneshot::Receiver<Result<(), String>>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(args: UpArgs) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let shutdown = Shutdown::new();
        let (sender, ended) = oneshot::channel();
        let requested = shutdown.clone();
        let run = move || {
            let result = runtime.block_on(up::run(args, requested));
            // Nobody listens any more when the service was dropped: the thread's end is what is waited for then.
            let _ = sender.send(result);
        };
        let thread = std::thread::Builder::new().name("taskmaster".into()).spawn(run)?;
        Ok(Self { shutdown, ended, thread: Some(thread) })
    }
}

impl Drop for Running {
    /// On SIGTERM Shuttle drops the service and ends the process: this is the only moment to drain in. It lasts as long as the drain
    /// time-outs of the parts allow.
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
