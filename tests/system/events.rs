//! The stream of events, on whole processes.

use std::collections::HashMap;

use serde_json::json;
use taskmaster_openapi::event::EventType;

use crate::support::System;

#[tokio::test]
async fn events_go_on_behind_batches_larger_than_a_page_of_the_log_without_a_gap() {
    let system = System::builder().worker_args(&["--simulate", "0", "--slots", "50"]).start().await;
    let mut events = system.api.events("after=0").await;
    let ids = system.api.create_batch(&vec![json!({"argv": ["true"]}); 2_000]).await;
    let (mut counts, mut last) = (HashMap::new(), 0);
    while counts.get(&EventType::TaskCompleted) != Some(&ids.len()) {
        let event = events.next().await.event();
        assert_eq!(event.id, last + 1, "{event:?}");
        last = event.id;
        *counts.entry(event.event_type).or_insert(0) += 1;
    }
    for kind in [EventType::TaskScheduled, EventType::TaskPicked, EventType::TaskStarted] {
        assert_eq!(counts.get(&kind), Some(&ids.len()), "{counts:?}");
    }
    // Again from the log, by another client.
    let mut again = system.api.events_after("types=task.completed", "0").await;
    for _ in 0..ids.len() {
        again.next().await;
    }
    assert_eq!(again.last_event_id, events.last_event_id);
}
