//! `/v1/webhooks`: subscriptions are made, listed, changed, rotated and removed.

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::webhook::{
    IssuedWebhook, NewWebhook, RotateWebhookRequest, Webhook, WebhookChange, WebhookList,
};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter};
use taskmaster_store::webhooks::{Change, Made};
use uuid::Uuid;

use crate::app::App;
use crate::edge::client::Client;
use crate::signing::overlap;
use crate::validate::webhook;
use crate::{conditional, once};

/// `POST /v1/webhooks`
pub(crate) async fn create(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(new): Json<NewWebhook>,
) -> Result<Response, Problem> {
    let key = once::key(&headers)?.map(|key| once::once_key(&app, &client, key, once::digest(&("webhook", &new))));
    let (settings, secret) = webhook::new(new)?;
    match app.store.create_webhook(Uuid::now_v7(), &settings, &secret, key.as_ref()).await? {
        Made::Made(webhook) => {
            issued(StatusCode::CREATED, IssuedWebhook { webhook: *webhook, secret: secret.expose() })
        }
        Made::Replayed(id) => {
            let (webhook, secret) = app.store.webhook_and_secret(id).await?.ok_or_else(not_found)?;
            Ok(once::replayed(issued(StatusCode::CREATED, IssuedWebhook { webhook, secret })?))
        }
        Made::Mismatch => Err(once::mismatch()),
        Made::TooMany => {
            let detail = format!("There are {} webhooks, the most there may be: delete one.", limits::WEBHOOKS_MAX);
            Err(Problem::new(Code::TooManyWebhooks, detail))
        }
    }
}

/// `GET /v1/webhooks`
pub(crate) async fn list(State(app): State<App>) -> Result<axum::Json<WebhookList>, Problem> {
    Ok(axum::Json(WebhookList { webhooks: app.store.webhooks().await? }))
}

/// `GET /v1/webhooks/{id}`
pub(crate) async fn get(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    conditional::bound_if_none_match(&headers)?;
    let webhook = app.store.webhook(id).await?.ok_or_else(not_found)?;
    conditional::revised(&headers, webhook.version, &webhook)
}

/// `PATCH /v1/webhooks/{id}`
pub(crate) async fn change(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    headers: HeaderMap,
    Json(change): Json<WebhookChange>,
) -> Result<Response, Problem> {
    let wanted = conditional::if_match(&headers)?;
    match app.store.change_webhook(id, wanted.as_deref(), webhook::change(change)?).await? {
        Change::Changed(webhook) => tagged(&webhook, axum::Json(&webhook).into_response()),
        Change::Conflict => Err(Problem::new(
            Code::PreconditionFailed,
            "The webhook was changed since If-Match was read. Get it again, and decide anew.",
        )),
        Change::NotFound => Err(not_found()),
    }
}

/// `DELETE /v1/webhooks/{id}`
pub(crate) async fn delete(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<StatusCode, Problem> {
    match app.store.delete_webhook(id).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(not_found()),
    }
}

/// `POST /v1/webhooks/{id}/rotate`
pub(crate) async fn rotate(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Json(asked): Json<RotateWebhookRequest>,
) -> Result<Response, Problem> {
    let secret = webhook::secret(asked.secret.as_deref())?;
    let overlap = overlap(asked.overlap_seconds)?;
    let webhook = app.store.rotate_webhook(id, &secret, overlap).await?.ok_or_else(not_found)?;
    issued(StatusCode::OK, IssuedWebhook { webhook, secret: secret.expose() })
}

pub(crate) fn not_found() -> Problem {
    Problem::new(Code::WebhookNotFound, "No webhook has this id. GET /v1/webhooks lists those that there are.")
}

pub(crate) fn disabled() -> Problem {
    Problem::new(Code::WebhookDisabled, "The webhook is disabled. Enable it first: PATCH with {\"enabled\": true}.")
}

fn issued(status: StatusCode, issued: IssuedWebhook) -> Result<Response, Problem> {
    let location = paths::WEBHOOK.replace("{id}", &issued.webhook.id.to_string());
    let answer = match status {
        StatusCode::CREATED => (status, [(header::LOCATION, location)], axum::Json(&issued)).into_response(),
        _ => (status, axum::Json(&issued)).into_response(),
    };
    tagged(&issued.webhook, answer)
}

/// The answer with the `ETag` of what is set: figures change without it.
fn tagged(webhook: &Webhook, mut answer: Response) -> Result<Response, Problem> {
    let tag = HeaderValue::try_from(format!("\"{}\"", webhook.version)).map_err(|_| Problem::internal())?;
    answer.headers_mut().insert(header::ETAG, tag);
    Ok(answer)
}
