//! The operations of `/v1/webhooks`, part of the gateway's document.

use super::{
    Delivery, DeliveryDetail, DeliveryFilter, DeliveryList, IssuedWebhook, NewWebhook, ReplayRequest, ReplayResponse,
    RotateWebhookRequest, Webhook, WebhookChange, WebhookList,
};
use crate::gateway::{Page, paths};
use crate::problem::Problem;

/// Subscribe to events: each is sent to the URL by POST, at least once, signed (Standard Webhooks 1.0.0), as a CloudEvent (1.0).
///
/// Events that are recorded from now on are sent, in no promised order. The secret is shown in this answer only.
#[utoipa::path(
    post, path = paths::WEBHOOKS, operation_id = "createWebhook", tag = "webhooks",
    params(
        ("Idempotency-Key" = Option<String>, Header,
            description = "The same key and payload make nothing again for 24 h: the answer is the webhook as it now is. Another payload is refused with 422, a request still in progress with 409"),
    ),
    request_body = NewWebhook,
    responses(
        (status = 201, description = "The webhook, and its secret", body = IssuedWebhook, headers(
            ("Location" = String, description = "The webhook's path"),
            ("ETag" = String, description = "Changes with what is set"),
            ("Idempotency-Replayed" = String, description = "`true`, where the webhook was made before"))),
        (status = 409, description = "A request with this `Idempotency-Key` is in progress", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was made; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn create_webhook() {}

/// List webhooks, the oldest first, with what has become of their deliveries.
#[utoipa::path(
    get, path = paths::WEBHOOKS, operation_id = "listWebhooks", tag = "webhooks",
    responses(
        (status = 200, description = "Every webhook", body = WebhookList),
        (status = "4XX", description = "Refused", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_webhooks() {}

/// One webhook.
#[utoipa::path(
    get, path = paths::WEBHOOK, operation_id = "getWebhook", tag = "webhooks",
    params(
        ("id" = Uuid, Path, description = "The webhook's id"),
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of the answer the client has"),
    ),
    responses(
        (status = 200, description = "The webhook", body = Webhook, headers(
            ("ETag" = String, description = "The version, and what the figures are: `If-Match` goes by the version alone"))),
        (status = 304, description = "The client has this answer already"),
        (status = "4XX", description = "No such webhook", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_webhook() {}

/// Change a webhook, disable it, or enable it again.
///
/// Deliveries that were made before go where it leads now, with their next attempt. While it is disabled none are made, and those that
/// come due end as FAILED; they can be replayed.
#[utoipa::path(
    patch, path = paths::WEBHOOK, operation_id = "changeWebhook", tag = "webhooks",
    params(
        ("id" = Uuid, Path, description = "The webhook's id"),
        ("If-Match" = Option<String>, Header, description = "The `ETag` that the client has seen: refused with 412 when somebody else has changed it since"),
    ),
    request_body = WebhookChange,
    responses(
        (status = 200, description = "The webhook as it is now", body = Webhook, headers(("ETag" = String, description = "Changes with what is set"))),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "It was changed meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn change_webhook() {}

/// Delete a webhook. Deliveries that wait are CANCELLED, or end as FAILED when they come due.
#[utoipa::path(
    delete, path = paths::WEBHOOK, operation_id = "deleteWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id")),
    responses(
        (status = 204, description = "The webhook is gone"),
        (status = "4XX", description = "No such webhook", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn delete_webhook() {}

/// Give a webhook a new secret. Deliveries carry signatures of both for `overlap_seconds`, so that the subscriber can change over meanwhile.
///
/// Of two rotations within one overlap only the newer one's old secret goes on being used.
#[utoipa::path(
    post, path = paths::WEBHOOK_ROTATE, operation_id = "rotateWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id")),
    request_body = RotateWebhookRequest,
    responses(
        (status = 200, description = "The webhook, and its new secret", body = IssuedWebhook, headers(("ETag" = String, description = "Changes with what is set"))),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn rotate_webhook() {}

/// Send a test event, of the type `webhook.test`.
#[utoipa::path(
    post, path = paths::WEBHOOK_TEST, operation_id = "testWebhook", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id")),
    responses(
        (status = 202, description = "The delivery, on its way: its path says what comes of it", body = Delivery, headers(
            ("Location" = String, description = "The delivery's path"))),
        (status = 409, description = "The webhook is disabled", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such webhook, or it is disabled", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn test_webhook() {}

/// Send a range of deliveries once more, up to 10,000 a call. Try dry_run first.
#[utoipa::path(
    post, path = paths::WEBHOOK_REPLAY, operation_id = "replayDeliveries", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id")),
    request_body = ReplayRequest,
    responses(
        (status = 200, description = "What is sent once more, or would be", body = ReplayResponse),
        (status = 404, description = "There is none with this id", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The webhook is disabled", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing is sent; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; what was found before is sent", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn replay_deliveries() {}

/// List a webhook's deliveries, newest first.
#[utoipa::path(
    get, path = paths::DELIVERIES, operation_id = "listDeliveries", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id"), DeliveryFilter, Page),
    responses(
        (status = 200, description = "A page", body = DeliveryList, headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = "4XX", description = "No such webhook, or a parameter is wrong", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_deliveries() {}

/// One delivery: what was sent, and what was answered to each attempt.
#[utoipa::path(
    get, path = paths::DELIVERY, operation_id = "getDelivery", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id"), ("delivery_id" = Uuid, Path, description = "The delivery's id")),
    responses(
        (status = 200, description = "The delivery", body = DeliveryDetail),
        (status = "4XX", description = "No such delivery", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_delivery() {}

/// Send a delivery once more: a new one, with the same message id and body.
#[utoipa::path(
    post, path = paths::DELIVERY_REPLAY, operation_id = "replayDelivery", tag = "webhooks",
    params(("id" = Uuid, Path, description = "The webhook's id"), ("delivery_id" = Uuid, Path, description = "The delivery's id")),
    responses(
        (status = 202, description = "The new delivery, on its way", body = Delivery, headers(("Location" = String, description = "The delivery's path"))),
        (status = 409, description = "The webhook is disabled", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such delivery, or the webhook is disabled", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["webhooks:write"]))
)]
pub fn replay_delivery() {}
