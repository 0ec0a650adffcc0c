//! The stream of events as its clients see it: nothing is missed, whatever happens to the connection.

use std::collections::{BTreeMap, HashMap};

use futures::StreamExt;
use rand::Rng;
use serde_json::{Value, json};
use taskmaster_openapi::event::{Event, EventType};
use taskmaster_openapi::task::TaskStatus;
use uuid::Uuid;

use crate::support::{Answer, Api, PATIENCE, SseEvent, System, Target};

/// What becomes of each kind of task.
const KINDS: [(&str, TaskStatus); 5] = [
    ("ok", TaskStatus::Complete),
    ("flaky", TaskStatus::Complete),
    ("broken", TaskStatus::Failed),
    ("later", TaskStatus::Cancelled),
    ("hanging", TaskStatus::Cancelled),
];

/// Answers by the path: `/ok`, `/flaky` at the second attempt, `/broken` never, `/hanging` not at all.
async fn target() -> Target {
    Target::start(|arrival| match (arrival.path.as_str(), arrival.attempt) {
        ("/ok", _) | ("/flaky", Some(2..)) => Answer::ok(),
        ("/hanging", _) => Answer::hang(),
        _ => Answer::status(500),
    })
    .await
}

fn task(target: &Target, kind: &str) -> Value {
    let mut task = json!({
        "http": {"method": "GET", "url": target.url(&format!("/{kind}"))},
        "max_attempts": 3,
        "retry": {"delays_seconds": [0.01]},
        "tags": [kind],
    });
    if kind == "later" {
        task["delay_seconds"] = json!(3600);
    }
    task
}

/// Checks that a task's events follow one another as its states do; gives back the state after the last one.
fn follow(events: &[&Event]) -> TaskStatus {
    use TaskStatus::{Cancelled, Complete, Failed, Picked, Queued, Started};
    let mut state = None;
    let mut attempts = 0;
    for event in events {
        let next = match (state, event.event_type) {
            (None, EventType::TaskScheduled) => Queued,
            (Some(Queued), EventType::TaskPicked) => Picked,
            (Some(Picked), EventType::TaskStarted) => Started,
            // The attempt failed, or the claim was handed back.
            (Some(Started | Picked), EventType::TaskRetrying) => Queued,
            (Some(Started), EventType::TaskCompleted) => Complete,
            (Some(Started), EventType::TaskFailed) => Failed,
            (Some(Queued | Picked | Started), EventType::TaskCancelled) => Cancelled,
            _ => panic!("{:?} after {state:?}: {events:#?}", event.event_type),
        };
        if next == Started {
            attempts += 1;
            assert_eq!(event.attempt, Some(attempts), "{events:#?}");
            assert!(event.worker_id.is_some(), "{event:?}");
        }
        state = Some(next);
    }
    state.unwrap()
}

/// Those events that a filter of the query lets through.
fn passing(log: &[SseEvent], passes: impl Fn(&Event) -> bool) -> Vec<SseEvent> {
    log.iter().filter(|event| passes(&event.event())).cloned().collect()
}

#[tokio::test]
async fn a_client_that_drops_and_comes_back_sees_every_transition_once_and_in_order() {
    const TASKS: usize = 300;
    let target = target().await;
    // Half of what this target is asked for fails: a circuit would leave it alone now and then, and say so by events of its own.
    let system = System::builder().workers(2).worker_args(&["--slots", "20", "--circuit-failures", "0"]).start().await;
    let api = &system.api;

    let create = async {
        let mut kinds = HashMap::new();
        for number in 0..TASKS / 30 {
            let batch: Vec<&str> = (0..30).map(|i| KINDS[(number + i) % KINDS.len()].0).collect();
            let tasks: Vec<Value> = batch.iter().map(|kind| task(&target, kind)).collect();
            for (id, kind) in api.create_batch(&tasks).await.into_iter().zip(batch) {
                kinds.insert(id, kind);
                if kind == "later" {
                    api.cancel(id).await;
                }
            }
        }
        kinds
    };
    // Cancels what hangs once it has started, as another client of the same stream.
    let cancel = async {
        let mut events = api.events_after("types=task.scheduled,task.started", "0").await;
        let (mut scheduled, mut hanging) = (0, 0);
        while scheduled < TASKS || hanging < TASKS / KINDS.len() {
            let event = events.next().await.event();
            let id = event.task_id.unwrap();
            if event.event_type == EventType::TaskScheduled {
                scheduled += 1;
            } else if api.get(id).await.tags == ["hanging"] {
                hanging += 1;
                api.cancel(id).await;
            }
        }
    };
    // Reads a few events, drops the connection with whatever is on its way, and comes back.
    let drop_and_return = async {
        let (mut log, mut ended, mut connections) = (Vec::<SseEvent>::new(), 0, 0);
        while ended < TASKS {
            let last = log.last().map_or("0".to_owned(), |event| event.id.clone().unwrap());
            let mut events = api.events_after("", &last).await;
            connections += 1;
            for _ in 0..rand::rng().random_range(1..=60) {
                let event = events.next().await;
                let kind = event.event().event_type;
                ended += usize::from(matches!(
                    kind,
                    EventType::TaskCompleted | EventType::TaskFailed | EventType::TaskCancelled
                ));
                log.push(event);
                if ended == TASKS {
                    break;
                }
            }
        }
        (log, connections)
    };
    let (kinds, (), (log, connections)) = futures::future::join3(create, cancel, drop_and_return).await;
    assert!(connections > 10, "{connections} connections");

    let events: Vec<Event> = log.iter().map(SseEvent::event).collect();
    let ids: Vec<i64> = events.iter().map(|event| event.id).collect();
    assert_eq!(ids, (1..=ids.len() as i64).collect::<Vec<_>>());
    let mut by_task: BTreeMap<Uuid, Vec<&Event>> = BTreeMap::new();
    for event in events.iter().filter(|event| event.task_id.is_some()) {
        by_task.entry(event.task_id.unwrap()).or_default().push(event);
    }
    assert_eq!(by_task.len(), TASKS);
    for (id, events) in &by_task {
        let expected = KINDS.iter().find(|(kind, _)| *kind == kinds[id]).unwrap().1;
        assert_eq!(follow(events), expected, "{}: {events:#?}", kinds[id]);
        assert_eq!(api.get(*id).await.status, expected);
    }

    // A client that was never cut off has seen the same.
    let mut unbroken = api.events("after=0").await;
    for event in &log {
        assert_eq!(unbroken.next().await, *event);
    }
}

