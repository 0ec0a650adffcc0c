//! Many callers, one statement: items that arrive while earlier ones are being worked on travel together; a lone one goes at once.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::rate::Rate;

/// Bounds of a [`Batcher`].
#[derive(Debug, Clone, Copy)]
pub struct BatchLimits {
    /// Callers that may wait; one more is refused.
    pub waiting_max: usize,
    /// Weight of one batch. An item that is heavier goes alone.
    pub batch_weight_max: usize,
    /// Batches in progress at once.
    pub concurrency: usize,
    /// As long as no other is set.
    pub pace: Option<Pace>,
}

/// How batches are kept apart, so that more items travel together.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// While so much weight comes in a second; at less, what comes goes at once.
    pub from_per_second: f64,
    /// The next batch begins no sooner than so long after one began.
    pub apart: Duration,
}

/// Why an item was not worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("too many requests are waiting")]
    Overloaded,
    #[error("the process is stopping")]
    Stopped,
}

type Waiting<I, O> = (I, oneshot::Sender<O>);

struct Filled<I, O> {
    batch: Vec<Waiting<I, O>>,
    weight: usize,
    /// The item that was one too many.
    next: Option<Waiting<I, O>>,
}

/// Collects items of concurrent callers into batches, and gives each caller its own answer.
#[derive(Debug)]
pub struct Batcher<I, O> {
    sender: mpsc::Sender<Waiting<I, O>>,
    pace: watch::Sender<Option<Pace>>,
}

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), pace: self.pace.clone() }
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// The batcher, and the future that drives it: it ends when every clone of the batcher is dropped and all work is done.
    ///
    /// `work` answers a batch with one answer an item, in order; items without one are dropped, and their callers told so.
    pub fn new<W, F>(limits: BatchLimits, weight: fn(&I) -> usize, work: W) -> (Self, impl Future<Output = ()> + Send)
    where
        W: Fn(Vec<I>) -> F + Send + Sync + 'static,
        F: Future<Output = Vec<O>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(limits.waiting_max);
        let (pace, paced) = watch::channel(limits.pace);
        (Self { sender, pace }, drive(receiver, limits, paced, weight, Arc::new(work)))
    }

    /// Keeps batches apart like this from the next one on.
    pub fn set_pace(&self, pace: Pace) {
        self.pace.send_replace(Some(pace));
    }

    /// Has one item worked on, in a batch with others.
    ///
    /// # Errors
    /// [`BatchError::Overloaded`] at once when too many wait, [`BatchError::Stopped`] when the driver has ended.
    pub async fn submit(&self, item: I) -> Result<O, BatchError> {
        let (answer, answered) = oneshot::channel();
        self.sender.try_send((item, answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => BatchError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => BatchError::Stopped,
        })?;
        answered.await.map_err(|_| BatchError::Stopped)
    }
}

async fn drive<I, O, W, F>(
    mut receiver: mpsc::Receiver<Waiting<I, O>>,
    limits: BatchLimits,
    pace: watch::Receiver<Option<Pace>>,
    weight: fn(&I) -> usize,
    work: Arc<W>,
) where
    I: Send + 'static,
    O: Send + 'static,
    W: Fn(Vec<I>) -> F + Send + Sync + 'static,
    F: Future<Output = Vec<O>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut left_over = None;
    let mut may_begin = Instant::now();
    let mut rate = Rate::new(may_begin.into_std());
    loop {
        while running.len() >= limits.concurrency {
            running.join_next().await;
        }
        let Some(first) = (match left_over.take() {
            Some(item) => Some(item),
            None => receiver.recv().await,
        }) else {
            break;
        };
        tokio::time::sleep_until(may_begin).await;
        let filled = fill(&mut receiver, first, limits.batch_weight_max, weight);
        let now = Instant::now();
        rate.add(filled.weight, now.into_std());
        let pace = *pace.borrow();
        if let Some(pace) = pace.filter(|pace| rate.get(now.into_std()) >= pace.from_per_second) {
            may_begin = now + pace.apart;
        }
        left_over = filled.next;
        let work = work.clone();
        running.spawn(async move {
            let (items, answers): (Vec<I>, Vec<_>) = filled.batch.into_iter().unzip();
            for (answer, result) in answers.into_iter().zip(work(items).await) {
                // The caller may have gone away; its item was worked on all the same.
                let _ = answer.send(result);
            }
        });
    }
    while running.join_next().await.is_some() {}
}

