//! The operations of `/v1/hooks`, part of the gateway's document.

use super::{
    Hook, HookDeliveryList, HookList, HookPatch, HookPayload, HookReceipt, IssuedHook, NewHook, RotateHookRequest,
};
use crate::gateway::{Page, paths};
use crate::problem::Problem;

/// Make an incoming webhook: another app's deliveries become tasks.
///
/// The app is given the gateway's address, `receive_path` and the secret, which is shown in this answer only. A template that runs a command wants
/// the scope `commands:run` besides.
#[utoipa::path(
    post, path = paths::HOOKS, operation_id = "createHook", tag = "hooks",
    params(
        ("Idempotency-Key" = Option<String>, Header, max_length = 255,
            description = "The same key and payload make nothing again for 24 h: the answer is the hook as it now is, without its secret. Another payload is refused with 422, a request still in progress with 409"),
    ),
    request_body = NewHook,
    responses(
        (status = 201, description = "The hook, and its secret", body = IssuedHook, headers(
            ("Location" = String, description = "The hook's path"),
            ("ETag" = String, description = "Of the hook as it is now"),
            ("Idempotency-Replayed" = String, description = "`true`, where the hook was made before"))),
        (status = 409, description = "A request with this `Idempotency-Key` is in progress", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was made; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn create_hook() {}

/// List incoming webhooks, newest first.
#[utoipa::path(
    get, path = paths::HOOKS, operation_id = "listHooks", tag = "hooks",
    params(Page),
    responses(
        (status = 200, description = "A page", body = HookList, headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = "4XX", description = "A parameter is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_hooks() {}

/// One incoming webhook.
#[utoipa::path(
    get, path = paths::HOOK, operation_id = "getHook", tag = "hooks",
    params(("id" = Uuid, Path, description = "The hook's id")),
    responses(
        (status = 200, description = "The hook", body = Hook, headers(("ETag" = String, description = "The revision, and what it is"))),
        (status = "4XX", description = "No such hook", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_hook() {}

/// Change an incoming webhook, disable it, or enable it again.
///
/// Whoever changes one whose template runs a command needs the scope `commands:run`.
#[utoipa::path(
    patch, path = paths::HOOK, operation_id = "changeHook", tag = "hooks",
    params(
        ("id" = Uuid, Path, description = "The hook's id"),
        ("If-Match" = Option<String>, Header, max_length = 1000, description = "The `ETag` that the client has seen: refused with 412 when somebody else has changed it since"),
    ),
    request_body = HookPatch,
    responses(
        (status = 200, description = "The hook as it is now", body = Hook, headers(("ETag" = String, description = "The revision, and what it is"))),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn change_hook() {}

/// Delete an incoming webhook. Its tasks stay.
#[utoipa::path(
    delete, path = paths::HOOK, operation_id = "deleteHook", tag = "hooks",
    params(("id" = Uuid, Path, description = "The hook's id")),
    responses(
        (status = 204, description = "The hook is gone"),
        (status = "4XX", description = "No such hook", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn delete_hook() {}

/// Give an incoming webhook a new secret. Both are taken for `overlap_seconds`, so that the sender can change over meanwhile.
///
/// Of two rotations within one overlap only the newer one's old secret goes on being taken.
#[utoipa::path(
    post, path = paths::HOOK_ROTATE, operation_id = "rotateHook", tag = "hooks",
    params(("id" = Uuid, Path, description = "The hook's id")),
    request_body = RotateHookRequest,
    responses(
        (status = 200, description = "The hook, and its new secret", body = IssuedHook, headers(("ETag" = String, description = "The revision, and what it is"))),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn rotate_hook() {}

/// The last deliveries of an incoming webhook, and what came of each.
#[utoipa::path(
    get, path = paths::HOOK_DELIVERIES, operation_id = "listHookDeliveries", tag = "hooks",
    params(("id" = Uuid, Path, description = "The hook's id")),
    responses(
        (status = 200, description = "The deliveries, newest first", body = HookDeliveryList),
        (status = "4XX", description = "No such hook", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_hook_deliveries() {}

/// Where the other app sends its deliveries. Wants no API key: the sender is verified by the hook's signature, secret or token.
///
/// The body is taken as it is, at most 1 MiB, and verified before anything of it is read. A hook that does not exist is answered as a wrong
/// signature is. The same delivery again makes no second task for seven days.
#[utoipa::path(
    post, path = paths::HOOK_RECEIVE, operation_id = "receiveHook", tag = "hooks",
    params(
        ("id" = Uuid, Path, description = "The hook's id"),
        ("token" = Option<String>, Query, max_length = 200, description = "The secret, of hooks with a secret URL"),
    ),
    request_body(content = HookPayload, description = "Whatever the sender sends"),
    responses(
        (status = 200, description = "It was there before, or is GitHub's `ping`: no task was made", body = HookReceipt),
        (status = 202, description = "The task is committed", body = HookReceipt, headers(("Location" = String, description = "The task's path"))),
        (status = 409, description = "The hook is disabled, or the same delivery is being worked on", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was made", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now: send it again", body = Problem, content_type = "application/problem+json"),
    ),
    security(("hook_signature" = []))
)]
pub fn receive_hook() {}
