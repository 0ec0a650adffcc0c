//! What whole-process tests are made of: the real program, spawned; a database for each test; HTTP targets that remember what
//! arrived; a client of the API.
//!
//! ```ignore
//! let target = Target::start(|_| Answer::ok()).await;
//! let system = System::builder().coordinators(2).workers(3).worker_args(&["--slots", "2"]).start().await;
//! let task = system.api.create(json!({"http": {"method": "GET", "url": target.url("/")}})).await;
//! assert_eq!(system.api.ended(task.id).await.status, TaskStatus::Complete);
//! assert_eq!(target.of(task.id).len(), 1);
//! ```
//!
//! - [`System`]: gateways, coordinators and workers as processes of their own, on a database of their own in a cluster that all
//!   tests of this program share. Workers may run commands and reach loopback.
//! - [`Cluster`]: a cluster of its own, for tests that stop the database.
//! - [`Up`]: `taskmaster up`.
//! - [`Process`]: any of them: `kill9`, `terminate`, `pause`, `resume`, its log. Killed when dropped, and by the kernel when the
//!   thread of the test ends. The end of its log is printed when a test panics.
//! - [`Api`]: the client; waits for states by `Prefer: wait` and by server-sent events. [`Events`] reads those.
//! - [`Target`]: an HTTP server in this process that records what arrives and answers as told.
//! - [`until`]: waits for anything else, and says what it waited for when it gives up.

#![allow(dead_code, unused_imports, reason = "every test program uses a part of this")]

mod api;
mod database;
mod process;
mod system;
mod target;
mod up;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub use api::{Api, Events, Reply, SseEvent};
pub use database::{Cluster, Database, shared_cluster};
pub use process::{PATIENCE, Process, command_line, family_of, is_alive, signal};
pub use system::{JOIN_TOKEN, System, SystemBuilder};
pub use target::{Answer, Arrival, Gate, Target};
pub use up::{Scratch, Up};

/// Runs what must go on whatever a test does: the shared cluster, and targets.
static BACKGROUND: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime")
});

/// Runs the future on threads that live as long as the process.
pub async fn in_background<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    BACKGROUND.spawn(future).await.expect("what runs in the background does not panic")
}

/// How often a condition is looked at that nothing tells about.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Asks until there is an answer. For what no event tells of.
///
/// # Panics
/// After [`PATIENCE`].
pub async fn until<T>(what: &str, ask: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, ask).await
}

/// As [`until`], with a limit of its own: for claims about time.
///
/// # Panics
/// When there is no answer within the limit.
pub async fn until_within<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
