//! The workers of `up`: as many as wanted, at any time.

use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt;
use futures::future::BoxFuture;
use taskmaster_gateway::Scaler;
use taskmaster_openapi::Problem;
use taskmaster_openapi::gateway::ScaleResponse;
use taskmaster_service::{Health, Shutdown};
use taskmaster_worker::{Config, Worker};
use tokio_util::task::TaskTracker;

pub(super) struct Workers {
    config: Config,
    /// Those that are not draining, the youngest last.
    running: Mutex<Vec<Running>>,
    /// All of them, draining ones included.
    tasks: TaskTracker,
    /// One change at a time.
    changing: tokio::sync::Mutex<()>,
}

struct Running {
    id: String,
    health: Health,
    stop: Shutdown,
}

impl Workers {
    pub fn new(config: Config) -> Arc<Self> {
        Arc::new(Self {
            config,
            running: Mutex::default(),
            tasks: TaskTracker::new(),
            changing: tokio::sync::Mutex::default(),
        })
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts or drains workers until there are so many. Gives back how many there were.
    ///
    /// # Errors
    /// One line: a worker could not be started. Those that were stay.
    pub async fn set(self: &Arc<Self>, wanted: usize) -> Result<usize, String> {
        let _one_at_a_time = self.changing.lock().await;
        // Those that their coordinator has asked to leave no longer count.
        self.running().retain(|running| !running.health.is_waiting_for(taskmaster_worker::LEAVING));
        let before = self.running().len();
        for _ in before..wanted {
            self.add().await?;
        }
        let mut running = self.running();
        let kept = wanted.min(running.len());
        for surplus in running.drain(kept..) {
            surplus.stop.request();
        }
        Ok(before)
    }

    async fn add(self: &Arc<Self>) -> Result<(), String> {
        let health = Health::new();
        let worker = Worker::bind(self.config.clone(), health.clone()).await.map_err(|error| error.to_string())?;
        let (id, stop) = (worker.id().to_owned(), Shutdown::new());
        self.running().push(Running { id: id.clone(), health, stop: stop.clone() });
        let workers = self.clone();
        self.tasks.spawn(async move {
            if let Err(error) = worker.run(stop).await {
                tracing::error!(%error, worker_id = id, "a worker ended");
            }
            // It may have been drained by its coordinator: then it is still among the running ones.
            workers.running().retain(|running| running.id != id);
        });
        Ok(())
    }

    /// Whether a coordinator knows every one of them.
    pub fn joined(&self) -> bool {
        self.running().iter().all(|running| running.health.readiness().ready)
    }

    /// Drains all of them.
    pub async fn stop(&self) {
        for running in self.running().drain(..) {
            running.stop.request();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// What the gateway calls.
pub(super) struct Scale(pub Arc<Workers>);

impl Scaler for Scale {
    fn scale<'a>(&'a self, workers: usize) -> BoxFuture<'a, Result<ScaleResponse, Problem>> {
        let scaled = async move {
            let previous = self.0.set(workers).await.map_err(|error| {
                tracing::error!(error, "workers were not scaled");
                Problem::internal()
            })?;
            Ok(ScaleResponse { previous: previous as i64, workers: workers as i64 })
        };
        scaled.boxed()
    }
}
