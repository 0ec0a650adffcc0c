//! Requests that wait for one task to end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{oneshot, watch};
use uuid::Uuid;

/// Requests that may wait at once; beyond, `Prefer: wait` is not honoured.
const WAITERS_MAX: usize = 10_000;

/// Everyone who waits for a task's end.
#[derive(Debug)]
pub(crate) struct Waiters {
    state: Mutex<State>,
    /// Whether ends of tasks are noticed at this time. Changes only under the lock of the state.
    running: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    by_task: HashMap<Uuid, Vec<oneshot::Sender<()>>>,
    count: usize,
}

impl Default for Waiters {
    fn default() -> Self {
        Self { state: Mutex::default(), running: watch::Sender::new(false) }
    }
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(self: &Arc<Self>, task_id: Uuid) -> Option<Waiter> {
        let (sender, ended) = oneshot::channel();
        let mut state = self.lock();
        if state.count >= WAITERS_MAX {
            return None;
        }
        state.count += 1;
        state.by_task.entry(task_id).or_default().push(sender);
        let noticed_from_the_start = *self.running.borrow();
        Some(Waiter { task_id, ended: Some(ended), waiters: self.clone(), noticed_from_the_start })
    }

    pub(crate) fn is_any(&self) -> bool {
        self.lock().count > 0
    }

    /// From now on, ends are noticed.
    pub(crate) fn started(&self) {
        let _state = self.lock();
        self.running.send_replace(true);
    }

    /// From now on, ends are no longer noticed.
    pub(crate) fn stopped(&self) {
        let _state = self.lock();
        self.running.send_replace(false);
    }

    /// As [`Waiters::stopped`], unless somebody waits. Whoever comes after sees that ends are not noticed.
    pub(crate) fn stop_unless_any(&self) -> bool {
        let state = self.lock();
        let stop = state.count == 0;
        if stop {
            self.running.send_replace(false);
        }
        stop
    }

    /// These tasks have ended.
    pub(crate) fn wake(&self, task_ids: impl Iterator<Item = Uuid>) {
        let mut state = self.lock();
        if state.count == 0 {
            return;
        }
        for id in task_ids {
            for waiter in state.by_task.remove(&id).unwrap_or_default() {
                let _ = waiter.send(());
            }
        }
    }

    /// Something was missed: everyone is to look.
    pub(crate) fn wake_all(&self) {
        for waiter in std::mem::take(&mut self.lock().by_task).into_values().flatten() {
            let _ = waiter.send(());
        }
    }
}

/// Waits for one task's end.
#[derive(Debug)]
pub(crate) struct Waiter {
    task_id: Uuid,
    ended: Option<oneshot::Receiver<()>>,
    waiters: Arc<Waiters>,
    /// No end since this waiter was made can have been missed.
    pub noticed_from_the_start: bool,
}

impl Waiter {
    /// Waits until ends are noticed.
    pub(crate) async fn running(&self) {
        // Fails when the sender is gone, which this waiter holds.
        let _ = self.waiters.running.subscribe().wait_for(|running| *running).await;
    }

    /// Waits until the task may have ended.
    pub(crate) async fn ended(&mut self) {
        if let Some(ended) = &mut self.ended {
            let _ = ended.await;
        }
        self.ended = None;
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.ended = None;
        let mut state = self.waiters.lock();
        state.count -= 1;
        if let Some(waiting) = state.by_task.get_mut(&self.task_id) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                state.by_task.remove(&self.task_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn everyone_who_waits_for_a_task_is_told_and_nobody_else() {
        let waiters = Arc::new(Waiters::default());
        let (a, b) = (Uuid::now_v7(), Uuid::now_v7());
        let (mut first, mut second, mut other) =
            (waiters.add(a).unwrap(), waiters.add(a).unwrap(), waiters.add(b).unwrap());
        waiters.wake([a].into_iter());
        first.ended().await;
        second.ended().await;
        assert!(other.ended().now_or_never().is_none());
        drop((first, second, other));
        assert!(!waiters.is_any() && waiters.lock().by_task.is_empty());
    }

    #[tokio::test]
    async fn noticing_stops_only_when_nobody_waits() {
        let waiters = Arc::new(Waiters::default());
        let early = waiters.add(Uuid::now_v7()).unwrap();
        assert!(!early.noticed_from_the_start && early.running().now_or_never().is_none());
        waiters.started();
        early.running().await;
        assert!(waiters.add(Uuid::now_v7()).unwrap().noticed_from_the_start);
        assert!(!waiters.stop_unless_any());
        drop(early);
        assert!(waiters.stop_unless_any());
        assert!(!waiters.add(Uuid::now_v7()).unwrap().noticed_from_the_start);
    }

    #[test]
    fn one_too_many_does_not_wait() {
        let waiters = Arc::new(Waiters::default());
        let all: Vec<Waiter> = (0..WAITERS_MAX).map(|_| waiters.add(Uuid::nil()).unwrap()).collect();
        assert!(waiters.add(Uuid::nil()).is_none());
        // Dropping must not look at all the others each time: one task has one waiter in practice, here it has all.
        waiters.wake([Uuid::nil()].into_iter());
        drop(all);
        assert!(waiters.add(Uuid::nil()).is_some());
    }
}
