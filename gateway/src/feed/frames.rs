//! Events as server-sent events: each is written once, whoever gets it.

use std::sync::OnceLock;

use bytes::Bytes;
use taskmaster_openapi::event::{Event, EventType};
use uuid::Uuid;

/// How long a client that lost its stream waits before it comes back, in milliseconds.
pub(crate) const RETRY_HINT: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// Events that follow one another in the log, ready to be sent.
#[derive(Debug)]
pub struct Batch {
    /// These events come right after this one.
    pub after: i64,
    frames: Vec<(Event, OnceLock<Bytes>)>,
    /// All of them.
    text: OnceLock<Bytes>,
}

impl Batch {
    /// Without any events, the batch says that the log is followed from here on, whatever came before.
    pub fn new(after: i64, events: Vec<Event>) -> Self {
        let frames = events.into_iter().map(|event| (event, OnceLock::new())).collect();
        Self { after, frames, text: OnceLock::new() }
    }

    /// Whether everybody is to know of it, whatever they follow.
    pub(crate) fn is_for_all(&self) -> bool {
        self.frames.is_empty()
    }

    /// The number of the last event, or where there is none of the one before.
    pub fn last(&self) -> i64 {
        self.frames.last().map_or(self.after, |(event, _)| event.id)
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        self.frames.iter().map(|(event, _)| event)
    }

    /// What a client gets: events after `cursor` that pass its filter. Shares the text where that is all of them.
    pub fn text_for(&self, cursor: i64, filter: &Filter) -> Bytes {
        let wanted = |event: &Event| event.id > cursor && filter.passes(event);
        if self.events().all(wanted) {
            return self.text.get_or_init(|| self.text_of(|_| true)).clone();
        }
        self.text_of(wanted)
    }

    fn text_of(&self, wanted: impl Fn(&Event) -> bool) -> Bytes {
        let mut text = Vec::new();
        for (event, frame) in self.frames.iter().filter(|(event, _)| wanted(event)) {
            text.extend_from_slice(frame.get_or_init(|| frame_of(event)));
        }
        text.into()
    }
}

fn frame_of(event: &Event) -> Bytes {
    // Numbers, ids, names and a time can always be written; JSON has no line feed outside of strings, and none within.
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.id, event.event_type.as_str()).into()
}

/// Tells a client that events after `after` are no longer kept; the next ones have numbers above `resumes_after`.
pub(crate) fn truncated_frame(after: i64, resumes_after: i64) -> Bytes {
    let data = serde_json::json!({"type": "log.truncated", "after": after, "resumes_after": resumes_after});
    Bytes::from(format!("id: {resumes_after}\nevent: log.truncated\ndata: {data}\n\n"))
}

/// Which events a client wants. All that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    pub types: Option<Vec<EventType>>,
    pub queue: Option<String>,
    pub task_id: Option<Uuid>,
    pub worker_id: Option<String>,
    pub schedule_id: Option<Uuid>,
}

impl Filter {
    pub(crate) fn passes(&self, event: &Event) -> bool {
        fn holds<T: PartialEq>(wanted: &Option<T>, given: &Option<T>) -> bool {
            wanted.is_none() || wanted == given
        }
        self.types.as_ref().is_none_or(|types| types.contains(&event.event_type))
            && holds(&self.queue, &event.queue)
            && holds(&self.task_id, &event.task_id)
            && holds(&self.worker_id, &event.worker_id)
            && holds(&self.schedule_id, &event.schedule_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;

    fn event(id: i64, event_type: EventType, queue: &str, worker_id: Option<&str>) -> Event {
        Event {
            id,
            event_type,
            at: DateTime::from_timestamp(1_700_000_000, 0).unwrap(),
            task_id: Some(Uuid::nil()),
            queue: Some(queue.into()),
            attempt: Some(1),
            worker_id: worker_id.map(str::to_owned),
            schedule_id: None,
            webhook_id: None,
        }
    }

    fn batch() -> Batch {
        Batch::new(
            6,
            vec![
                event(7, EventType::TaskScheduled, "a", None),
                event(8, EventType::TaskStarted, "b", Some("w1")),
                event(9, EventType::TaskCompleted, "a", Some("w1")),
            ],
        )
    }

    fn ids(text: &Bytes) -> Vec<i64> {
        let text = std::str::from_utf8(text).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("id: ")).map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn an_event_is_written_as_the_standard_and_the_contract_want() {
        let text = batch().text_for(0, &Filter::default());
        let first = std::str::from_utf8(&text).unwrap().split("\n\n").next().unwrap().to_owned();
        let lines: Vec<&str> = first.lines().collect();
        assert_eq!(lines[..2], ["id: 7", "event: task.scheduled"]);
        let data: serde_json::Value = serde_json::from_str(lines[2].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((data["id"].as_i64(), data["type"].as_str()), (Some(7), Some("task.scheduled")));
        assert!(data["at"].as_str().unwrap().starts_with("2023-11-14T22:13:20") && data.get("worker_id").is_none());
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn a_client_gets_what_follows_its_cursor_and_passes_all_its_filters() {
        let some = |text: &str| Some(text.to_owned());
        let table = [
            (0, Filter::default(), vec![7, 8, 9]),
            (7, Filter::default(), vec![8, 9]),
            (9, Filter::default(), vec![]),
            (0, Filter { queue: some("a"), ..Filter::default() }, vec![7, 9]),
            (0, Filter { worker_id: some("w1"), ..Filter::default() }, vec![8, 9]),
            (0, Filter { worker_id: some("w1"), queue: some("a"), ..Filter::default() }, vec![9]),
            (0, Filter { types: Some(vec![EventType::TaskStarted]), ..Filter::default() }, vec![8]),
            (0, Filter { task_id: Some(Uuid::max()), ..Filter::default() }, vec![]),
            (0, Filter { task_id: Some(Uuid::nil()), ..Filter::default() }, vec![7, 8, 9]),
        ];
        for (cursor, filter, expected) in table {
            assert_eq!(ids(&batch().text_for(cursor, &filter)), expected, "{cursor} {filter:?}");
        }
    }

    #[test]
    fn clients_that_want_everything_share_one_text() {
        let batch = batch();
        let (one, other) = (batch.text_for(6, &Filter::default()), batch.text_for(0, &Filter::default()));
        assert_eq!(one.as_ptr(), other.as_ptr());
    }

    #[test]
    fn an_empty_batch_says_where_the_log_stands() {
        let batch = Batch::new(42, Vec::new());
        assert_eq!((batch.after, batch.last(), batch.text_for(0, &Filter::default()).len()), (42, 42, 0));
    }
}
