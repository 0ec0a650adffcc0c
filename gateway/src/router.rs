//! The whole API on one page.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::routing::{MethodRouter, any, delete, get, patch, post, put};
use http::Method;
use taskmaster_openapi::gateway::paths;
use taskmaster_openapi::key::Scope;
use taskmaster_openapi::{Code, Problem, coordinator};
use taskmaster_service::{layers, stage};

use crate::app::App;
use crate::edge::scope;
use crate::{
    attempts, batch, bulk, deliveries, events, forward, hooks, keys, list, queues, schedules, signing, stats, tasks,
    url_workers, webhooks, workers,
};

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever has an API key with this scope, or needs none.
    Key(Scope),
    /// Workers, by tokens of their own, which the coordinator checks.
    Worker,
    /// Whoever has what the handler checks: a signature, or a token within the path.
    Token,
}

/// A method, its path, who may call it, and what handles it.
pub(crate) struct Operation {
    pub method: Method,
    pub path: &'static str,
    pub access: Access,
    handler: MethodRouter<App>,
}

const READ: Access = Access::Key(Scope::TasksRead);
const WRITE: Access = Access::Key(Scope::TasksWrite);
const WORKERS: Access = Access::Key(Scope::Workers);
const WEBHOOKS: Access = Access::Key(Scope::WebhooksWrite);
const ADMIN: Access = Access::Key(Scope::Admin);

/// The public API: what `openapi/v1/gateway.json` documents, health apart. Tasks that run commands want `commands:run` besides: see
/// `edge::scope`.
pub(crate) fn public() -> Vec<Operation> {
    vec![
        op(Method::POST, paths::TASKS, WRITE, post(tasks::create)),
        op(Method::GET, paths::TASKS, READ, get(list::list)),
        op(Method::POST, paths::TASKS_BATCH, WRITE, post(batch::create)),
        op(Method::POST, paths::TASKS_CANCEL, WRITE, post(bulk::cancel)),
        op(Method::POST, paths::TASKS_RETRY, WRITE, post(bulk::retry)),
        op(Method::GET, paths::TASK, READ, get(tasks::get)),
        op(Method::GET, paths::TASK_ATTEMPTS, READ, get(tasks::attempts)),
        op(Method::POST, paths::TASK_CANCEL, WRITE, post(tasks::cancel)),
        op(Method::POST, paths::TASK_RETRY, WRITE, post(tasks::retry)),
        op(Method::GET, paths::EVENTS, READ, get(events::stream)),
        op(Method::GET, paths::STATS, READ, get(stats::get)),
        op(Method::GET, paths::WORKERS, WORKERS, get(workers::list)),
        op(Method::POST, paths::WORKERS_SCALE, WORKERS, post(workers::scale)),
        op(Method::POST, paths::WORKER_DRAIN, WORKERS, post(workers::drain)),
        op(Method::GET, paths::URL_WORKERS, WORKERS, get(url_workers::list)),
        op(Method::GET, paths::URL_WORKER, WORKERS, get(url_workers::get)),
        op(Method::PUT, paths::URL_WORKER, ADMIN, put(url_workers::put)),
        op(Method::DELETE, paths::URL_WORKER, ADMIN, delete(url_workers::delete)),
        op(Method::POST, paths::KEYS, ADMIN, post(keys::create)),
        op(Method::GET, paths::KEYS, ADMIN, get(keys::list)),
        op(Method::GET, paths::KEY, ADMIN, get(keys::get)),
        op(Method::DELETE, paths::KEY, ADMIN, delete(keys::revoke)),
        op(Method::POST, paths::KEY_ROTATE, ADMIN, post(keys::rotate)),
        op(Method::GET, paths::SIGNING_SECRETS, ADMIN, get(signing::list)),
        op(Method::POST, paths::SIGNING_SECRETS_ROTATE, ADMIN, post(signing::rotate)),
        op(Method::POST, paths::SCHEDULES, WRITE, post(schedules::create)),
        op(Method::GET, paths::SCHEDULES, READ, get(schedules::list)),
        op(Method::POST, paths::SCHEDULES_PREVIEW, READ, post(schedules::preview_new)),
        op(Method::GET, paths::SCHEDULE, READ, get(schedules::get)),
        op(Method::PATCH, paths::SCHEDULE, WRITE, patch(schedules::change)),
        op(Method::DELETE, paths::SCHEDULE, WRITE, delete(schedules::delete)),
        op(Method::POST, paths::SCHEDULE_PAUSE, WRITE, post(schedules::pause)),
        op(Method::POST, paths::SCHEDULE_RESUME, WRITE, post(schedules::resume)),
        op(Method::POST, paths::SCHEDULE_TRIGGER, WRITE, post(schedules::trigger)),
        op(Method::POST, paths::SCHEDULE_BACKFILL, WRITE, post(schedules::backfill)),
        op(Method::GET, paths::SCHEDULE_PREVIEW, READ, get(schedules::preview)),
        op(Method::GET, paths::SCHEDULE_RUNS, READ, get(schedules::runs)),
        op(Method::GET, paths::QUEUES, READ, get(queues::list)),
        op(Method::GET, paths::QUEUE, READ, get(queues::get)),
        op(Method::PATCH, paths::QUEUE, WRITE, patch(queues::change)),
        op(Method::DELETE, paths::QUEUE, WRITE, delete(queues::reset)),
        op(Method::POST, paths::QUEUE_PAUSE, WRITE, post(queues::pause)),
        op(Method::POST, paths::QUEUE_RESUME, WRITE, post(queues::resume)),
        op(Method::POST, paths::QUEUE_PURGE, WRITE, post(queues::purge)),
        op(Method::POST, paths::WEBHOOKS, WEBHOOKS, post(webhooks::create)),
        op(Method::GET, paths::WEBHOOKS, READ, get(webhooks::list)),
        op(Method::GET, paths::WEBHOOK, READ, get(webhooks::get)),
        op(Method::PATCH, paths::WEBHOOK, WEBHOOKS, patch(webhooks::change)),
        op(Method::DELETE, paths::WEBHOOK, WEBHOOKS, delete(webhooks::delete)),
        op(Method::POST, paths::WEBHOOK_ROTATE, WEBHOOKS, post(webhooks::rotate)),
        op(Method::POST, paths::WEBHOOK_TEST, WEBHOOKS, post(deliveries::test)),
        op(Method::POST, paths::WEBHOOK_REPLAY, WEBHOOKS, post(deliveries::replay)),
        op(Method::GET, paths::DELIVERIES, READ, get(deliveries::list)),
        op(Method::GET, paths::DELIVERY, READ, get(deliveries::get)),
        op(Method::POST, paths::DELIVERY_REPLAY, WEBHOOKS, post(deliveries::replay_one)),
        op(Method::POST, paths::HOOKS, WRITE, post(hooks::create)),
        op(Method::GET, paths::HOOKS, READ, get(hooks::list)),
        op(Method::GET, paths::HOOK, READ, get(hooks::get)),
        op(Method::PATCH, paths::HOOK, WRITE, patch(hooks::change)),
        op(Method::DELETE, paths::HOOK, WRITE, delete(hooks::delete)),
        op(Method::POST, paths::HOOK_ROTATE, WRITE, post(hooks::rotate)),
        op(Method::GET, paths::HOOK_DELIVERIES, READ, get(hooks::deliveries)),
    ]
}

