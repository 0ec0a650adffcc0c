//! `/v1/hooks`: incoming webhooks are made, listed, changed, rotated and removed. What they receive: [`receive`].

pub(crate) mod payload;
pub(crate) mod receive;

use axum::extract::{Extension, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value};
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::hook::{Hook, HookDeliveryList, HookList, IssuedHook, NewHook, RotateHookRequest};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::{Json, PathParameter, Query};
use taskmaster_store::TaskToCreate;
use taskmaster_store::hooks::{Changed, HookSettings, Made, StoredHook};
use uuid::Uuid;

use crate::app::App;
use crate::edge::client::Client;
use crate::edge::scope;
use crate::signing::overlap;
use crate::validate::hook as validate;
use crate::{attempts, conditional, list, merge_patch, once, page_token, schedules};

/// `POST /v1/hooks`
pub(crate) async fn create(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    Json(new): Json<NewHook>,
) -> Result<Response, Problem> {
    let once = once::key(&headers)?.map(|key| once::once_key(&app, &client, key, once::digest(&("hook", &new))));
    let verification = new.verification;
    let validate::HookToKeep { settings, secret, task } = validate::hook(new)?;
    may_run(&client, &task)?;
    attempts::prepare(&app, std::iter::once(&task.work), |_| "/task".into()).await?;
    let made = app.store.create_hook(Uuid::now_v7(), verification, &settings, &secret, once.as_ref()).await?;
    let (issued, replayed) = match made {
        Made::Created(hook) => (IssuedHook { hook: *hook, secret: Some(secret.expose()) }, false),
        Made::Known(known) => {
            let id = once::known(known)?;
            let hook = app.store.stored_hook(id).await?.ok_or_else(not_found)?.shown();
            (IssuedHook { hook, secret: None }, true)
        }
        Made::TooMany => {
            let detail =
                format!("There are {} incoming webhooks, the most there may be: delete one.", limits::HOOKS_MAX);
            return Err(Problem::new(Code::TooManyHooks, detail));
        }
    };
    let mut answer = issued_answer(&issued)?;
    *answer.status_mut() = StatusCode::CREATED;
    let location = paths::HOOK.replace("{id}", &issued.hook.id.to_string());
    let answer = ([(header::LOCATION, location)], answer).into_response();
    Ok(if replayed { once::replayed(answer) } else { answer })
}

/// Which page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HooksQuery {
    page_size: Option<i64>,
    page_token: Option<String>,
}

/// `GET /v1/hooks`
pub(crate) async fn list(State(app): State<App>, Query(query): Query<HooksQuery>) -> Result<Response, Problem> {
    let page_size = list::page_size(query.page_size)?;
    let token = query.page_token.filter(|token| !token.is_empty());
    let before = token.map(|token| page_token::read_hook(&token)).transpose()?;
    let mut hooks = app.store.hooks(before, page_size + 1).await?;
    let more = hooks.len() as i64 > page_size;
    hooks.truncate(page_size as usize);
    let next = hooks.last().filter(|_| more).map(|last| page_token::write_hook(last.id));
    Ok(schedules::paged(paths::HOOKS, page_size, next, |next_page_token| HookList { hooks, next_page_token }))
}

/// `GET /v1/hooks/{id}`
pub(crate) async fn get(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<Response, Problem> {
    conditional::bound_if_none_match(&headers)?;
    shown(&headers, &app.store.stored_hook(id).await?.ok_or_else(not_found)?.shown())
}

/// `PATCH /v1/hooks/{id}`
pub(crate) async fn change(
    State(app): State<App>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
    Json(patch): Json<Map<String, Value>>,
) -> Result<Response, Problem> {
    let wanted = conditional::if_match(&headers)?;
    merge_patch::check::<NewHook>(&patch)?;
    validate::patch(&patch)?;
    for _ in 0..merge_patch::TRIES_MAX {
        let known = app.store.stored_hook(id).await?.ok_or_else(not_found)?;
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&known.revision)) {
            return Err(changed_meanwhile());
        }
        let revision = known.revision;
        let changed = merge_patch::applied(&writable(known), &patch)?;
        let validate::HookToKeep { settings, task, .. } = validate::hook(changed)?;
        may_run(&client, &task)?;
        attempts::prepare(&app, std::iter::once(&task.work), |_| "/task".into()).await?;
        match app.store.change_hook(id, revision, &settings).await? {
            Changed::Done(hook) => return shown(&HeaderMap::new(), &hook),
            Changed::Conflict => {}
            Changed::NotFound => return Err(not_found()),
        }
    }
    Err(changed_meanwhile())
}

/// `DELETE /v1/hooks/{id}`
pub(crate) async fn delete(
    State(app): State<App>,
    headers: HeaderMap,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<StatusCode, Problem> {
    let wanted = conditional::if_match(&headers)?;
    match app.store.delete_hook(id, wanted.as_deref()).await? {
        Changed::Done(()) => Ok(StatusCode::NO_CONTENT),
        Changed::Conflict => Err(changed_meanwhile()),
        Changed::NotFound => Err(not_found()),
    }
}

/// `POST /v1/hooks/{id}/rotate`
pub(crate) async fn rotate(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
    Json(asked): Json<RotateHookRequest>,
) -> Result<Response, Problem> {
    let verification = app.store.stored_hook(id).await?.ok_or_else(not_found)?.verification;
    let secret = validate::secret(verification, asked.secret.as_deref())?;
    let overlap = overlap(asked.overlap_seconds)?;
    let hook = app.store.rotate_hook(id, verification, &secret, overlap).await?.ok_or_else(not_found)?;
    issued_answer(&IssuedHook { hook, secret: Some(secret.expose()) })
}

/// `GET /v1/hooks/{id}/deliveries`
pub(crate) async fn deliveries(
    State(app): State<App>,
    PathParameter(id): PathParameter<Uuid>,
) -> Result<axum::Json<HookDeliveryList>, Problem> {
    let deliveries = app.store.hook_deliveries(id).await?.ok_or_else(not_found)?;
    Ok(axum::Json(HookDeliveryList { deliveries }))
}

fn shown(headers: &HeaderMap, hook: &Hook) -> Result<Response, Problem> {
    conditional::revised(headers, hook.revision, hook)
}

/// Not kept by any cache: it has a secret.
fn issued_answer(issued: &IssuedHook) -> Result<Response, Problem> {
    let mut answer = conditional::revised(&HeaderMap::new(), issued.hook.revision, issued)?;
    answer.headers_mut().remove(header::CACHE_CONTROL);
    Ok(answer)
}

/// As with schedules: whoever has a hook run commands must be allowed to have commands run.
fn may_run(client: &Client, task: &TaskToCreate) -> Result<(), Problem> {
    scope::require_for_commands(client, std::slice::from_ref(task), |_| "/task".into())
}

/// What of a hook a user can write.
fn writable(hook: StoredHook) -> NewHook {
    let HookSettings { name, secret_header, delivery_id_header, pass_body, pass_headers, task, enabled } =
        hook.settings;
    NewHook {
        name,
        verification: hook.verification,
        secret: None,
        secret_header,
        delivery_id_header,
        pass_body: Some(pass_body),
        pass_headers: Some(pass_headers),
        task,
        enabled: Some(enabled),
    }
}

fn not_found() -> Problem {
    Problem::new(Code::HookNotFound, "No incoming webhook has this id. GET /v1/hooks lists those that there are.")
}

fn changed_meanwhile() -> Problem {
    conditional::changed_meanwhile("hook")
}
