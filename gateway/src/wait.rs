//! Requests that are answered when a task has ended, or when their time is up.

use std::time::Duration;

use http::HeaderMap;
use taskmaster_openapi::task::Task;
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::edge::admission::Admission;
use crate::feed::Waiter;
use crate::prefer;

/// A wish to be answered when a task has ended.
pub(crate) struct Wait {
    pub duration: Duration,
    deadline: Instant,
    waiter: Waiter,
}

impl Wait {
    /// The wish of a request; to be made before the task's state is asked for, so that no end is missed in between. `None` when
    /// there is none, or when so many wait already that it is not honoured.
    pub(crate) fn asked(app: &App, headers: &HeaderMap, task_id: Uuid) -> Option<Self> {
        let duration = prefer::wait(headers)?;
        let waiter = app.feed.waiter(task_id)?;
        Some(Self { duration, deadline: Instant::now() + duration, waiter })
    }

    /// The task once it has ended; as it stands when the time is up, the process stops, or the database is away. `known` is its
    /// state after the wish was made. Gives up the request's place among those that are worked on.
    pub(crate) async fn ended(mut self, app: &App, admission: &Admission, mut known: Task) -> Task {
        admission.release();
        let deadline = self.deadline;
        let cut_short = tokio::select! {
            () = self.follow(app, &mut known) => false,
            () = tokio::time::sleep_until(deadline) => true,
            () = app.shutdown.requested() => true,
        };
        if cut_short && let Ok(Some(task)) = app.store.get(known.id).await {
            known = task;
        }
        known
    }

    async fn follow(&mut self, app: &App, known: &mut Task) {
        while !known.status.is_terminal() {
            match self.waiter.noticed_from_the_start {
                true => self.waiter.ended().await,
                // An end may have gone unnoticed before now: look once more.
                false => self.waiter.running().await,
            }
            // A new wish first, then the look, so that no end is missed in between.
            let Some(again) = app.feed.waiter(known.id) else { return };
            self.waiter = again;
            match app.store.get(known.id).await {
                Ok(Some(task)) => *known = task,
                _ => return,
            }
        }
    }
}
