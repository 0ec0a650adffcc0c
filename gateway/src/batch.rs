//! `POST /v1/tasks/batch`: up to 10,000 tasks, all or none.

use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use taskmaster_openapi::gateway::{CreatedBatch, CreatedTask};
use taskmaster_openapi::object::Object;
use taskmaster_openapi::task::NewTask;
use taskmaster_openapi::{Problem, limits};
use taskmaster_service::extract;
use taskmaster_store::TaskToCreate;
use taskmaster_store::queues::book::QueueBook;
use uuid::Uuid;

use crate::app::App;
use crate::edge::client::Client;
use crate::edge::scope;
use crate::once::{self, Created};
use crate::{attempts, queues, trace, validate};

/// Larger bodies are parsed on a thread of their own: they would hold up other requests on this one for milliseconds.
const INLINE_BYTES_MAX: usize = 64 * 1024;

/// `POST /v1/tasks/batch`
pub(crate) async fn create(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    request: Request,
) -> Result<Response, Problem> {
    extract::require_json(&request)?;
    let key = once::key(request.headers())?;
    let keyed = key.is_some();
    let trace = trace::of(request.headers());
    let body = app.batch_bodies.read(request, limits::BATCH_BODY_BYTES_MAX).await?;
    // Of what is wrong that is said before the database is asked.
    if body.bytes.len() <= INLINE_BYTES_MAX && app.store.known_queues().is_none() {
        parse(&body.bytes, false, &QueueBook::default())?;
    }
    let (book, known) = queues::book(&app).await;
    let (mut tasks, digest) = match body.bytes.len() {
        ..=INLINE_BYTES_MAX => parse(&body.bytes, keyed, &book)?,
        // The body goes along: its part of the budget is taken for as long as it is worked on, whether the client waits or not.
        _ => tokio::task::spawn_blocking(move || parse(&body.bytes, keyed, &book))
            .await
            .map_err(|_| Problem::internal())??,
    };
    scope::require_for_commands(&client, &tasks, |i| format!("/tasks/{i}"))?;
    attempts::prepare(&app, tasks.iter().map(|task| &task.work), |i| format!("/tasks/{i}")).await?;
    known?;
    if trace.is_some() {
        tasks.iter_mut().for_each(|task| task.trace.clone_from(&trace));
    }
    if let Some(key) = key
        && let Created::Before(ids) = once::create(&app, &client, key, digest, &tasks).await?
    {
        return Ok(once::replayed(created(ids)));
    }
    if !keyed {
        app.store.create_ids(&tasks).await?;
    }
    Ok(created(tasks.into_iter().map(|task| task.id)))
}

fn created(ids: impl IntoIterator<Item = Uuid>) -> Response {
    let tasks = ids.into_iter().map(|id| CreatedTask { id }).collect();
    (StatusCode::CREATED, axum::Json(CreatedBatch { tasks })).into_response()
}

/// The tasks, with what their queues say where they do not, and for a request with a key a digest of what it asks for.
///
/// # Errors
/// `invalid_json`, `invalid_body`, `validation_failed`.
pub fn parse(body: &[u8], keyed: bool, book: &QueueBook) -> Result<(Vec<TaskToCreate>, Vec<u8>), Problem> {
    let Body { mut tasks } = extract::parse_json(body)?;
    let digest = if keyed { once::digest(&tasks.items) } else { Vec::new() };
    if !book.is_empty() {
        tasks.items.iter_mut().for_each(|new| queues::fill(book, new));
    }
    Ok((validate::batch(tasks.items, tasks.count)?, digest))
}

/// As `NewTaskBatch`, but reads no more tasks than a batch may have: 32 MiB could hold ten million of them.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    tasks: Bounded,
}

#[derive(Debug, Default)]
struct Bounded {
    items: Vec<NewTask>,
    /// How many there were, the ones that were not read included.
    count: usize,
}

impl<'de> Deserialize<'de> for Bounded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = Bounded;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of tasks")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bounded, A::Error> {
                let mut bounded = Bounded::default();
                while bounded.count < limits::BATCH_TASKS_MAX {
                    let Some(Object(task)) = list.next_element()? else { return Ok(bounded) };
                    bounded.items.push(task);
                    bounded.count += 1;
                }
                while list.next_element::<IgnoredAny>()?.is_some() {
                    bounded.count += 1;
                }
                Ok(bounded)
            }
        }

        deserializer.deserialize_seq(Items)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_openapi::Code;

    fn refusal(body: &str) -> (Code, String) {
        let problem = parse(body.as_bytes(), false, &QueueBook::default()).unwrap_err();
        (problem.code, problem.errors[0].pointer.clone())
    }

    fn batch_of(count: usize) -> String {
        format!("{{\"tasks\":[{}]}}", vec!["{\"command\":\"x\"}"; count].join(","))
    }

    #[test]
    fn batches_have_one_to_ten_thousand_tasks() {
        assert_eq!(
            parse(batch_of(limits::BATCH_TASKS_MAX).as_bytes(), false, &QueueBook::default()).unwrap().0.len(),
            limits::BATCH_TASKS_MAX
        );
        assert_eq!(refusal(&batch_of(limits::BATCH_TASKS_MAX + 1)), (Code::ValidationFailed, "/tasks".into()));
        assert_eq!(refusal(&batch_of(0)), (Code::ValidationFailed, "/tasks".into()));
    }

    #[test]
    fn wrong_items_are_named_by_their_place() {
        for (body, code, pointer) in [
            (r#"{"tasks":[{"command":"x"},{"http":{"url":"x"}}]}"#, Code::ValidationFailed, "/tasks/1/http/url"),
            (r#"{"tasks":[{"command":"x"},{"priority":"x"}]}"#, Code::InvalidBody, "/tasks/1/priority"),
            (r#"{"tasks":[{"command":"x"},7]}"#, Code::InvalidBody, "/tasks/1"),
            (r#"{"tasks":[{"comand":"x"}]}"#, Code::InvalidBody, "/tasks/0/comand"),
            (r#"{"tasks":[["echo"]]}"#, Code::InvalidBody, "/tasks/0"),
            (r#"{"tasks":{}}"#, Code::InvalidBody, "/tasks"),
            (r#"{"tasks":[],"more":1}"#, Code::InvalidBody, "/more"),
            (r#"{}"#, Code::InvalidBody, ""),
            (r#"{"tasks":[}"#, Code::InvalidJson, ""),
        ] {
            assert_eq!(refusal(body), (code, pointer.to_owned()), "{body}");
        }
    }
}
