//! Problem documents (RFC 9457): the one shape of every failure.

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::limits;

/// A stable, machine-readable name of what went wrong. Codes are never renamed; new ones may be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The body is not JSON.
    InvalidJson,
    /// The body is JSON, but a field has a wrong type, is unknown, or is missing.
    InvalidBody,
    /// A field's value breaks a rule; `errors` names each one.
    ValidationFailed,
    /// A query parameter is unknown or malformed.
    InvalidQuery,
    /// A path parameter is malformed.
    InvalidPath,
    /// A request header is malformed.
    InvalidHeader,
    /// A page token was made for other filters, or by something else.
    InvalidPageToken,
    /// No credentials, or wrong ones.
    Unauthorized,
    /// The API key lacks a scope; `detail` names it.
    InsufficientScope,
    /// The request comes from a web page of another origin, or for another host.
    ForbiddenOrigin,
    /// No such path.
    NotFound,
    /// No task has this id.
    TaskNotFound,
    /// No worker has this id.
    WorkerNotFound,
    /// No API key has this id.
    KeyNotFound,
    /// No schedule has this id.
    ScheduleNotFound,
    /// No webhook has this id.
    WebhookNotFound,
    /// No incoming webhook has this id.
    HookNotFound,
    /// The webhook has no delivery with this id.
    DeliveryNotFound,
    /// No queue has this name.
    QueueNotFound,
    /// The path exists, but not with this method; `Allow` lists those that do.
    MethodNotAllowed,
    /// The client took too long to send its request.
    RequestTimeout,
    /// The task's state does not allow this.
    TaskStateConflict,
    /// The attempt that a target speaks of is over: cancelled, too late, or the task was claimed again.
    AttemptOver,
    /// The API key was revoked, or has expired.
    KeyNotActive,
    /// Another schedule has this name.
    ScheduleNameTaken,
    /// The webhook is disabled.
    WebhookDisabled,
    /// The incoming webhook is disabled.
    HookDisabled,
    /// The same `Idempotency-Key` is being worked on at this moment.
    IdempotencyInFlight,
    /// The same `Idempotency-Key` was used with another payload.
    IdempotencyMismatch,
    /// `If-Match` names another state than the one that there is: somebody has changed it.
    PreconditionFailed,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The body is not `application/json`.
    UnsupportedMediaType,
    /// There are as many queues as an installation may have.
    TooManyQueues,
    /// There are as many combinations of a queue and required labels as an installation may have.
    TooManyRequirements,
    /// There are as many workers that are only a URL as an installation may have.
    TooManyUrlWorkers,
    /// As many flow keys of the queue have tasks as may have some at once.
    TooManyFlowKeys,
    /// There are as many schedules as this installation may have.
    TooManySchedules,
    /// There are as many webhooks as an installation may have.
    TooManyWebhooks,
    /// There are as many incoming webhooks as an installation may have.
    TooManyHooks,
    /// The rate limit is used up.
    RateLimited,
    /// An error of ours. The request id finds it in the logs.
    Internal,
    /// This host does not scale workers by this call; `detail` says how it does.
    ScalingUnsupported,
    /// More work arrives than can be done now.
    Overloaded,
    /// The database cannot be reached.
    DatabaseUnavailable,
    /// No coordinator can be reached.
    CoordinatorUnavailable,
    /// The process is stopping.
    ShuttingDown,
    /// The request was not finished within the time limit.
    Timeout,
}

