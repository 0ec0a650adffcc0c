//! Opaque page tokens: where a list goes on, and which list.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use taskmaster_openapi::{Code, Problem};
use taskmaster_store::keys::KeyId;
use uuid::Uuid;

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
    let wrong =
        || Problem::field(Code::InvalidPageToken, "page_token", "is not a token of this list; begin without one");
    id.and_then(KeyId::parse).ok_or_else(wrong)
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

    proptest! {
        #[test]
        fn nothing_else_is_a_token(text in "\\PC{0,60}") {
            prop_assert_eq!(read(&filter(None), &text).unwrap_err().code, Code::InvalidPageToken);
            prop_assert_eq!(read_key(&text).unwrap_err().code, Code::InvalidPageToken);
        }
    }
}
