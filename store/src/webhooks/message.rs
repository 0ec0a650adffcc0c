//! What subscribers are sent: CloudEvents 1.0 in JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use taskmaster_openapi::event::{Event, EventType};
use taskmaster_openapi::task::{HttpMethod, HttpWork, Task, TaskError, TaskStatus};
use taskmaster_openapi::webhook::TEST_EVENT;
use uuid::Uuid;

use crate::error::StoreError;

/// The media type of the JSON format (CloudEvents 1.0, JSON event format, 3).
const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
/// Where events come from: with the `id` it tells one event from all others of an installation.
const LOG: &str = "/v1/events";

/// The envelope. The names are those of CloudEvents 1.0.
#[derive(Debug, Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: String,
    source: &'a str,
    #[serde(rename = "type")]
    event_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: DateTime<Utc>,
    datacontenttype: &'static str,
    data: D,
}

/// What a webhook is told of an event. What is more is at `GET /v1/tasks/{id}`.
#[derive(Debug, Default, Serialize)]
struct EventData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    queue: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<&'a [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempt: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    webhook_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a TaskError>,
}

/// What is known of an event's task besides what the event says.
#[derive(Debug, Clone, Default)]
pub(super) struct Facts {
    pub tags: Vec<String>,
    pub status: Option<TaskStatus>,
    pub error: Option<TaskError>,
    pub has_callbacks: bool,
}

/// The message of an event to a webhook.
pub(super) fn of_event(event: &Event, facts: Option<&Facts>) -> Result<String, StoreError> {
    // A task that was retried by hand meanwhile has another story to tell.
    let failed = |facts: &&Facts| event.event_type == EventType::TaskFailed && facts.status == Some(TaskStatus::Failed);
    let data = EventData {
        task_id: event.task_id,
        queue: event.queue.as_deref(),
        tags: facts.filter(|facts| !facts.tags.is_empty()).map(|facts| &facts.tags[..]),
        attempt: event.attempt,
        worker_id: event.worker_id.as_deref(),
        schedule_id: event.schedule_id,
        webhook_id: event.webhook_id,
        error: facts.filter(failed).and_then(|facts| facts.error.as_ref()),
    };
    let subject = event
        .task_id
        .or(event.schedule_id)
        .or(event.webhook_id)
        .map(|id| id.to_string())
        .or_else(|| event.worker_id.clone());
    write(LOG, event.id.to_string(), event.event_type.as_str(), subject, event.at, data)
}

/// The message of a task's end to its callback.
pub(super) fn of_end(event: &Event, task: &Task) -> Result<String, StoreError> {
    write(LOG, event.id.to_string(), event.event_type.as_str(), Some(task.id.to_string()), event.at, task)
}

/// The message of a test.
pub(super) fn of_test(webhook_id: Uuid, delivery_id: Uuid, at: DateTime<Utc>) -> Result<String, StoreError> {
    let source = format!("/v1/webhooks/{webhook_id}");
    let data = EventData { webhook_id: Some(webhook_id), ..EventData::default() };
    write(&source, delivery_id.to_string(), TEST_EVENT, None, at, data)
}

fn write(
    source: &str,
    id: String,
    event_type: &str,
    subject: Option<String>,
    time: DateTime<Utc>,
    data: impl Serialize,
) -> Result<String, StoreError> {
    let datacontenttype = "application/json";
    let event = CloudEvent { specversion: "1.0", id, source, event_type, subject, time, datacontenttype, data };
    crate::create::to_json(&event)
}

/// The request that carries a message.
pub(super) fn request(url: String, headers: BTreeMap<String, String>, body: String) -> HttpWork {
    let mut headers = headers;
    headers.retain(|name, _| !name.eq_ignore_ascii_case("content-type"));
    headers.insert("content-type".into(), CONTENT_TYPE.into());
    HttpWork { method: HttpMethod::Post, url, headers, body: Some(body), ..HttpWork::default() }
}

/// The message id of an event to a webhook, or of a test.
pub(super) fn webhook_message_id(webhook_id: Uuid, event: impl std::fmt::Display) -> String {
    format!("msg_{}_{event}", webhook_id.simple())
}

/// The message id of a task's end to one of its callbacks.
pub(super) fn callback_message_id(task_id: Uuid, event_id: i64, which: &str) -> String {
    format!("msg_{}_{event_id}_{which}", task_id.simple())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use taskmaster_openapi::task::ErrorCode;

    #[test]
    fn an_event_is_told_with_the_error_of_a_task_that_is_still_failed() {
        let event = Event {
            id: 8,
            event_type: EventType::TaskFailed,
            at: "2026-01-31T12:00:00Z".parse().unwrap(),
            task_id: Some(Uuid::from_u128(1)),
            queue: Some("mail".into()),
            attempt: Some(3),
            worker_id: Some("w".into()),
            schedule_id: None,
            webhook_id: None,
        };
        let facts = Facts {
            tags: vec!["nightly".into()],
            status: Some(TaskStatus::Failed),
            error: Some(TaskError { code: ErrorCode::Timeout, message: "late".into() }),
            has_callbacks: false,
        };
        let mut expected = json!({
            "specversion": "1.0", "id": "8", "source": "/v1/events", "type": "task.failed",
            "subject": "00000000-0000-0000-0000-000000000001", "time": "2026-01-31T12:00:00Z",
            "datacontenttype": "application/json",
            "data": {"task_id": "00000000-0000-0000-0000-000000000001", "queue": "mail", "tags": ["nightly"], "attempt": 3,
                     "worker_id": "w", "error": {"code": "timeout", "message": "late"}},
        });
        let told = |facts: &Facts| serde_json::from_str::<Value>(&of_event(&event, Some(facts)).unwrap()).unwrap();
        assert_eq!(told(&facts), expected);
        expected["data"].as_object_mut().unwrap().remove("error");
        assert_eq!(told(&Facts { status: Some(TaskStatus::Queued), ..facts }), expected);
    }

    #[test]
    fn the_content_type_is_that_of_the_body() {
        let given = BTreeMap::from([("Content-Type".to_owned(), "text/plain".to_owned()), ("X-A".into(), "1".into())]);
        let headers = request("http://x/".into(), given, String::new()).headers;
        assert_eq!(
            headers.into_iter().collect::<Vec<_>>(),
            [("X-A".to_owned(), "1".to_owned()), ("content-type".to_owned(), CONTENT_TYPE.to_owned())]
        );
    }
}
