//! What starts when: slots that run one task after the other, and a timer for those that are not due yet.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::FutureExt;
use taskmaster_openapi::task::ErrorCode;
use taskmaster_service::Shutdown;
use tokio::sync::Notify;

use crate::board::{Board, Bounds, Started};
use crate::circuits::OpenHost;
use crate::execute::{Ending, Executor, Failure};

/// The board, and who is to be told when something on it changes.
#[derive(Debug)]
pub(crate) struct Slots {
    board: Mutex<Board>,
    pub executor: Executor,
    /// There is something to report.
    pub reports: Notify,
    /// The next due time may have changed.
    timer: Notify,
    /// A task ended, or an outcome was acknowledged.
    pub settled: Notify,
}

impl Slots {
    pub fn new(bounds: Bounds, executor: Executor) -> Arc<Self> {
        Arc::new(Self {
            board: Mutex::new(Board::new(bounds)),
            executor,
            reports: Notify::new(),
            timer: Notify::new(),
            settled: Notify::new(),
        })
    }

    /// The board. Hold it briefly, never across an await.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts that are not asked for a while, at most so many.
    pub fn open_circuits(&self, max: usize) -> Vec<OpenHost> {
        self.executor.open_circuits(max)
    }

    /// Starts what is due, in as many slots as are free. To be called whenever the board has changed in a way that may let
    /// something start: tasks came, a heartbeat or a report was acknowledged, a time has come.
    pub fn start_due(self: &Arc<Self>) {
        let mut board = self.board();
        let mut any = false;
        while let Some(started) = board.start_due(Instant::now()) {
            any = true;
            // Ends with the last task that is due; `Board::running` counts it, and a drain waits for that.
            tokio::spawn(self.clone().run_slot(started));
        }
        drop(board);
        if any {
            self.reports.notify_one();
        }
        self.timer.notify_one();
    }

    /// One slot: runs a task, and then, while there are any, the next ones that are due.
    async fn run_slot(self: Arc<Self>, first: Started) {
        let mut next = Some(first);
        while let Some(started) = next {
            let ending = self.execute(&started).await;
            next = self.finish_and_next(&started, ending);
            // Work that never waits must not keep others from this thread.
            tokio::task::consume_budget().await;
        }
    }

    async fn execute(&self, started: &Started) -> Ending {
        let work = AssertUnwindSafe(self.executor.run(&started.task, &started.stop));
        work.catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(task_id = %started.task.task_id, "an executor panicked");
            let failure =
                Failure::new(ErrorCode::WorkerError, "the worker could not run the task: an error on our side");
            Ending::Failed(None, failure)
        })
    }

    fn finish_and_next(&self, started: &Started, ending: Ending) -> Option<Started> {
        let mut board = self.board();
        let now = Instant::now();
        board.finish(started.claim(), ending, now);
        let next = board.start_due(now);
        drop(board);
        self.reports.notify_one();
        self.settled.notify_one();
        if next.is_none() {
            self.timer.notify_one();
        }
        next
    }

    /// Hands back what has waited for a slot for too long, and starts tasks when their time comes, never before.
    pub async fn run_timer(self: Arc<Self>, stop: Shutdown) {
        while !stop.is_requested() {
            let look_at = self.board().next_look(Instant::now());
            tokio::select! {
                () = sleep_until(look_at) => {
                    if self.board().hand_back_overdue(Instant::now()) {
                        self.reports.notify_one();
                    }
                    self.start_due();
                }
                () = self.timer.notified() => {}
                () = stop.requested() => {}
            }
        }
    }
}

/// Waits for a time; for ever when there is none. Never returns early.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}