#[tokio::test]
async fn filters_select_the_events_that_they_name_from_where_the_client_asks() {
    let target = target().await;
    let system = System::builder().workers(2).start().await;
    let api = &system.api;
    let mut tasks: Vec<Value> = (0..10).map(|i| task(&target, ["ok", "broken"][i % 2])).collect();
    for task in &mut tasks[..5] {
        task["queue"] = json!("special");
    }
    let ids = api.create_batch(&tasks).await;
    api.all_ended(&ids).await;
    let end = api.run(task(&target, "ok")).await;
    let mut log = Vec::new();
    let mut events = api.events("after=0").await;
    while !log.last().is_some_and(|event: &SseEvent| {
        let event = event.event();
        event.task_id == Some(end.id) && event.event_type == EventType::TaskCompleted
    }) {
        log.push(events.next().await);
    }
    let worker_id = api.get(ids[0]).await.worker_id.unwrap();
    let middle = log[log.len() / 2].event().id;

    let selects = async |query: &str, last: Option<i64>, expected: Vec<SseEvent>| {
        assert!(!expected.is_empty(), "{query}");
        let mut events = match last {
            Some(last) => api.events_after(query, &last.to_string()).await,
            None => api.events(query).await,
        };
        for expected in expected {
            assert_eq!(events.next().await, expected, "{query}");
        }
    };
    let completed = |event: &Event| event.event_type == EventType::TaskCompleted;
    let failed = |event: &Event| event.event_type == EventType::TaskFailed;
    let special = |event: &Event| event.queue.as_deref() == Some("special");
    selects("types=task.completed&after=0", None, passing(&log, completed)).await;
    let either = |event: &Event| completed(event) || failed(event);
    selects("types=task.completed,%20task.failed&after=0", None, passing(&log, either)).await;
    selects("types=worker.joined&after=0", None, passing(&log, |e| e.event_type == EventType::WorkerJoined)).await;
    selects("queue=special&after=0", None, passing(&log, special)).await;
    selects(&format!("task_id={}&after=0", ids[3]), None, passing(&log, |e| e.task_id == Some(ids[3]))).await;
    let of_worker = |event: &Event| event.worker_id.as_ref() == Some(&worker_id);
    selects(&format!("worker_id={worker_id}&after=0"), None, passing(&log, of_worker)).await;
    let both = |event: &Event| special(event) && failed(event);
    selects("queue=special&types=task.failed&after=0", None, passing(&log, both)).await;
    selects(&format!("after={middle}"), None, passing(&log, |e| e.id > middle)).await;
    selects("", Some(middle), passing(&log, |e| e.id > middle)).await;
    // The header wins: a browser that comes back sends it with the URL that it first opened.
    selects("after=0", Some(middle), passing(&log, |e| e.id > middle)).await;
}

