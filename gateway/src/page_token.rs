//! Opaque page tokens: where a list goes on, and which list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use serde::Serialize;
use sha2::{Digest, Sha256};
use taskmaster_openapi::{Code, Problem};
use taskmaster_store::keys::KeyId;
use taskmaster_store::schedules::runs::RunKey;
use uuid::Uuid;

use crate::validate;

/// Raised when tokens change their meaning, so that old ones are refused and not misread.
const VERSION: u8 = 1;
const MARK_BYTES: usize = 8;
const TOKEN_BYTES: usize = 1 + 16 + MARK_BYTES;

/// The token of the page of a list with these filters that begins after this item. Any gateway reads what any other wrote.
pub fn write(filter: &impl Serialize, after: Uuid) -> String {
    let mut token = Vec::with_capacity(TOKEN_BYTES);
    token.push(VERSION);
    token.extend(after.as_bytes());
    token.extend(mark(filter));
    URL_SAFE_NO_PAD.encode(token)
}

/// The item after which the page begins.
///
/// # Errors
/// `invalid_page_token` when the token was made for other filters, or by something else.
pub fn read(filter: &impl Serialize, token: &str) -> Result<Uuid, Problem> {
    let wrong = |what: &str| Problem::field(Code::InvalidPageToken, "page_token", what);
    let bytes = URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == TOKEN_BYTES && bytes[0] == VERSION);
    let bytes = bytes.ok_or_else(|| wrong("is not a token of this list; begin without one"))?;
    if bytes[17..] != mark(filter) {
        return Err(wrong("was made for other filters; repeat those, or begin without a token"));
    }
    Uuid::from_slice(&bytes[1..17]).map_err(|_| wrong("is not a token of this list; begin without one"))
}

/// The token of the page of API keys that begins after this one.
pub(crate) fn write_key(after: KeyId) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION], after.as_str().as_bytes()].concat())
}

/// The API key after which the page begins.
///
/// # Errors
/// `invalid_page_token`.
pub(crate) fn read_key(token: &str) -> Result<KeyId, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let id = bytes.as_deref().and_then(|bytes| bytes.strip_prefix(&[VERSION])).and_then(|id| str::from_utf8(id).ok());
    id.and_then(KeyId::parse).ok_or_else(foreign)
}

/// The token of the page of schedules that begins after this one.
pub(crate) fn write_schedule(after: Uuid) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION][..], SCHEDULES, after.as_bytes()].concat())
}

/// The schedule after which the page begins.
///
/// # Errors
/// `invalid_page_token`.
pub(crate) fn read_schedule(token: &str) -> Result<Uuid, Problem> {
    let bytes = body_of(token, SCHEDULES);
    bytes.and_then(|bytes| Uuid::from_slice(&bytes).ok()).ok_or_else(foreign)
}

/// The token of the page of incoming webhooks that begins after this one.
pub(crate) fn write_hook(after: Uuid) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION][..], HOOKS, after.as_bytes()].concat())
}

/// The incoming webhook after which the page begins.
///
/// # Errors
/// `invalid_page_token`.
pub(crate) fn read_hook(token: &str) -> Result<Uuid, Problem> {
    body_of(token, HOOKS).and_then(|bytes| Uuid::from_slice(&bytes).ok()).ok_or_else(foreign)
}

/// The token of the page of a schedule's runs that begins after this one.
pub(crate) fn write_run(after: RunKey) -> String {
    let micros = after.occurrence.timestamp_micros().to_be_bytes();
    URL_SAFE_NO_PAD.encode([&[VERSION][..], RUNS, &micros, &after.kind.to_be_bytes()].concat())
}

/// The run after which the page begins.
///
/// # Errors
/// `invalid_page_token`.
pub(crate) fn read_run(token: &str) -> Result<RunKey, Problem> {
    let read = |bytes: Vec<u8>| {
        let (micros, kind) = bytes.split_at_checked(8)?;
        let occurrence = DateTime::from_timestamp_micros(i64::from_be_bytes(micros.try_into().ok()?))?;
        Some(RunKey { occurrence, kind: i16::from_be_bytes(kind.try_into().ok()?) })
    };
    let key = body_of(token, RUNS).and_then(read);
    key.filter(|key| validate::is_storable(key.occurrence)).ok_or_else(foreign)
}

