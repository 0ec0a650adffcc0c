//! How operations fail: which statuses, and which codes under each.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use utoipa::Modify;
use utoipa::openapi::example::{Example, ExampleBuilder};
use utoipa::openapi::path::Operation;
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, Response};

use super::advice::advice;
use crate::problem::{Code, PROBLEM_JSON};

/// Puts a status in the place of each range (`4XX`, `5XX`) that an operation is written with, by what its shape brings with it and
/// what [`OWN`] says.
pub(crate) struct Failures;

impl Modify for Failures {
    fn modify(&self, document: &mut Document) {
        let mut used = BTreeSet::new();
        for operation in super::operations_mut(document) {
            let shape = Shape::of(operation);
            if shape.scheme.is_none() {
                continue;
            }
            let answers = &mut operation.responses.responses;
            let described = |range: &str| match answers.get(range) {
                Some(RefOr::T(answer)) => answer.description.clone(),
                _ => String::new(),
            };
            let ranges = [described("4XX"), described("5XX")];
            for (status, codes) in by_status(codes(&shape)) {
                let range = if status < 500 { &ranges[0] } else { &ranges[1] };
                let own = match answers.get(&status.to_string()) {
                    Some(RefOr::T(answer)) => &answer.description,
                    _ => range,
                };
                answers.insert(status.to_string(), RefOr::T(failure(own, &codes)));
                used.extend(codes.iter().map(|code| code.as_str()));
            }
            answers.remove("4XX");
            answers.remove("5XX");
        }
        let used = Code::ALL.iter().filter(|code| used.contains(&code.as_str()));
        let examples = &mut document.components.get_or_insert_default().examples;
        examples.extend(used.map(|code| (code.as_str(), RefOr::T(example(*code)))));
    }
}

/// Codes that do not follow from an operation's shape.
const OWN: &[(&str, &[Code])] = &[
    ("reportAttempt", &[Code::AttemptOver]),
    ("createTask", &[Code::TooManyQueues, Code::TooManyRequirements, Code::TooManyFlowKeys]),
    ("createTaskBatch", &[Code::TooManyQueues, Code::TooManyRequirements, Code::TooManyFlowKeys]),
    ("cancelTask", &[Code::TaskStateConflict]),
    ("retryTask", &[Code::TaskStateConflict, Code::TooManyFlowKeys]),
    ("retryTasks", &[Code::TooManyFlowKeys]),
    ("scaleWorkers", &[Code::ScalingUnsupported]),
    ("createKey", &[Code::InvalidHeader]),
    ("rotateKey", &[Code::KeyNotActive]),
    ("drainWorker", &[Code::WorkerNotFound]),
    ("putUrlWorker", &[Code::TooManyUrlWorkers]),
    ("getUrlWorker", &[Code::WorkerNotFound]),
    ("deleteUrlWorker", &[Code::WorkerNotFound]),
    (
        "createSchedule",
        &[
            Code::TooManySchedules,
            Code::TooManyQueues,
            Code::TooManyRequirements,
            Code::TooManyFlowKeys,
            Code::ScheduleNameTaken,
        ],
    ),
    (
        "changeSchedule",
        &[Code::TooManyQueues, Code::TooManyRequirements, Code::TooManyFlowKeys, Code::ScheduleNameTaken],
    ),
    ("changeQueue", &[Code::TooManyQueues]),
    ("pauseQueue", &[Code::TooManyQueues]),
    ("createWebhook", &[Code::TooManyWebhooks]),
    ("testWebhook", &[Code::WebhookDisabled]),
    ("replayDeliveries", &[Code::WebhookDisabled]),
    ("replayDelivery", &[Code::WebhookDisabled]),
    ("createHook", &[Code::TooManyHooks]),
    ("receiveHook", &RECEIVED),
];

/// What a sender may be answered: its body is not read before it is verified, and need not be JSON.
const RECEIVED: [Code; 11] = [
    Code::RequestTimeout,
    Code::BodyTooLarge,
    Code::ValidationFailed,
    Code::HookDisabled,
    Code::IdempotencyInFlight,
    Code::TooManyQueues,
    Code::RateLimited,
    Code::Overloaded,
    Code::DatabaseUnavailable,
    Code::ShuttingDown,
    Code::Timeout,
];

/// Operations on a queue that must be there.
const QUEUE: [&str; 4] = ["getQueue", "resetQueue", "resumeQueue", "purgeQueue"];

/// Words in the ids of operations on a webhook.
const WEBHOOK: [&str; 2] = ["Webhook", "Deliver"];

/// What of an operation decides how it can fail.
struct Shape {
    id: String,
    /// `api_key`, `worker_token` or `push_secret`; none is open to all.
    scheme: Option<String>,
    /// As (place, name).
    parameters: Vec<(String, String)>,
    has_body: bool,
}

impl Shape {
    fn of(operation: &Operation) -> Self {
        let written = serde_json::to_value(operation).unwrap_or_default();
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let schemes = list(&written["security"]);
        let parameters = list(&written["parameters"]);
        Self {
            id: text(&written["operationId"]),
            scheme: schemes.iter().filter_map(|way| way.as_object()?.keys().next().cloned()).next(),
            parameters: parameters.iter().map(|one| (text(&one["in"]), text(&one["name"]))).collect(),
            has_body: written["requestBody"].is_object(),
        }
    }