/// Adds to the first item what is waiting already, up to the weight.
fn fill<I, O>(
    receiver: &mut mpsc::Receiver<Waiting<I, O>>,
    first: Waiting<I, O>,
    weight_max: usize,
    weight: fn(&I) -> usize,
) -> Filled<I, O> {
    let mut filled = Filled { weight: weight(&first.0), batch: vec![first], next: None };
    while let Ok(item) = receiver.try_recv() {
        let total = filled.weight + weight(&item.0);
        if total > weight_max {
            filled.next = Some(item);
            break;
        }
        filled.weight = total;
        filled.batch.push(item);
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tokio::sync::Semaphore;

    const LIMITS: BatchLimits = BatchLimits { waiting_max: 100, batch_weight_max: 10, concurrency: 1, pace: None };

    #[tokio::test]
    async fn items_that_wait_travel_together_and_each_caller_gets_its_own_answer() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let gate = Arc::new(Semaphore::new(0));
        let (seen, gated) = (sizes.clone(), gate.clone());
        let (batcher, driver) = Batcher::new(
            LIMITS,
            |_| 1,
            move |items: Vec<u32>| {
                let (seen, gated) = (seen.clone(), gated.clone());
                async move {
                    seen.lock().unwrap().push(items.len());
                    gated.acquire().await.unwrap().forget();
                    items.into_iter().map(|i| i * 2).collect()
                }
            },
        );
        let driver = tokio::spawn(driver);
        let callers: Vec<_> = (0..25)
            .map(|i| {
                tokio::spawn({
                    let b = batcher.clone();
                    async move { b.submit(i).await }
                })
            })
            .collect();
        gate.add_permits(100);
        for (i, caller) in callers.into_iter().enumerate() {
            assert_eq!(caller.await.unwrap(), Ok(i as u32 * 2));
        }
        drop(batcher);
        driver.await.unwrap();
        let sizes = sizes.lock().unwrap();
        assert_eq!(sizes.iter().sum::<usize>(), 25);
        assert!(sizes.len() < 25 && sizes.iter().all(|s| *s <= 10), "{sizes:?}");
    }

    #[tokio::test]
    async fn what_comes_before_the_next_batch_may_begin_travels_together() {
        let sizes = Arc::new(Mutex::new(Vec::new()));
        let seen = sizes.clone();
        let pace = Pace { from_per_second: 1_000.0, apart: Duration::from_secs(2) };
        let (batcher, driver) = Batcher::new(
            BatchLimits { pace: Some(pace), ..LIMITS },
            |item| *item as usize,
            move |items: Vec<u32>| {
                seen.lock().unwrap().push(items.len());
                async move { items }
            },
        );
        let asking = async {
            let began = Instant::now();
            for _ in 0..10 {
                assert_eq!(batcher.submit(1).await, Ok(1));
            }
            assert!(began.elapsed() < pace.apart, "little goes at once");
            assert_eq!(batcher.submit(1_000).await, Ok(1_000));
            futures::future::join_all((0..10).map(|_| batcher.submit(1))).await;
            drop(batcher);
        };
        tokio::join!(driver, asking);
        assert_eq!(*sizes.lock().unwrap(), [vec![1; 11], vec![10]].concat());
    }

    #[tokio::test]
    async fn one_caller_too_many_is_refused_at_once() {
        let limits = BatchLimits { waiting_max: 1, ..LIMITS };
        let (batcher, _driver) = Batcher::new(limits, |_| 1, |items: Vec<u32>| async move { items });
        let waiting = tokio::spawn({
            let b = batcher.clone();
            async move { b.submit(1).await }
        });
        while batcher.sender.capacity() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(batcher.submit(2).await, Err(BatchError::Overloaded));
        drop(_driver);
        assert_eq!(waiting.await.unwrap(), Err(BatchError::Stopped));
    }
}
