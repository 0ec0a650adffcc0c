//! The headers of requests and answers: what each looks like, and which of them every answer carries.

use std::collections::BTreeSet;

use utoipa::Modify;
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::Type;
use utoipa::openapi::{Header, ObjectBuilder, OpenApi as Document, Ref, RefOr, Response, Schema};

use crate::limits;

/// Bounds the headers that requests and answers are documented with, and adds those that go without saying.
pub(crate) struct Headers;

impl Modify for Headers {
    fn modify(&self, document: &mut Document) {
        let mut used = BTreeSet::new();
        for operation in super::operations_mut(document) {
            let written = serde_json::to_string(&operation.security).unwrap_or_default();
            let has_quota = ["api_key", "hook_signature"].iter().any(|scheme| written.contains(scheme));
            operation.parameters.iter_mut().flatten().for_each(bound_asked);
            for (status, answer) in &mut operation.responses.responses {
                let RefOr::T(answer) = answer else { continue };
                used.extend(add_usual(status, has_quota, answer));
                for (name, header) in &mut answer.headers {
                    if let RefOr::T(header) = header {
                        bound(name, header);
                    }
                }
            }
        }
        let headers = &mut document.components.get_or_insert_default().headers;
        for (_, name, description) in USUAL.into_iter().filter(|(_, name, _)| used.contains(name)) {
            let mut header = Header::default();
            header.description = Some(description.into());
            bound(name, &mut header);
            headers.insert(name.into(), RefOr::T(header));
        }
    }
}

/// Headers that operations are written without: the statuses whose answers have them (`*` all, `quota` all of the gateway's), the
/// name, and what it says.
const USUAL: [(&str, &str, &str); 5] = [
    (
        "*",
        "X-Request-Id",
        "The request's id: the one that it came with, or a new one. It finds the request in the logs",
    ),
    (
        "quota",
        "RateLimit-Policy",
        "The quota: `q` requests in `w` seconds (IETF draft \"RateLimit header fields for HTTP\")",
    ),
    ("quota", "RateLimit", "What is left of it: `r` requests; more in `t` seconds"),
    ("401", "WWW-Authenticate", "How to authenticate (RFC 9110)"),
    ("429 503", "Retry-After", "Whole seconds after which it is worth asking again"),
];

/// Adds references to those that the answer has, and gives back their names.
fn add_usual(status: &str, has_quota: bool, answer: &mut Response) -> Vec<&'static str> {
    let is_there = |when: &str| when == "*" || when.contains(status) || (when == "quota" && has_quota);
    let names: Vec<&str> = USUAL.into_iter().filter(|(when, ..)| is_there(when)).map(|(_, name, _)| name).collect();
    for name in &names {
        let reference = Ref::new(format!("#/components/headers/{name}"));
        answer.headers.entry((*name).into()).or_insert(RefOr::Ref(reference));
    }
    names
}

/// Texts: their length, and their pattern.
const TEXTS: [(&str, usize, &str); 10] = [
    ("X-Request-Id", limits::REQUEST_ID_CHARS_MAX, "^[!-~]+$"),
    ("RateLimit-Policy", limits::RATE_LIMIT_HEADER_CHARS_MAX, "^\"[a-z-]+\";q=[0-9]+;w=[0-9]+$"),
    ("RateLimit", limits::RATE_LIMIT_HEADER_CHARS_MAX, "^\"[a-z-]+\";r=[0-9]+;t=[0-9]+$"),
    ("WWW-Authenticate", limits::HEADER_VALUE_BYTES_MAX, "^Bearer"),
    ("Location", limits::URL_BYTES_MAX, "^/v1/"),
    ("Link", limits::URL_BYTES_MAX, "^</v1/[^>]*>; rel=\"next\"$"),
    ("ETag", limits::REQUEST_HEADER_CHARS_MAX, "^(W/)?\"[!#-~]+\"$"),
    ("Preference-Applied", limits::REQUEST_HEADER_CHARS_MAX, "^wait=[0-9]+$"),
    ("Idempotency-Replayed", 4, "^true$"),
    ("Allow", limits::REQUEST_HEADER_CHARS_MAX, "^[A-Z, ]+$"),
];

/// Whole numbers of seconds, 0 and above.
const SECONDS: [(&str, i64); 2] = [("Age", limits::INTEGER_MAX), ("Retry-After", limits::RETRY_AFTER_SECONDS_MAX)];

fn bound(name: &str, header: &mut Header) {
    let object = ObjectBuilder::new();
    let text = TEXTS.iter().find(|(known, ..)| *known == name);
    let seconds = SECONDS.iter().find(|(known, _)| *known == name);
    let schema = match (text, seconds) {
        (Some((_, max, pattern)), _) => object.schema_type(Type::String).max_length(Some(*max)).pattern(Some(*pattern)),
        (_, Some((_, max))) => object.schema_type(Type::Integer).minimum(Some(0)).maximum(Some(*max as isize)),
        // Of what is not known here, a test says that it has no bounds.
        (None, None) => return,
    };
    header.schema = Some(schema.into());
}

/// Headers of requests that are texts: their length, and their pattern where others are refused.
const ASKED: [(&str, usize, Option<&str>); 4] = [
    (
        "Idempotency-Key",
        limits::IDEMPOTENCY_KEY_CHARS_MAX + 2,
        Some("^(\"[ -~]{1,255}\"|[!#-~]([ -~]{0,253}[!#-~])?)$"),
    ),
    // Tags, as RFC 9110, 8.8.3 writes them.
    ("If-Match", limits::REQUEST_HEADER_CHARS_MAX, Some("^(\\*|(W/)?\"[!#-~]*\"([ \\t]*,[ \\t]*(W/)?\"[!#-~]*\")*)$")),
    ("If-None-Match", limits::REQUEST_HEADER_CHARS_MAX, None),
    ("Prefer", limits::REQUEST_HEADER_CHARS_MAX, None),
];

fn bound_asked(parameter: &mut RefOr<Parameter>) {
    let RefOr::T(parameter) = parameter else { return };
    let known = ASKED.iter().find(|(name, ..)| *name == parameter.name);
    if let (Some((_, max, pattern)), Some(RefOr::T(Schema::Object(text)))) = (known, &mut parameter.schema) {
        text.max_length = Some(*max);
        text.min_length = pattern.map(|_| 1);
        text.pattern = pattern.map(str::to_owned);
    }
}