impl Code {
    /// Every code, for documents and tests.
    pub const ALL: &[Code] = &[
        Code::InvalidJson,
        Code::InvalidBody,
        Code::ValidationFailed,
        Code::InvalidQuery,
        Code::InvalidPath,
        Code::InvalidHeader,
        Code::InvalidPageToken,
        Code::Unauthorized,
        Code::InsufficientScope,
        Code::ForbiddenOrigin,
        Code::NotFound,
        Code::TaskNotFound,
        Code::WorkerNotFound,
        Code::KeyNotFound,
        Code::ScheduleNotFound,
        Code::WebhookNotFound,
        Code::HookNotFound,
        Code::DeliveryNotFound,
        Code::QueueNotFound,
        Code::MethodNotAllowed,
        Code::RequestTimeout,
        Code::TaskStateConflict,
        Code::AttemptOver,
        Code::KeyNotActive,
        Code::ScheduleNameTaken,
        Code::WebhookDisabled,
        Code::HookDisabled,
        Code::IdempotencyInFlight,
        Code::IdempotencyMismatch,
        Code::PreconditionFailed,
        Code::BodyTooLarge,
        Code::UnsupportedMediaType,
        Code::TooManyQueues,
        Code::TooManyRequirements,
        Code::TooManyUrlWorkers,
        Code::TooManyFlowKeys,
        Code::TooManySchedules,
        Code::TooManyWebhooks,
        Code::TooManyHooks,
        Code::RateLimited,
        Code::Internal,
        Code::ScalingUnsupported,
        Code::Overloaded,
        Code::DatabaseUnavailable,
        Code::CoordinatorUnavailable,
        Code::ShuttingDown,
        Code::Timeout,
    ];

    /// The HTTP status, fixed for each code.
    pub fn status(self) -> StatusCode {
        match self {
            Code::InvalidJson
            | Code::InvalidQuery
            | Code::InvalidPath
            | Code::InvalidHeader
            | Code::InvalidPageToken => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::InsufficientScope | Code::ForbiddenOrigin => StatusCode::FORBIDDEN,
            Code::NotFound
            | Code::TaskNotFound
            | Code::WorkerNotFound
            | Code::KeyNotFound
            | Code::ScheduleNotFound
            | Code::WebhookNotFound
            | Code::HookNotFound
            | Code::DeliveryNotFound
            | Code::QueueNotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Code::TaskStateConflict
            | Code::KeyNotActive
            | Code::ScheduleNameTaken
            | Code::WebhookDisabled
            | Code::HookDisabled
            | Code::IdempotencyInFlight => StatusCode::CONFLICT,
            Code::AttemptOver => StatusCode::GONE,
            Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Code::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::InvalidBody
            | Code::ValidationFailed
            | Code::IdempotencyMismatch
            | Code::TooManyQueues
            | Code::TooManyRequirements
            | Code::TooManyUrlWorkers
            | Code::TooManyFlowKeys
            | Code::TooManySchedules
            | Code::TooManyWebhooks
            | Code::TooManyHooks => StatusCode::UNPROCESSABLE_ENTITY,
            Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Code::ScalingUnsupported => StatusCode::NOT_IMPLEMENTED,
            Code::Overloaded | Code::DatabaseUnavailable | Code::CoordinatorUnavailable | Code::ShuttingDown => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Code::Timeout => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The short, fixed text of the kind of problem.
    pub fn title(self) -> &'static str {
        match self {
            Code::InvalidJson => "The body is not valid JSON",
            Code::InvalidBody => "The body does not have the documented shape",
            Code::ValidationFailed => "A value is not allowed",
            Code::InvalidQuery => "A query parameter is not valid",
            Code::InvalidPath => "A path parameter is not valid",
            Code::InvalidHeader => "A request header is not valid",
            Code::InvalidPageToken => "The page token does not belong to this list",
            Code::Unauthorized => "Credentials are missing or wrong",
            Code::InsufficientScope => "The API key does not allow this",
            Code::ForbiddenOrigin => "Requests from this origin are not allowed",
            Code::NotFound => "There is nothing at this path",
            Code::TaskNotFound => "There is no such task",
            Code::WorkerNotFound => "There is no such worker",
            Code::KeyNotFound => "There is no such API key",
            Code::ScheduleNotFound => "There is no such schedule",
            Code::WebhookNotFound => "There is no such webhook",
            Code::HookNotFound => "There is no such incoming webhook",
            Code::DeliveryNotFound => "There is no such delivery",
            Code::QueueNotFound => "There is no such queue",
            Code::MethodNotAllowed => "This path does not have this method",
            Code::RequestTimeout => "The request took too long to arrive",
            Code::TaskStateConflict => "The task's state does not allow this",
            Code::AttemptOver => "The attempt is over",
            Code::KeyNotActive => "The API key no longer works",
            Code::ScheduleNameTaken => "Another schedule has this name",
            Code::WebhookDisabled => "The webhook is disabled",
            Code::HookDisabled => "The incoming webhook is disabled",
            Code::IdempotencyInFlight => "A request with this Idempotency-Key is in progress",
            Code::IdempotencyMismatch => "This Idempotency-Key was used with another payload",
            Code::PreconditionFailed => "It has been changed meanwhile",
            Code::BodyTooLarge => "The body is too large",
            Code::UnsupportedMediaType => "The body must be application/json",
            Code::TooManyQueues => "There are too many queues",
            Code::TooManyRequirements => "There are too many combinations of required labels",
            Code::TooManyUrlWorkers => "There are too many workers that are only a URL",
            Code::TooManyFlowKeys => "Too many flow keys have tasks at once",
            Code::TooManySchedules => "There are too many schedules",
            Code::TooManyWebhooks => "There are too many webhooks",
            Code::TooManyHooks => "There are too many incoming webhooks",
            Code::RateLimited => "The rate limit is used up",
            Code::Internal => "Something went wrong on our side",
            Code::ScalingUnsupported => "Workers are not scaled by this call here",
            Code::Overloaded => "More work arrives than can be done now",
            Code::DatabaseUnavailable => "The database cannot be reached",
            Code::CoordinatorUnavailable => "No coordinator can be reached",
            Code::ShuttingDown => "The process is stopping",
            Code::Timeout => "The request was not finished in time",
        }
    }

    /// The problem's `type`: an absolute URI. Quota and overload use the ones registered with IANA.
    pub fn type_uri(self) -> String {
        match self {
            Code::RateLimited => "https://iana.org/assignments/http-problem-types#quota-exceeded".into(),
            Code::Overloaded => "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity".into(),
            other => format!("https://taskmaster.dev/problems/{}", other.as_str()),
        }
    }

    /// The code as it stands in documents.
    pub fn as_str(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => name,
            _ => String::new(),
        }
    }
}