    fn has(&self, place: &str, name: &str) -> bool {
        self.parameters.iter().any(|(p, n)| p == place && (n == name || name.is_empty()))
    }
}

/// Every code that the operation may answer.
fn codes(shape: &Shape) -> Vec<Code> {
    let mut codes = vec![Code::Unauthorized, Code::Internal];
    let is_api = shape.scheme.as_deref() != Some("hook_signature");
    let of_webhook = !shape.id.contains("Hook") && WEBHOOK.iter().any(|word| shape.id.contains(word));
    let table: [(bool, &[Code]); 17] = [
        (
            shape.has_body && is_api,
            &[
                Code::InvalidJson,
                Code::RequestTimeout,
                Code::BodyTooLarge,
                Code::UnsupportedMediaType,
                Code::InvalidBody,
                Code::ValidationFailed,
            ],
        ),
        (shape.has("query", "") && is_api, &[Code::InvalidQuery]),
        (shape.has("query", "page_token"), &[Code::InvalidPageToken]),
        (shape.has("path", ""), &[Code::InvalidPath]),
        (shape.has("header", ""), &[Code::InvalidHeader]),
        (shape.has("header", "Idempotency-Key"), &[Code::IdempotencyInFlight, Code::IdempotencyMismatch]),
        (shape.has("path", "id") && shape.id.ends_with("Key"), &[Code::KeyNotFound]),
        (shape.has("path", "id") && shape.id.contains("Task"), &[Code::TaskNotFound]),
        (shape.has("path", "id") && shape.id.contains("Schedule"), &[Code::ScheduleNotFound]),
        (shape.has("path", "id") && of_webhook, &[Code::WebhookNotFound]),
        (shape.has("path", "id") && shape.id.contains("Hook") && is_api, &[Code::HookNotFound]),
        (shape.has("path", "delivery_id"), &[Code::DeliveryNotFound]),
        (QUEUE.contains(&shape.id.as_str()), &[Code::QueueNotFound]),
        (shape.has("header", "If-Match"), &[Code::PreconditionFailed]),
        (shape.scheme.as_deref() == Some("api_key"), &GATEWAY),
        (shape.scheme.as_deref() == Some("attempt_token"), &CALLED_BACK),
        (shape.scheme.as_deref() == Some("worker_token"), &COORDINATOR),
    ];
    codes.extend(table.iter().filter(|(holds, _)| *holds).flat_map(|(_, codes)| codes.iter()));
    codes.extend(OWN.iter().filter(|(id, _)| *id == shape.id).flat_map(|(_, codes)| codes.iter()));
    codes
}

/// What any operation of the gateway may answer.
const GATEWAY: [Code; 7] = [
    Code::InsufficientScope,
    Code::ForbiddenOrigin,
    Code::RateLimited,
    Code::Overloaded,
    Code::DatabaseUnavailable,
    Code::ShuttingDown,
    Code::Timeout,
];

/// What any operation of the gateway may answer that wants no API key.
const CALLED_BACK: [Code; 5] =
    [Code::RateLimited, Code::Overloaded, Code::DatabaseUnavailable, Code::ShuttingDown, Code::Timeout];

/// What any operation of a coordinator may answer, some of it only by way of a gateway.
const COORDINATOR: [Code; 7] = [
    Code::ForbiddenOrigin,
    Code::RateLimited,
    Code::Overloaded,
    Code::DatabaseUnavailable,
    Code::CoordinatorUnavailable,
    Code::ShuttingDown,
    Code::Timeout,
];

fn by_status(codes: Vec<Code>) -> BTreeMap<u16, Vec<Code>> {
    let mut found: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in codes {
        let of_status = found.entry(code.status().as_u16()).or_default();
        if !of_status.contains(&code) {
            of_status.push(code);
        }
    }
    found
}

/// An answer that lists its codes, with an example of each.
fn failure(description: &str, codes: &[Code]) -> Response {
    let lines: String =
        codes.iter().map(|code| format!("\n- `{}`: {}. {}", code.as_str(), code.title(), advice(*code))).collect();
    let mut content = Content::new(Some(Ref::from_schema_name("Problem")));
    let reference = |code: &Code| RefOr::Ref(Ref::new(format!("#/components/examples/{}", code.as_str())));
    content.examples = codes.iter().map(|code| (code.as_str(), reference(code))).collect();
    let mut response = Response::new(format!("{description}\n{lines}"));
    response.content.insert(PROBLEM_JSON.into(), RefOr::T(content));
    response
}

fn example(code: Code) -> Example {
    ExampleBuilder::new()
        .summary(code.title())
        .value(Some(json!({
            "type": code.type_uri(),
            "title": code.title(),
            "status": code.status().as_u16(),
            "detail": advice(code),
            "instance": "/v1/tasks",
            "code": code,
            "request_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        })))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use utoipa::OpenApi;

    #[test]
    fn the_table_speaks_of_operations_that_exist() {
        let document = crate::gateway::GatewayApi::openapi().to_json().unwrap();
        for (id, _) in OWN {
            assert!(document.contains(&format!("\"operationId\":\"{id}\"")), "{id}");
        }
    }
}
