//! `Prefer: wait=N` (RFC 7240): answer when the task has ended, or after N seconds.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use taskmaster_openapi::limits;

const PREFER: HeaderName = HeaderName::from_static("prefer");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long the client would wait: what it asks for, lowered to the limit. `None` when it does not ask, asks for 0, or for what
/// cannot be read: a preference that cannot be honoured is ignored, never refused (RFC 7240, 2).
pub(crate) fn wait(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    // The first one counts (RFC 7240, 2).
    let (_, value) = values.flat_map(preferences).find(|(name, _)| name.eq_ignore_ascii_case("wait"))?;
    let seconds = value.parse::<u64>().ok()?.min(limits::WAIT_SECONDS_MAX);
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Says that the wait was honoured.
pub(crate) fn applied(headers: &mut HeaderMap, wait: Duration) {
    if let Ok(value) = HeaderValue::try_from(format!("wait={}", wait.as_secs())) {
        headers.insert(PREFERENCE_APPLIED, value);
    }
}

/// The preferences of one header value, as name and value; parameters after `;` are left out.
fn preferences(text: &str) -> Vec<(String, String)> {
    let split = |c| split_unquoted(text, c);
    split(',')
        .into_iter()
        .filter_map(|preference| {
            let main = split_unquoted(&preference, ';').into_iter().next()?;
            let (name, value) = main.split_once('=').unwrap_or((&main, ""));
            Some((name.trim().to_owned(), unquoted(value.trim())))
        })
        .collect()
}

/// Splits at a character that does not stand within a quoted string.
fn split_unquoted(text: &str, at: char) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for c in text.chars() {
        if c == at && !quoted {
            parts.push(String::new());
            continue;
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

/// A quoted string's content; anything else as it is.
fn unquoted(text: &str) -> String {
    match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PREFER, HeaderValue::from_static(value));
        }
        wait(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn the_wait_is_found_however_it_is_written() {
        for written in [
            "wait=5",
            "Wait=5",
            "wait=\"5\"",
            " wait = 5 ",
            "respond-async, wait=5",
            "wait=5; strict",
            "foo=\"a, wait=9\", wait=5",
            "foo; wait=9, wait=5",
            "wait=5, wait=9",
        ] {
            assert_eq!(seconds(&[Box::leak(written.to_owned().into_boxed_str())]), Some(5), "{written}");
        }
        assert_eq!(seconds(&["respond-async", "wait=5"]), Some(5));
    }

    #[test]
    fn a_long_wait_is_lowered_and_an_unreadable_one_ignored() {
        assert_eq!(seconds(&["wait=3600"]), Some(limits::WAIT_SECONDS_MAX));
        for ignored in ["wait", "wait=", "wait=-1", "wait=x", "wait=0", "wait=1.5", "waits=5", "", ",,;", "\"wait=5"] {
            assert_eq!(seconds(&[Box::leak(ignored.to_owned().into_boxed_str())]), None, "{ignored}");
        }
        assert_eq!(seconds(&[]), None);
    }
}