/// One field that is wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FieldError {
    /// Where, as a JSON pointer into the body (RFC 6901), or the name of a query parameter or header.
    #[schema(max_length = 500, example = "/http/url")]
    pub pointer: String,
    /// What is wrong, and what would be right.
    #[schema(max_length = 1000, example = "must be an absolute http or https URL")]
    pub detail: String,
}

impl FieldError {
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The empty pointer is the whole body.
        match self.pointer.as_str() {
            "" => f.write_str(&self.detail),
            pointer => write!(f, "{pointer}: {}", self.detail),
        }
    }
}

/// A problem document, `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(example = json!({
    "type": "https://taskmaster.dev/problems/validation_failed",
    "title": "A value is not allowed",
    "status": 422,
    "detail": "/http/url: must be an absolute http or https URL",
    "instance": "/v1/tasks",
    "code": "validation_failed",
    "request_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "errors": [{"pointer": "/http/url", "detail": "must be an absolute http or https URL"}],
}))]
pub struct Problem {
    /// The kind of problem, an absolute URI.
    #[serde(rename = "type")]
    #[schema(max_length = 200, format = "uri", example = "https://taskmaster.dev/problems/validation_failed")]
    pub type_uri: String,
    /// The kind of problem in words; the same for every occurrence.
    #[schema(max_length = 200, example = "A value is not allowed")]
    pub title: String,
    /// The HTTP status, again.
    #[schema(minimum = 400, maximum = 599, example = 422)]
    pub status: u16,
    /// This occurrence, and what to do about it.
    #[schema(max_length = 2000)]
    pub detail: String,
    /// The path of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 2000, example = "/v1/tasks")]
    pub instance: Option<String>,
    /// The stable name of the problem; what programs should branch on.
    pub code: Code,
    /// The request's id, as in the `X-Request-Id` header; finds the request in the logs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128)]
    pub request_id: Option<String>,
    /// The fields that are wrong, at most 100 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 100)]
    pub errors: Vec<FieldError>,
    /// Headers the answer carries (`Retry-After`, `Allow`); not part of the body.
    #[serde(skip)]
    #[schema(ignore)]
    pub headers: Vec<(HeaderNameText, String)>,
}

