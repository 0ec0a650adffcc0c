//! Whether the gateway can do its work: it needs the database, and nothing else.

use std::time::Duration;

use taskmaster_service::{Health, Shutdown};
use taskmaster_store::Store;

pub(crate) const NAME: &str = "database";
const INTERVAL_FINE: Duration = Duration::from_secs(5);
const INTERVAL_FAILING: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// Asks the database from time to time, and notes the answer, until the stop is requested.
pub(crate) async fn watch(store: Store, health: Health, shutdown: Shutdown) {
    loop {
        let pinged = shutdown.or_stop(tokio::time::timeout(PING_TIMEOUT, store.ping())).await;
        let interval = match pinged {
            None => return,
            Some(Ok(Ok(()))) => {
                health.available(NAME);
                INTERVAL_FINE
            }
            Some(Ok(Err(error))) => {
                health.waiting(NAME, error.to_string());
                INTERVAL_FAILING
            }
            Some(Err(_)) => {
                health.waiting(NAME, "no answer");
                INTERVAL_FAILING
            }
        };
        if shutdown.or_stop(tokio::time::sleep(interval)).await.is_none() {
            return;
        }
    }
}
