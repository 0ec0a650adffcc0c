//! The last batches of events, and who follows which of them.
//!
//! Followers that ask for the same share a *topic*, and are woken by batches that have something for it and by no others: a thousand
//! who each want little cost little, however much else happens. The batches themselves are kept once for all.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use taskmaster_openapi::event::Event;
use tokio::sync::Notify;
use uuid::Uuid;

use super::frames::{Batch, Filter};

/// The last batches, up to a number of them. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Ring(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    batches_max: usize,
    batches: VecDeque<Arc<Batch>>,
    /// The number of the first batch that is kept; they are numbered from 0.
    first: u64,
    /// The last event of all that were published, kept or not.
    published: Option<i64>,
    topics: Topics,
}

/// Topics by the narrowest thing that their filters name, so that few are looked at for an event.
#[derive(Debug, Default)]
struct Topics {
    by_task: HashMap<Uuid, Vec<Topic>>,
    by_queue: HashMap<String, Vec<Topic>>,
    by_worker: HashMap<String, Vec<Topic>>,
    others: Vec<Topic>,
}

/// What some followers want, and which of the kept batches have it.
#[derive(Debug)]
struct Topic {
    filter: Filter,
    followers: usize,
    matched: VecDeque<u64>,
    /// Batches below this number may have had something and are no longer kept.
    lost: u64,
    wake: Arc<Notify>,
}

/// One follower's place in the ring.
#[derive(Debug)]
pub(crate) struct Subscription {
    ring: Ring,
    filter: Filter,
    wake: Arc<Notify>,
    /// The number of the next batch that it has not seen.
    position: u64,
}