#[tokio::test]
async fn without_a_place_to_start_from_only_what_happens_from_now_on_is_sent() {
    let system = System::builder().coordinators(0).workers(0).start().await;
    let api = &system.api;
    let task = json!({"command": "true", "delay_seconds": 3600});
    for _ in 0..5 {
        api.create(task.clone()).await;
    }
    let mut all = api.events("after=0").await;
    for _ in 0..5 {
        all.next().await;
    }
    let mut new = api.events("").await;
    let created = api.create(task).await;
    assert_eq!(new.next().await.event().task_id, Some(created.id));
    // A number that the log has not reached belongs to another log: the client is told, and goes on from where this one is.
    let mut strange = api.events_after("", "1000000").await;
    let told = strange.next().await;
    assert_eq!(told.event.as_deref(), Some("log.truncated"));
    let told: Value = serde_json::from_str(&told.data).unwrap();
    assert_eq!((&told["after"], &told["resumes_after"]), (&json!(1_000_000), &json!(6)));
    assert_eq!(strange.last_event_id.as_deref(), Some("6"));
}

#[tokio::test]
async fn a_gateway_that_stops_ends_its_streams_with_a_hint_and_another_one_resumes_them() {
    let mut system = System::builder().gateways(2).coordinators(0).workers(0).start().await;
    let task = json!({"command": "true", "delay_seconds": 3600});
    let api = system.api.clone();
    let before = api.create(task.clone()).await;
    let stream = api.http().get(format!("{}/v1/events?after=0", api.url)).send().await.unwrap();
    let mut bytes = stream.bytes_stream();
    let mut text = String::new();
    let following = async {
        while !text.contains(&before.id.to_string()) {
            text += std::str::from_utf8(&bytes.next().await.unwrap().unwrap()).unwrap();
        }
    };
    let followed = tokio::time::timeout(PATIENCE, following).await;
    assert!(followed.is_ok(), "no event of {} in {text:?}", before.id);
    assert!(text.starts_with("retry: 1000\n\n"), "{text}");

    system.gateways[0].terminate().await;
    while let Some(part) = tokio::time::timeout(PATIENCE, bytes.next()).await.expect("an end") {
        text += std::str::from_utf8(&part.expect("the stream ends in good order")).unwrap();
    }
    assert!(text.ends_with("\n\nretry: 1000\n\n"), "{text}");

    let address = system.gateways[1].logged("gateway").await["address"].as_str().unwrap().to_owned();
    let other = Api::new(&format!("http://{address}"));
    let after = other.create(task).await;
    let last = text.lines().filter_map(|line| line.strip_prefix("id: ")).next_back().unwrap();
    let next = other.events_after("", last).await.next().await.event();
    assert_eq!((next.id, next.task_id), (last.parse::<i64>().unwrap() + 1, Some(after.id)));
}

#[tokio::test]
async fn a_client_that_does_not_keep_up_is_cut_off_and_has_missed_nothing_when_it_comes_back() {
    /// More batches than the gateway keeps for a client.
    const BATCHES: usize = 260;
    let system = System::builder().coordinators(0).workers(0).start().await;
    let api = &system.api;
    let task = json!({"command": "true", "delay_seconds": 3600});
    let mut brisk = api.events("after=0").await;
    let slow = api.http().get(format!("{}/v1/events?after=0", api.url)).send().await.unwrap();
    let mut slow = slow.bytes_stream();
    let mut received = Vec::new();
    let first = api.create(task.clone()).await.id.to_string();
    let following = async {
        while !String::from_utf8_lossy(&received).contains(&first) {
            received.extend(slow.next().await.unwrap().unwrap());
        }
    };
    assert!(tokio::time::timeout(PATIENCE, following).await.is_ok(), "no event of {first}");

    // From now on the slow one reads nothing. Large batches fill what the kernel holds for it, then one batch after another waits in
    // the gateway: each event has been sent to the brisk one before the next is made.
    let mut created = 1;
    for _ in 0..25 {
        created += api.create_batch(&vec![task.clone(); 1_000]).await.len() as i64;
    }
    for _ in 0..BATCHES {
        created += 1;
        api.create(task.clone()).await;
        while brisk.next().await.event().id < created {}
    }

    let reading = async {
        // On a machine so slow that all this took a minute, the kernel has given the connection up by now.
        while let Some(Ok(part)) = slow.next().await {
            received.extend(part);
        }
    };
    assert!(tokio::time::timeout(PATIENCE, reading).await.is_ok(), "the client is not cut off");
    let received = String::from_utf8(received).unwrap();
    let whole = &received[..received.rfind("\n\n").unwrap()];
    let ids: Vec<i64> = whole.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect();
    let mut last = ids.last().copied().unwrap();
    assert!(ids.iter().copied().eq(1..=last) && last < created, "{last} of {created}");
    let mut events = api.events_after("", &last.to_string()).await;
    while last < created {
        let event = events.next().await.event();
        assert_eq!(event.id, last + 1);
        last = event.id;
    }
    assert_eq!(brisk.cuts, 0);
}
