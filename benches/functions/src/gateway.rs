//! What every task passes on its way in, and what clients read again and again.

use std::hint::black_box;

use serde_json::json;
use taskmaster_gateway::hot::{self, Batch, Filter};
use taskmaster_openapi::event::{Event, EventType};
use taskmaster_openapi::gateway::TaskFilter;
use taskmaster_openapi::task::{NewTask, TaskStatus};
use taskmaster_service::extract;

use crate::{Call, ITEMS, Part, samples};

pub(crate) const FUNCTIONS: Part = &[
    ("gateway/batch", || batch(false)),
    ("gateway/batch_with_key", || batch(true)),
    ("gateway/single_tasks", single_tasks),
    ("gateway/page_tokens", page_tokens),
    ("gateway/event_frames", event_frames),
    ("gateway/event_frames_filtered", event_frames_filtered),
];

fn batch(keyed: bool) -> Call {
    let tasks: Vec<_> = (0..ITEMS).map(samples::new_task).collect();
    let body = json!({ "tasks": tasks }).to_string();
    Box::new(move || hot::parse_batch(body.as_bytes(), keyed, &Default::default()).map_or(0, |(tasks, _)| tasks.len()))
}

fn single_tasks() -> Call {
    let bodies: Vec<String> = (0..ITEMS).map(|i| samples::new_task(i).to_string()).collect();
    let accepted =
        |body: &String| extract::parse_json::<NewTask>(body.as_bytes()).and_then(hot::validate_task).is_ok_and(kept);
    Box::new(move || bodies.iter().filter(|body| accepted(body)).count())
}

/// The result is not optimised away.
fn kept<T>(value: T) -> bool {
    black_box(value);
    true
}

fn page_tokens() -> Call {
    let filter = TaskFilter {
        status: Some(TaskStatus::Failed),
        queue: Some("images".into()),
        created_after: Some(samples::time(0)),
        ..TaskFilter::default()
    };
    let comes_back = move |i: &usize| {
        let token = hot::write_page_token(&filter, samples::id(*i));
        hot::read_page_token(&filter, &token) == Ok(samples::id(*i))
    };
    Box::new(move || (0..ITEMS).filter(&comes_back).count())
}

fn events() -> Vec<Event> {
    let event = |i| Event {
        id: i as i64 + 1,
        event_type: EventType::ALL[1 + i % 3],
        at: samples::time(i),
        task_id: Some(samples::id(i)),
        queue: Some(["default", "images"][i % 2].into()),
        attempt: Some(1),
        worker_id: Some("01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e".into()),
        schedule_id: None,
        webhook_id: None,
    };
    (0..ITEMS).map(event).collect()
}

fn event_frames() -> Call {
    let events = events();
    // The copy is part of it: the feed makes one, too.
    Box::new(move || {
        let batch = Batch::new(0, events.clone());
        if batch.text_for(0, &Filter::default()).is_empty() { 0 } else { batch.last() as usize }
    })
}

fn event_frames_filtered() -> Call {
    let batch = Batch::new(0, events());
    let filter = Filter { queue: Some("images".into()), ..Filter::default() };
    Box::new(move || if batch.text_for(0, &filter).is_empty() { 0 } else { batch.last() as usize })
}
