//! HTTP requests that tasks are to make: what RFC 9110 and the worker's client can send.

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;
use taskmaster_openapi::task::{Completion, HttpWork};
use taskmaster_openapi::webhook::headers as webhook;
use taskmaster_openapi::{destination, limits};
use url::{Host, Url};

use super::{Errors, NUL};

/// Headers that speak of the connection, or that the worker's client writes itself.
const REFUSED_HEADERS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// Headers that the worker adds.
const OWN_PREFIX: &str = "taskmaster-";

pub(super) fn check(work: &HttpWork, errors: &mut Errors) {
    if let Some(detail) = wrong_url(&work.url) {
        errors.add("/http/url", detail);
    }
    check_headers("/http/headers", &work.headers, limits::HEADERS_MAX, errors);
    check_answer(work, errors);
    if work.body.is_some() && work.body_base64.is_some() {
        errors.add("/http/body_base64", "cannot be given together with body");
    }
    let too_long = |text: &str| text.len() > limits::BODY_BYTES_MAX;
    let long_detail = || format!("must have at most {} bytes", limits::BODY_BYTES_MAX);
    if let Some(body) = &work.body {
        if too_long(body) {
            errors.add("/http/body", long_detail());
        } else if body.contains('\0') {
            errors.add("/http/body", format!("{NUL}; send such a body as body_base64"));
        }
    }
    if let Some(body) = &work.body_base64 {
        if too_long(body) {
            errors.add("/http/body_base64", long_detail());
        } else if STANDARD.decode(body).is_err() {
            errors.add("/http/body_base64", "must be base64 (RFC 4648, with padding)");
        }
    }
}

/// What becomes of the answer, and what goes with the request.
fn check_answer(work: &HttpWork, errors: &mut Errors) {
    for (pointer, detail) in work.response.iter().flat_map(|rules| rules.errors()) {
        errors.add(format!("/http/response{pointer}"), detail);
    }
    let signature = [webhook::ID, webhook::TIMESTAMP, webhook::SIGNATURE];
    for name in work.headers.keys().filter(|name| work.sign && signature.iter().any(|s| name.eq_ignore_ascii_case(s))) {
        errors
            .add(format!("/http/headers/{name}"), "is a part of the signature, and cannot be given together with sign");
    }
    let Some(seconds) = work.heartbeat_timeout_seconds else { return };
    super::whole("/http/heartbeat_timeout_seconds", Some(seconds), 1, 1..=limits::TIMEOUT_SECONDS_MAX, errors);
    if work.completion != Completion::Callback {
        errors.add("/http/heartbeat_timeout_seconds", "goes with completion callback only");
    }
}

pub(super) fn wrong_url(text: &str) -> Option<String> {
    let max = limits::URL_BYTES_MAX;
    if text.len() > max {
        return Some(format!("must have at most {max} bytes, and has {}", text.len()));
    }
    // The parser is a browser's: it repairs what a browser would (`http:///x`, tabs in the middle). Here that is a mistake.
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let absolute = matches!(scheme.to_ascii_lowercase().as_str(), "http" | "https") && !rest.starts_with('/');
    let has_blanks = text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\');
    let parsed = Url::parse(text).ok().filter(|url| absolute && !has_blanks && url.has_host());
    let Some(url) = parsed else { return Some("must be an absolute http or https URL".into()) };
    if !url.username().is_empty() || url.password().is_some() {
        return Some("must not carry a user or a password; use an Authorization header".into());
    }
    if url.port() == Some(0) {
        return Some("must not have port 0".into());
    }
    // Which others a worker calls is its own to say.
    let address: Option<IpAddr> = match url.host() {
        Some(Host::Ipv4(address)) => Some(address.into()),
        Some(Host::Ipv6(address)) => Some(address.into()),
        _ => None,
    };
    let impossible = address.is_some_and(|address| !destination::is_possible(address));
    impossible.then(|| "must not name an unspecified, multicast or broadcast address".into())
}

/// Checks the headers at this pointer, at most so many.
pub(super) fn check_headers(at: &str, headers: &BTreeMap<String, String>, max: usize, errors: &mut Errors) {
    if headers.len() > max {
        errors.add(at, format!("must be at most {max}, and are {}", headers.len()));
        return;
    }
    let mut seen = HashSet::new();
    for (name, value) in headers {
        let wrong = wrong_header_name(name).or_else(|| wrong_header_value(value));
        let twice = || (!seen.insert(name.to_ascii_lowercase())).then(|| "is given twice".to_owned());
        if let Some(detail) = wrong.or_else(twice) {
            errors.add(header_pointer(at, name), detail);
        }
    }
}

/// The JSON pointer (RFC 6901) of a header among the headers at this one, cut off if it is long.
pub(super) fn header_pointer(at: &str, name: &str) -> String {
    let name = name.replace('~', "~0").replace('/', "~1");
    format!("{at}/{}", name.chars().take(100).collect::<String>())
}

pub(super) fn wrong_header_name(name: &str) -> Option<String> {
    if name.len() > limits::HEADER_NAME_CHARS_MAX || HeaderName::try_from(name).is_err() {
        return Some("is not the name of a header (RFC 9110)".into());
    }
    let lower = name.to_ascii_lowercase();
    let refused = REFUSED_HEADERS.contains(&lower.as_str()) || lower.starts_with(OWN_PREFIX);
    refused.then(|| "is set by the worker, and cannot be given".into())
}

/// What is wrong with a header's value, if anything is: it must be visible ASCII, blanks and tabs within (RFC 9110, 5.5, without
/// the obsolete bytes above ASCII).
pub(crate) fn wrong_header_value(value: &str) -> Option<String> {
    let max = limits::HEADER_VALUE_BYTES_MAX;
    if value.len() > max {
        return Some(format!("must have at most {max} bytes"));
    }
    let allowed = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
    let right = value.bytes().all(allowed) && value.trim_matches([' ', '\t']) == value;
    (!right).then(|| "must be visible ASCII characters, with blanks and tabs only between them".into())
}
