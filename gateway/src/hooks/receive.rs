//! `POST /v1/hooks/{id}/receive`: the sender is verified by the bytes as they came, before anything of them is read.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::hook::{HookOutcome, HookReceipt, HookVerification};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::auth;
use taskmaster_service::extract::{PathParameter, read_body};
use taskmaster_store::hooks::{Doubt, Presented, StoredHook};
use taskmaster_store::{Once, TaskToCreate};
use uuid::Uuid;

use super::payload;
use crate::app::App;
use crate::{queues, trace, validate};

/// While the same delivery is being stored by another request, its end is waited for: so often, so long.
const IN_FLIGHT_TRIES: usize = 50;
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(50);

/// A delivery as it arrived.
struct Delivery {
    headers: HeaderMap,
    token: Option<String>,
    body: Bytes,
}

/// What came of it, for the sender and for the owner of the hook.
struct Taken {
    outcome: HookOutcome,
    task_id: Option<Uuid>,
}

pub(crate) async fn receive(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    request: Request,
) -> Result<Response, Problem> {
    let (headers, token) = (request.headers().clone(), token(request.uri().query().unwrap_or_default()));
    let body = read_body(request, limits::BODY_BYTES_MAX).await?;
    let delivery = Delivery { headers, token, body };
    let hook = app.store.stored_hook(id).await?.ok_or_else(unverified)?;
    let delivery_id = match delivery.verify(&hook) {
        Ok(delivery_id) => delivery_id,
        Err(doubt) => {
            let outcome = match doubt {
                Doubt::Unverified => HookOutcome::Unverified,
                Doubt::Stale => HookOutcome::Stale,
            };
            note(&app, &hook, None, &Taken { outcome, task_id: None }).await;
            return Err(unverified());
        }
    };
    app.limiter.admit_hook(id)?;
    let taken = match take(&app, &hook, delivery_id.as_deref(), &delivery).await {
        Ok(taken) => taken,
        Err((problem, outcome)) => {
            if let Some(outcome) = outcome {
                note(&app, &hook, delivery_id.as_deref(), &Taken { outcome, task_id: None }).await;
            }
            return Err(problem);
        }
    };
    note(&app, &hook, delivery_id.as_deref(), &taken).await;
    Ok(answer(&taken))
}

impl Delivery {
    fn verify(&self, hook: &StoredHook) -> Result<Option<String>, Doubt> {
        // A header that is there twice could be read in two ways: it is not believed.
        let header = |name: &str| {
            let mut values = self.headers.get_all(name).iter();
            let only = values.next().filter(|_| values.next().is_none());
            only.and_then(|value| value.to_str().ok())
        };
        hook.verify(&Presented { header: &header, token: self.token.as_deref(), body: &self.body })
    }

    fn is_ping(&self, hook: &StoredHook) -> bool {
        let event = self.headers.get("x-github-event");
        hook.verification == HookVerification::Github && event.is_some_and(|event| event == "ping")
    }
}

/// Makes the task of a delivery whose sender is verified. A refusal comes with what the owner of the hook is told, if it is about
/// the delivery.
async fn take(
    app: &App,
    hook: &StoredHook,
    delivery_id: Option<&str>,
    delivery: &Delivery,
) -> Result<Taken, (Problem, Option<HookOutcome>)> {
    if !hook.settings.enabled {
        return Err((disabled(), Some(HookOutcome::Disabled)));
    }
    if delivery.is_ping(hook) {
        return Ok(Taken { outcome: HookOutcome::Ping, task_id: None });
    }
    let (book, known) = queues::book(app).await;
    let task = payload::task(&hook.settings, &delivery.headers, &delivery.body).and_then(|mut new| {
        queues::fill(&book, &mut new);
        Ok(TaskToCreate { trace: trace::of(&delivery.headers), ..validate::task(new)? })
    });
    let task = task.map_err(|problem| (problem, Some(HookOutcome::Unusable)))?;
    known.map_err(|error| (error.into(), None))?;
    let Some(delivery_id) = delivery_id else {
        let task = app.creator.create(task).await.map_err(|problem| (problem, None))?;
        return Ok(Taken { outcome: HookOutcome::Accepted, task_id: Some(task.id) });
    };
    create_once(app, hook, delivery_id, task).await.map_err(|problem| (problem, None))
}

async fn create_once(app: &App, hook: &StoredHook, delivery_id: &str, task: TaskToCreate) -> Result<Taken, Problem> {
    let key = hook.once_key(delivery_id);
    let tasks = [task];
    for _ in 0..IN_FLIGHT_TRIES {
        match app.store.create_once(&tasks, &key).await? {
            Once::Created(tasks) => {
                return Ok(Taken { outcome: HookOutcome::Accepted, task_id: tasks.first().map(|task| task.id) });
            }
            Once::Replayed(ids) => {
                return Ok(Taken { outcome: HookOutcome::Duplicate, task_id: ids.first().copied() });
            }
            // Not by another payload: all of a delivery's have the same digest.
            Once::InFlight | Once::Mismatch => tokio::time::sleep(IN_FLIGHT_PAUSE).await,
        }
    }
    Err(Problem::new(Code::IdempotencyInFlight, "The same delivery is being worked on. Send it again in a second.")
        .retry_after_seconds(1))
}

/// The task is committed whether this can be noted or not.
async fn note(app: &App, hook: &StoredHook, delivery_id: Option<&str>, taken: &Taken) {
    let noted = app.store.note_hook_delivery(hook.id, taken.outcome, delivery_id, taken.task_id).await;
    if let Err(error) = noted {
        tracing::warn!(%error, hook = %hook.id, "a delivery could not be noted");
    }
}

fn answer(taken: &Taken) -> Response {
    let receipt = HookReceipt { task_id: taken.task_id, duplicate: taken.outcome == HookOutcome::Duplicate };
    match taken.task_id.filter(|_| taken.outcome == HookOutcome::Accepted) {
        Some(id) => {
            let location = paths::TASK.replace("{id}", &id.to_string());
            (StatusCode::ACCEPTED, [(header::LOCATION, location)], axum::Json(receipt)).into_response()
        }
        None => axum::Json(receipt).into_response(),
    }
}

/// The token in the query, which no log has: those have the path only.
fn token(query: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "token").map(|(_, value)| value.into_owned())
}

/// The same for a hook that does not exist: strangers learn nothing.
fn unverified() -> Problem {
    auth::unauthorized(
        "The delivery could not be verified: the signature, secret or token is missing, wrong or too old.",
    )
}

fn disabled() -> Problem {
    Problem::new(Code::HookDisabled, "This incoming webhook is disabled: its owner can enable it.")
}
