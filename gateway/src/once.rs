//! `Idempotency-Key`: a creating request that is repeated under the same key creates nothing again.
//!
//! Keys belong to whoever asks: an API key, or all that ask without one. The first request's tasks are found again by the key; the
//! answer is made from what they are now. Nothing is kept of a request that is refused.

use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use sha2::{Digest, Sha256};
use taskmaster_openapi::limits::IDEMPOTENCY_KEY_CHARS_MAX as KEY_CHARS_MAX;
use taskmaster_openapi::task::Task;
use taskmaster_openapi::{Code, Problem};
use taskmaster_store::{Known, Once, OnceKey, TaskToCreate};
use uuid::Uuid;

use crate::app::App;
use crate::edge::client::{Client, Principal};

const IDEMPOTENCY_KEY: &str = "idempotency-key";
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// What was created, now or before.
#[derive(Debug, PartialEq)]
pub(crate) enum Created {
    Now(Vec<Task>),
    Before(Vec<Uuid>),
}

/// The key of a request; `None` without one.
///
/// # Errors
/// `invalid_header` when it is longer than 255 characters, empty, or has others than visible ASCII.
pub(crate) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let wrong = || {
        let detail =
            format!("must be 1 to {KEY_CHARS_MAX} visible ASCII characters, bare or in double quotes, and given once");
        Problem::field(Code::InvalidHeader, "Idempotency-Key", detail)
    };
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let bare = value.to_str().ok().and_then(bare).ok_or_else(wrong)?;
    match given.next() {
        None => Ok(Some(bare.to_owned())),
        Some(_) => Err(wrong()),
    }
}

/// A key without its quotes, which stand on both sides or on none; `None` when it is too long, empty, or has other characters.
fn bare(text: &str) -> Option<&str> {
    let text = text.trim();
    let bare = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"')?,
        None => Some(text).filter(|text| !text.ends_with('"'))?,
    };
    let fits = (1..=KEY_CHARS_MAX).contains(&bare.len()) && bare.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    fits.then_some(bare)
}

/// A digest of what a request asks for: the same for the same values, however they are written.
pub(crate) fn digest(asked: &impl Serialize) -> Vec<u8> {
    let mut hash = Sha256::new();
    // Writing into a digest does not fail, and the values came from JSON.
    let _ = serde_json::to_writer(&mut hash, asked);
    hash.finalize().to_vec()
}

/// Creates the tasks unless that was done before under this key.
///
/// # Errors
/// `idempotency_mismatch`, `idempotency_in_flight`, and what the store refuses.
pub(crate) async fn create(
    app: &App,
    client: &Client,
    key: String,
    payload_hash: Vec<u8>,
    tasks: &[TaskToCreate],
) -> Result<Created, Problem> {
    match app.store.create_once(tasks, &once_key(app, client, key, payload_hash)).await? {
        Once::Created(tasks) => Ok(Created::Now(tasks)),
        Once::Replayed(ids) => Ok(Created::Before(ids)),
        Once::Mismatch => Err(mismatch()),
        Once::InFlight => Err(in_flight()),
    }
}

/// The key as the store takes it: of this client.
pub(crate) fn once_key(app: &App, client: &Client, key: String, payload_hash: Vec<u8>) -> OnceKey {
    let principal = match client.principal {
        Principal::Key(id) => format!("api_key {id}"),
        Principal::ConfiguredKey(place) => format!("key {}", app.settings.key_digest(place)),
        Principal::Hook(id) => format!("hook {id}"),
        Principal::Address(_) => "anonymous".into(),
    };
    OnceKey { principal, key, payload_hash, kept: app.settings.idempotency }
}

/// The id of what was made under a key that was taken before.
///
/// # Errors
/// `idempotency_mismatch`, `idempotency_in_flight`.
pub(crate) fn known(known: Known) -> Result<Uuid, Problem> {
    match known {
        Known::Replayed(ids) => ids.first().copied().ok_or_else(Problem::internal),
        Known::Mismatch => Err(mismatch()),
        Known::InFlight => Err(in_flight()),
    }
}

pub(crate) fn mismatch() -> Problem {
    Problem::new(
        Code::IdempotencyMismatch,
        "Another request was made under this Idempotency-Key. Take a new key for a new request.",
    )
}

fn in_flight() -> Problem {
    Problem::new(
        Code::IdempotencyInFlight,
        "A request with this Idempotency-Key is being worked on. Ask again in a second.",
    )
    .retry_after_seconds(1)
}

/// Says that the answer is one that was given before.
pub(crate) fn replayed(mut answer: Response) -> Response {
    answer.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&str]) -> Result<Option<String>, Code> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_str(value).unwrap());
        }
        key(&headers).map_err(|problem| problem.code)
    }

    #[test]
    fn a_key_is_bare_or_quoted_and_bounded() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["abc-1"]), Ok(Some("abc-1".into())));
        assert_eq!(of(&["\"abc-1\""]), Ok(Some("abc-1".into())));
        assert_eq!(of(&[&"x".repeat(255)]).map(|key| key.map(|k| k.len())), Ok(Some(255)));
        let words = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
        let long = "x".repeat(256);
        for wrong in
            [&[long.as_str()][..], &["\"\""], &["\""], &["\"a"], &["a\""], &["a\tb"], &[""], &["a", "b"]].map(words)
        {
            let wrong: Vec<&str> = wrong.iter().map(String::as_str).collect();
            assert_eq!(of(&wrong), Err(Code::InvalidHeader), "{wrong:?}");
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_spaces_or_the_order_of_fields() {
        let parse = |text: &str| serde_json::from_str::<taskmaster_openapi::task::NewTask>(text).unwrap();
        let one = digest(&parse(r#"{"command":"x","priority":1}"#));
        assert_eq!(one, digest(&parse(r#"{ "priority" : 1, "command" : "x" }"#)));
        assert_ne!(one, digest(&parse(r#"{"command":"x","priority":2}"#)));
    }
}