/// The token of the page of queues that begins after this one.
pub(crate) fn write_queue(after: &str) -> String {
    URL_SAFE_NO_PAD.encode([&[VERSION][..], QUEUES, after.as_bytes()].concat())
}

/// The queue after which the page begins.
///
/// # Errors
/// `invalid_page_token`.
pub(crate) fn read_queue(token: &str) -> Result<String, Problem> {
    let name = body_of(token, QUEUES).and_then(|bytes| String::from_utf8(bytes).ok());
    name.filter(|name| validate::wrong_queue(name).is_none()).ok_or_else(foreign)
}

/// What tells the lists apart.
const QUEUES: &[u8] = b"queues";
const SCHEDULES: &[u8] = b"schedules";
const RUNS: &[u8] = b"runs";
const HOOKS: &[u8] = b"hooks";

fn body_of(token: &str, list: &[u8]) -> Option<Vec<u8>> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    bytes.strip_prefix(&[VERSION])?.strip_prefix(list).map(<[u8]>::to_vec)
}

fn foreign() -> Problem {
    Problem::field(Code::InvalidPageToken, "page_token", "is not a token of this list; begin without one")
}

/// Tells filters apart; nothing secret.
fn mark(filter: &impl Serialize) -> [u8; MARK_BYTES] {
    let text = serde_json::to_vec(filter).unwrap_or_default();
    let mut mark = [0; MARK_BYTES];
    mark.copy_from_slice(&Sha256::digest(text)[..MARK_BYTES]);
    mark
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use taskmaster_openapi::gateway::TaskFilter;

    fn filter(queue: Option<&str>) -> TaskFilter {
        TaskFilter { queue: queue.map(str::to_owned), ..TaskFilter::default() }
    }

    #[test]
    fn a_token_is_read_back_with_the_filters_it_was_made_for() {
        let id = Uuid::now_v7();
        let token = write(&filter(Some("a")), id);
        assert_eq!(read(&filter(Some("a")), &token), Ok(id));
        for other in [filter(None), filter(Some("b"))] {
            assert_eq!(read(&other, &token).unwrap_err().code, Code::InvalidPageToken);
        }
    }

    #[test]
    fn a_token_of_the_list_of_keys_is_read_back_and_no_token_of_the_other_list() {
        let id = KeyId::random();
        assert_eq!(read_key(&write_key(id)), Ok(id));
        assert!(read_key(&write(&filter(None), Uuid::now_v7())).is_err());
        assert!(read(&filter(None), &write_key(id)).is_err());
    }

    #[test]
    fn tokens_of_schedules_and_their_runs_are_read_back_and_no_other() {
        let (id, occurrence) = (Uuid::now_v7(), "2026-01-31T08:30:00.000001Z".parse().unwrap());
        assert_eq!(read_schedule(&write_schedule(id)), Ok(id));
        let run = RunKey { occurrence, kind: 1 };
        assert_eq!(read_run(&write_run(run)), Ok(run));
        for token in [write_schedule(id), write_key(KeyId::random()), write(&filter(None), id)] {
            assert!(read_run(&token).is_err());
        }
        assert_eq!(read_queue(&write_queue("mail")), Ok("mail".to_owned()));
        assert!(read_queue(&write_schedule(id)).is_err() && read_schedule(&write_queue("mail")).is_err());
        assert!(read_schedule(&write_run(run)).is_err() && read_schedule(&write(&filter(None), id)).is_err());
    }

    proptest! {
        #[test]
        fn nothing_else_is_a_token(text in "\\PC{0,60}") {
            prop_assert_eq!(read(&filter(None), &text).unwrap_err().code, Code::InvalidPageToken);
            prop_assert_eq!(read_key(&text).unwrap_err().code, Code::InvalidPageToken);
            prop_assert_eq!(read_schedule(&text).unwrap_err().code, Code::InvalidPageToken);
            prop_assert_eq!(read_queue(&text).unwrap_err().code, Code::InvalidPageToken);
            prop_assert_eq!(read_run(&text).unwrap_err().code, Code::InvalidPageToken);
        }
    }
}
