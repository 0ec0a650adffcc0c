//! Which events a webhook wants: pure rules.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use taskmaster_openapi::event::{Event, EventType};
use taskmaster_openapi::webhook::Only;
use uuid::Uuid;

/// What a webhook wants.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    pub events: Vec<EventType>,
    /// Empty is all.
    pub queues: Vec<String>,
    /// Tasks have one of these; empty is any.
    pub tags: Vec<String>,
    pub only: Option<Only>,
}

/// Tells series apart: tasks with the same queue and the same tags.
pub type Series = [u8; 32];

/// The series of tasks like this one.
pub fn series(queue: &str, tags: &[String]) -> Series {
    let mut tags: Vec<&String> = tags.iter().collect();
    tags.sort_unstable();
    let mut hash = Sha256::new();
    // Neither queues nor tags contain NUL.
    for part in std::iter::once(queue).chain(tags.into_iter().map(String::as_str)) {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    hash.finalize().into()
}

/// Which series failed last, by webhook; what is not in it did not, or has not ended yet.
pub type Failing = HashMap<(Uuid, Series), bool>;

/// The kinds of events that are looked at.
pub fn kinds(only: Only) -> &'static [EventType] {
    match only {
        Only::Failures => &[EventType::TaskFailed],
        Only::Changes | Only::Recovery => &[EventType::TaskCompleted, EventType::TaskFailed],
    }
}

impl Filter {
    /// Whether the event may be wanted, as far as it says itself: its task's tags are not looked at yet.
    pub fn may_want(&self, event: &Event) -> bool {
        let kinds: &[EventType] = match self.only {
            Some(only) => kinds(only),
            None => &self.events,
        };
        let of_queue = || event.queue.as_ref().is_some_and(|queue| self.queues.contains(queue));
        kinds.contains(&event.event_type) && (self.queues.is_empty() || of_queue())
    }

    /// Whether an event that may be wanted is, given the tags of its task. Outcomes must be asked about in their order: `failing` is
    /// kept by them.
    pub fn wants(&self, webhook_id: Uuid, event: &Event, tags: &[String], failing: &mut Failing) -> bool {
        if !self.tags.is_empty() && !self.tags.iter().any(|tag| tags.contains(tag)) {
            return false;
        }
        let Some(only) = self.only.filter(|only| *only != Only::Failures) else { return true };
        let fails = event.event_type == EventType::TaskFailed;
        let key = (webhook_id, series(event.queue.as_deref().unwrap_or_default(), tags));
        let failed = failing.insert(key, fails).unwrap_or(false);
        match only {
            Only::Changes => fails != failed,
            Only::Recovery => failed && !fails,
            Only::Failures => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event_type: EventType, queue: &str) -> Event {
        Event {
            id: 1,
            event_type,
            at: Default::default(),
            task_id: Some(Uuid::nil()),
            queue: Some(queue.into()),
            attempt: Some(1),
            worker_id: None,
            webhook_id: None,
        }
    }

    fn filter(only: Option<Only>) -> Filter {
        let events = vec![EventType::TaskCompleted, EventType::TaskFailed, EventType::TaskCancelled];
        Filter { events, queues: Vec::new(), tags: Vec::new(), only }
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    /// Of these outcomes of one series (`-` failed, `+` completed) those that are wanted; the others as dots.
    fn told(only: Only, outcomes: &str) -> String {
        let (filter, mut failing) = (filter(Some(only)), Failing::new());
        let mut told = |outcome: char| {
            let kind = if outcome == '-' { EventType::TaskFailed } else { EventType::TaskCompleted };
            let event = event(kind, "q");
            let wanted = filter.may_want(&event) && filter.wants(Uuid::nil(), &event, &[], &mut failing);
            if wanted { outcome } else { '.' }
        };
        outcomes.chars().map(&mut told).collect()
    }

    #[test]
    fn failures_changes_and_recovery_are_what_they_say() {
        assert_eq!(told(Only::Failures, "++--+-"), "..--.-");
        assert_eq!(told(Only::Changes, "++--+-++"), "..-.+-+.");
        assert_eq!(told(Only::Recovery, "++--+-++"), "....+.+.");
    }

    #[test]
    fn a_series_is_a_queue_and_tags_in_any_order() {
        assert_eq!(series("q", &words(&["a", "b"])), series("q", &words(&["b", "a"])));
        let others =
            [series("q", &words(&["a"])), series("qa", &words(&["b"])), series("q", &words(&["ab"])), series("q", &[])];
        for (i, one) in others.iter().enumerate() {
            assert!(others.iter().skip(i + 1).all(|other| other != one));
        }
        let mut failing = Failing::new();
        let filter = filter(Some(Only::Changes));
        let mut wants = |kind, queue: &str, tags: &[&str]| {
            filter.wants(Uuid::nil(), &event(kind, queue), &words(tags), &mut failing)
        };
        assert!(wants(EventType::TaskFailed, "q", &["a"]));
        assert!(wants(EventType::TaskFailed, "q", &["b"]), "another series");
        assert!(!wants(EventType::TaskFailed, "q", &["a"]));
        assert!(!wants(EventType::TaskCompleted, "r", &["a"]));
        assert!(wants(EventType::TaskCompleted, "q", &["a"]));
    }

    #[test]
    fn kinds_and_queues_are_what_the_event_says() {
        let all = filter(None);
        assert!(all.may_want(&event(EventType::TaskFailed, "a")));
        assert!(!all.may_want(&event(EventType::TaskPicked, "a")));
        let some = Filter { queues: words(&["a", "b"]), ..all };
        assert!(some.may_want(&event(EventType::TaskFailed, "b")));
        assert!(!some.may_want(&event(EventType::TaskFailed, "c")));
        let worker = Event { queue: None, ..event(EventType::WorkerLost, "") };
        assert!(!Filter { events: vec![EventType::WorkerLost], ..some }.may_want(&worker), "it has no queue");
    }

    #[test]
    fn one_of_the_tags_is_enough() {
        let filter = Filter { tags: words(&["x", "y"]), ..filter(None) };
        let wants = |tags: &[&str]| {
            let tags = words(tags);
            filter.wants(Uuid::nil(), &event(EventType::TaskFailed, "q"), &tags, &mut Failing::new())
        };
        assert!(wants(&["a", "y"]));
        assert!(!wants(&["a"]) && !wants(&[]));
    }
}