type HeaderNameText = String;

impl Problem {
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self {
            type_uri: code.type_uri(),
            title: code.title().into(),
            status: code.status().as_u16(),
            detail: detail.into(),
            instance: None,
            code,
            request_id: None,
            errors: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// A problem of one field.
    pub fn field(code: Code, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError::new(pointer, detail);
        let detail = error.to_string();
        let mut problem = Self::new(code, detail);
        problem.errors.push(error);
        problem
    }

    /// A problem of several fields; lists the first 100 and counts the rest.
    pub fn validation(mut errors: Vec<FieldError>) -> Self {
        let count = errors.len();
        errors.truncate(limits::PROBLEM_ERRORS_MAX);
        let first = errors.first().map(FieldError::to_string).unwrap_or_default();
        let detail = match count {
            0 | 1 => first,
            n => format!("{n} values are not allowed; the first: {first}"),
        };
        let mut problem = Self::new(Code::ValidationFailed, detail);
        problem.errors = errors;
        problem
    }

    /// An error of ours: the reader learns nothing of the cause; whoever makes it logs that.
    pub fn internal() -> Self {
        Self::new(
            Code::Internal,
            "The request could not be handled because of an error on our side. Try again; if it stays, report the request id.",
        )
    }

    pub fn with_header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name.as_str().to_owned(), value.into()));
        self
    }

    /// Asks the client to come back after so many whole seconds.
    pub fn retry_after_seconds(self, seconds: u64) -> Self {
        self.with_header(header::RETRY_AFTER, seconds.to_string())
    }

    /// Within the bounds of the documents, whatever a client wrote that it repeats.
    pub fn bounded(mut self) -> Self {
        cut(&mut self.detail, limits::PROBLEM_DETAIL_CHARS_MAX);
        self.instance.iter_mut().for_each(|path| cut(path, limits::PROBLEM_DETAIL_CHARS_MAX));
        for error in &mut self.errors {
            cut(&mut error.pointer, limits::POINTER_CHARS_MAX);
            cut(&mut error.detail, limits::ERROR_MESSAGE_CHARS_MAX);
        }
        self
    }

    pub fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn cut(text: &mut String, chars_max: usize) {
    if let Some((end, _)) = text.char_indices().nth(chars_max) {
        text.truncate(end);
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}): {}", self.title, self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Problem {}

/// The media type of problem documents.
pub const PROBLEM_JSON: &str = "application/problem+json";

impl Problem {
    /// Makes an answer this problem: its status and body, and those of its headers that are not there yet.
    pub fn written(self, mut response: Response) -> Response {
        *response.status_mut() = self.status_code();
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let headers = response.headers_mut();
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        for (name, value) in self.headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                headers.entry(name).or_insert(value);
            }
        }
        *response.body_mut() = body.into();
        response
    }
}

impl IntoResponse for Problem {
    /// An answer with the status, that carries the problem as an extension: what every router is wrapped in writes it, as it knows the
    /// request's id and path.
    fn into_response(self) -> Response {
        let mut response = self.status_code().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
