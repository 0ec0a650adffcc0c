//! One contract for everything that runs: it is given a [`Shutdown`], and returns soon after that is requested.

use tokio_util::sync::CancellationToken;

/// A request to stop, shared by everything that runs together. Clones are the same request; [`Shutdown::child`] makes one
/// that follows this one and can also be requested alone.
#[derive(Debug, Clone, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown requested by SIGINT or SIGTERM. A second signal ends the process at once.
    ///
    /// # Errors
    /// Fails when the signal handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let shutdown = Self::new();
        let requested = shutdown.clone();
        // Lives as long as the process: nobody needs to wait for it.
        tokio::spawn(async move {
            let mut signals = 0;
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                signals += 1;
                requested.request();
                if signals > 1 {
                    tracing::warn!("second signal: ending at once");
                    std::process::exit(130);
                }
            }
        });
        Ok(shutdown)
    }

    /// Asks everything that holds this to stop.
    pub fn request(&self) {
        self.0.cancel();
    }

    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Waits until the stop is requested.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// A shutdown that follows this one.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }

    /// Runs the future until it ends or the stop is requested; `None` when it was cut short.
    pub async fn or_stop<F: Future>(&self, future: F) -> Option<F::Output> {
        self.0.run_until_cancelled(future).await
    }
}