impl Ring {
    pub(crate) fn new(batches_max: usize) -> Self {
        let (batches, topics) = (VecDeque::new(), Topics::default());
        Self(Arc::new(Mutex::new(State { batches_max, batches, first: 0, published: None, topics })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.state().topics.iter().next().is_some()
    }

    /// Follows what passes the filter, from the next batch on; and the event after which that one comes.
    pub(crate) fn subscribe(&self, filter: Filter) -> (Subscription, Option<i64>) {
        let mut state = self.state();
        let (position, published) = (state.next(), state.published);
        let wake = state.topics.join(&filter, position);
        drop(state);
        (Subscription { ring: self.clone(), filter, wake, position }, published)
    }

    /// Keeps a batch for those who want something of it, and wakes them.
    pub(crate) fn publish(&self, batch: Batch) {
        let mut state = self.state();
        let number = state.next();
        state.published = Some(batch.last());
        if !state.topics.match_batch(&batch, number) {
            // Nobody is to get it; the numbers go on.
            state.skip();
            return;
        }
        state.batches.push_back(Arc::new(batch));
        if state.batches.len() > state.batches_max {
            state.batches.pop_front();
            state.first += 1;
            let first = state.first;
            state.topics.iter_mut().for_each(|topic| topic.forget_below(first));
        }
    }
}

impl State {
    fn next(&self) -> u64 {
        self.first + self.batches.len() as u64
    }

    /// Without followers there is nothing to keep.
    fn skip(&mut self) {
        if self.topics.iter().next().is_none() {
            self.first = self.next();
            self.batches.clear();
        }
    }
}

impl Topics {
    fn slot(&mut self, filter: &Filter) -> &mut Vec<Topic> {
        match filter {
            Filter { task_id: Some(task_id), .. } => self.by_task.entry(*task_id).or_default(),
            Filter { queue: Some(queue), .. } => self.by_queue.entry(queue.clone()).or_default(),
            Filter { worker_id: Some(worker_id), .. } => self.by_worker.entry(worker_id.clone()).or_default(),
            _ => &mut self.others,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Topic> {
        let narrow = self.by_queue.values().chain(self.by_worker.values());
        self.by_task.values().chain(narrow).flatten().chain(&self.others)
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Topic> {
        let narrow = self.by_queue.values_mut().chain(self.by_worker.values_mut());
        self.by_task.values_mut().chain(narrow).flatten().chain(&mut self.others)
    }

    /// Those whose filters this event may pass.
    fn candidates(&mut self, event: &Event) -> impl Iterator<Item = &mut Topic> {
        let by_task = event.task_id.as_ref().and_then(|id| self.by_task.get_mut(id));
        let by_queue = event.queue.as_ref().and_then(|queue| self.by_queue.get_mut(queue));
        let by_worker = event.worker_id.as_ref().and_then(|id| self.by_worker.get_mut(id));
        [by_task, by_queue, by_worker].into_iter().flatten().flatten().chain(&mut self.others)
    }

    fn join(&mut self, filter: &Filter, position: u64) -> Arc<Notify> {
        let slot = self.slot(filter);
        if let Some(topic) = slot.iter_mut().find(|topic| topic.filter == *filter) {
            topic.followers += 1;
            return topic.wake.clone();
        }
        let wake = Arc::new(Notify::new());
        let (matched, filter) = (VecDeque::new(), filter.clone());
        slot.push(Topic { filter, followers: 1, matched, lost: position, wake: wake.clone() });
        wake
    }

    fn leave(&mut self, filter: &Filter) {
        let slot = self.slot(filter);
        if let Some(topic) = slot.iter_mut().find(|topic| topic.filter == *filter) {
            topic.followers -= 1;
        }
        slot.retain(|topic| topic.followers > 0);
        if slot.is_empty() {
            match filter {
                Filter { task_id: Some(task_id), .. } => drop(self.by_task.remove(task_id)),
                Filter { queue: Some(queue), .. } => drop(self.by_queue.remove(queue)),
                Filter { worker_id: Some(worker_id), .. } => drop(self.by_worker.remove(worker_id)),
                _ => {}
            }
        }
    }

    /// Notes which topics the batch has something for, and wakes their followers. Whether there are any.
    fn match_batch(&mut self, batch: &Batch, number: u64) -> bool {
        let mut is_wanted = false;
        let mut note = |topic: &mut Topic| {
            is_wanted = true;
            if topic.matched.back() != Some(&number) {
                topic.matched.push_back(number);
                topic.wake.notify_waiters();
            }
        };
        if batch.is_for_all() {
            self.iter_mut().for_each(&mut note);
        }
        for event in batch.events() {
            self.candidates(event).filter(|topic| topic.filter.passes(event)).for_each(&mut note);
        }
        is_wanted
    }
}

impl Topic {
    fn forget_below(&mut self, first: u64) {
        while let Some(number) = self.matched.front().copied().filter(|number| *number < first) {
            self.matched.pop_front();
            self.lost = number + 1;
        }
    }
}

impl Subscription {
    /// The next batch that has something for this follower; `None` when one is gone that it has not seen. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<Arc<Batch>> {
        loop {
            let wake = self.wake.clone();
            let mut woken = std::pin::pin!(wake.notified());
            woken.as_mut().enable();
            if let Some(found) = self.look() {
                return found;
            }
            woken.await;
        }
    }

    /// `None`: there is nothing yet.
    fn look(&mut self) -> Option<Option<Arc<Batch>>> {
        let mut state = self.ring.state();
        let first = state.first;
        let topic = state.topics.slot(&self.filter).iter().find(|topic| topic.filter == self.filter)?;
        if topic.lost > self.position {
            return Some(None);
        }
        let number = topic.matched.iter().copied().find(|number| *number >= self.position)?;
        self.position = number + 1;
        let batch = usize::try_from(number - first).ok().and_then(|place| state.batches.get(place).cloned());
        Some(batch)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.ring.state().topics.leave(&self.filter);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use futures::FutureExt;
    use proptest::prelude::*;
    use taskmaster_openapi::event::EventType;

    fn event(id: i64, queue: &str, task: u128, worker: Option<&str>) -> Event {
        Event {
            id,
            event_type: EventType::TaskPicked,
            at: DateTime::UNIX_EPOCH,
            task_id: Some(Uuid::from_u128(task)),
            queue: Some(queue.into()),
            attempt: Some(1),
            worker_id: worker.map(str::to_owned),
            schedule_id: None,
            webhook_id: None,
        }
    }

    fn of_queue(queue: &str) -> Filter {
        Filter { queue: Some(queue.into()), ..Filter::default() }
    }

    /// The batches that are there for the follower, by their first event; `None` at the end when it was cut off.
    fn seen(subscription: &mut Subscription) -> Vec<Option<i64>> {
        let mut seen = Vec::new();
        while let Some(next) = subscription.next().now_or_never() {
            let is_end = next.is_none();
            seen.push(next.map(|batch| batch.after));
            if is_end {
                break;
            }
        }
        seen
    }

    #[test]
    fn a_follower_gets_the_batches_with_something_for_it_and_what_all_get() {
        let ring = Ring::new(10);
        let (mut a, mut all) = (ring.subscribe(of_queue("a")).0, ring.subscribe(Filter::default()).0);
        ring.publish(Batch::new(0, vec![event(1, "b", 1, None)]));
        ring.publish(Batch::new(1, vec![event(2, "b", 1, None), event(3, "a", 2, None)]));
        ring.publish(Batch::new(9, Vec::new()));
        assert_eq!(seen(&mut a), [Some(1), Some(9)]);
        assert_eq!(seen(&mut all), [Some(0), Some(1), Some(9)]);
        let (mut late, published) = ring.subscribe(of_queue("a"));
        assert_eq!(published, Some(9));
        ring.publish(Batch::new(9, vec![event(10, "a", 3, None)]));
        assert_eq!((seen(&mut late), seen(&mut a)), (vec![Some(9)], vec![Some(9)]));
    }

    #[test]
    fn only_who_has_missed_something_of_its_own_is_cut_off() {
        let ring = Ring::new(2);
        let (mut rare, mut often) = (ring.subscribe(of_queue("rare")).0, ring.subscribe(of_queue("often")).0);
        for id in 0..100 {
            ring.publish(Batch::new(id, vec![event(id + 1, "often", 1, None)]));
        }
        assert_eq!(seen(&mut rare), []);
        ring.publish(Batch::new(100, vec![event(101, "rare", 1, None)]));
        assert_eq!(seen(&mut rare), [Some(100)]);
        assert_eq!(seen(&mut often), [None]);
        let (mut again, _) = ring.subscribe(of_queue("often"));
        ring.publish(Batch::new(101, vec![event(102, "often", 1, None)]));
        assert_eq!(seen(&mut again), [Some(101)], "whoever comes back begins anew");
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let ring = Ring::new(10);
        ring.publish(Batch::new(0, vec![event(1, "a", 1, None)]));
        let (one, published) = ring.subscribe(of_queue("a"));
        assert_eq!(published, Some(1), "what nobody wanted counts");
        ring.publish(Batch::new(1, vec![event(2, "a", 1, None)]));
        drop(one);
        assert!(!ring.is_followed());
        ring.publish(Batch::new(2, vec![event(3, "a", 1, None)]));
        let state = ring.state();
        assert!(state.batches.is_empty() && state.topics.by_queue.is_empty());
    }

    #[tokio::test]
    async fn a_follower_that_waits_is_woken_by_its_own_batch() {
        let ring = Ring::new(10);
        let (mut one, _) = ring.subscribe(of_queue("a"));
        let waiting = tokio::spawn(async move { one.next().await.map(|batch| batch.after) });
        tokio::task::yield_now().await;
        ring.publish(Batch::new(0, vec![event(1, "b", 1, None)]));
        ring.publish(Batch::new(1, vec![event(2, "a", 1, None)]));
        assert_eq!(waiting.await.unwrap(), Some(1));
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let some = |of: [&'static str; 2]| proptest::option::of(proptest::sample::select(of.to_vec()));
        let task = proptest::option::of(0..3_u128);
        (some(["a", "b"]), some(["v", "w"]), task).prop_map(|(queue, worker_id, task)| Filter {
            types: None,
            queue: queue.map(str::to_owned),
            task_id: task.map(Uuid::from_u128),
            worker_id: worker_id.map(str::to_owned),
            schedule_id: None,
        })
    }

    proptest! {
        /// Whatever is followed: each event that passes the filter comes once, in order, as long as the ring is large enough.
        #[test]
        fn every_event_that_passes_comes_once(
            filters in proptest::collection::vec(filters(), 1..8),
            batches in proptest::collection::vec(proptest::collection::vec((0..2_usize, 0..3_u128, 0..3_usize), 1..5), 1..20),
        ) {
            let ring = Ring::new(100);
            let mut followers: Vec<Subscription> = filters.iter().cloned().map(|filter| ring.subscribe(filter).0).collect();
            let (mut all, mut id) = (Vec::new(), 0);
            for batch in batches {
                let after = id;
                let events: Vec<Event> = batch.into_iter().map(|(queue, task, worker)| {
                    id += 1;
                    event(id, ["a", "b"][queue], task, [None, Some("v"), Some("w")][worker])
                }).collect();
                all.extend(events.iter().cloned());
                ring.publish(Batch::new(after, events));
            }
            for (filter, follower) in filters.iter().zip(&mut followers) {
                let mut got = Vec::new();
                while let Some(Some(batch)) = follower.next().now_or_never() {
                    got.extend(batch.events().filter(|event| filter.passes(event)).map(|event| event.id));
                }
                let expected: Vec<i64> = all.iter().filter(|event| filter.passes(event)).map(|event| event.id).collect();
                prop_assert_eq!(got, expected);
            }
        }
    }
}