/// What needs no API key: the handler verifies who sends.
pub(crate) fn receiving() -> Vec<Operation> {
    vec![
        op(Method::POST, paths::HOOK_RECEIVE, Access::Token, post(hooks::receive::receive)),
        op(Method::POST, paths::ATTEMPTS, Access::Token, post(attempts::report)),
    ]
}

/// What of the coordinator's contract is passed on.
pub(crate) fn forwarded() -> Vec<Operation> {
    vec![
        op(Method::POST, coordinator::paths::HEARTBEAT, Access::Worker, post(forward::heartbeat)),
        op(Method::POST, coordinator::paths::TASK_STATUS, Access::Worker, post(forward::task_status)),
        op(Method::DELETE, coordinator::paths::WORKER, Access::Worker, delete(forward::remove)),
    ]
}

fn op(method: Method, path: &'static str, access: Access, handler: MethodRouter<App>) -> Operation {
    Operation { method, path, access, handler }
}

/// A router of these operations, each behind its scope, and of `OPTIONS` at each of their paths.
pub(crate) fn of(operations: Vec<Operation>) -> Router<App> {
    let mut methods: BTreeMap<&str, Vec<Method>> = BTreeMap::new();
    let router = operations.into_iter().fold(Router::new(), |router, Operation { method, path, access, handler }| {
        methods.entry(path).or_default().push(method);
        let guarded = match access {
            Access::Key(scope) => {
                handler.route_layer(stage::guard(move |request: &Request| scope::require(scope, request)))
            }
            Access::Worker | Access::Token => handler,
        };
        router.route(path, guarded)
    });
    methods.into_iter().fold(router, |router, (path, methods)| router.route(path, layers::options(&methods)))
}

/// Whatever else lies below `/v1`, so that it passes the same edge as the API.
pub(crate) fn rest() -> Router<App> {
    Router::new().route("/v1/{*rest}", any(not_found))
}

async fn not_found(request: Request) -> Problem {
    let path = request.uri().path().to_owned();
    Problem::new(Code::NotFound, format!("There is nothing at {path}. GET /docs lists what there is."))
}
