//! Bounds of the items of lists and maps, for the documents only: an attribute bounds the field itself, not what it holds.

use utoipa::ToSchema;

/// One argument of a program.
#[derive(Debug, ToSchema)]
#[schema(max_length = 131071)]
pub struct Argument(pub String);

/// The value of a header to send: visible ASCII, with blanks and tabs only between (RFC 9110).
#[derive(Debug, ToSchema)]
#[schema(max_length = 8192, example = "text/plain")]
pub struct HeaderText(pub String);

/// The name of a header (RFC 9110, 5.1).
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 256, pattern = "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", example = "x-github-event")]
pub struct HeaderName(pub String);

/// The value of a header that was received.
#[derive(Debug, ToSchema)]
#[schema(max_length = 8192)]
pub struct ReceivedHeader(pub String);

/// A word to find tasks by.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 100, pattern = "^[^\\u0000]+$", example = "demo")]
pub struct Tag(pub String);

/// The name of a queue.
#[derive(Debug, ToSchema)]
#[schema(min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "default")]
pub struct QueueName(pub String);

/// A free word about a worker.
#[derive(Debug, ToSchema)]
#[schema(max_length = 200, pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$")]
pub struct LabelText(pub String);

/// Where a process is reached.
#[derive(Debug, ToSchema)]
#[schema(max_length = 200, format = "uri", example = "http://127.0.0.1:8080")]
pub struct Address(pub String);

/// What a process waits for.
#[derive(Debug, ToSchema)]
#[schema(max_length = 1000)]
pub struct Reason(pub String);

/// A status of an HTTP answer.
#[derive(Debug, ToSchema)]
#[schema(minimum = 200, maximum = 599, example = 404)]
pub struct Status(pub u16);

/// Statuses of HTTP answers, from the first to the last.
#[derive(Debug, ToSchema)]
#[schema(min_length = 3, max_length = 7, pattern = "^[2-5][0-9]{2}(-[2-5][0-9]{2})?$", example = "200-299")]
pub struct StatusRange(pub String);

/// A delay, in seconds.
#[derive(Debug, ToSchema)]
#[schema(minimum = 0, maximum = 604800)]
pub struct DelaySeconds(pub f64);

/// A program and its arguments.
#[derive(Debug, ToSchema)]
#[schema(min_items = 1, max_items = 1000)]
pub struct Arguments(pub Vec<Argument>);

/// What deliveries are signed with: `whsec_`, and 24 to 64 bytes in base64 (RFC 4648, with padding).
#[derive(Debug, ToSchema)]
#[schema(
    min_length = 38,
    max_length = 94,
    pattern = "^whsec_(([A-Za-z0-9+/]{4}){8,20}([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?|([A-Za-z0-9+/]{4}){21}([A-Za-z0-9+/][AQgw]==)?)$",
    example = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
)]
pub struct WebhookSecret(pub String);
