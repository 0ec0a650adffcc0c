//! The token of an API key: `tm_<id>_<secret>`. Both parts are of a fixed length and have letters and digits only, so that a token can be
//! read in one way. Pure but for the randomness of new ones.

use rand::Rng;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// What every token begins with; finds leaked ones in texts.
const PREFIX: &str = "tm_";
const ID_CHARS: usize = 12;
/// 62 to the power of 43 is above 2 to the power of 256.
const SECRET_CHARS: usize = 43;

/// The public part of a key: names it in lists and logs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; ID_CHARS]);

impl KeyId {
    /// A new one.
    pub fn random() -> Self {
        Self(random())
    }

    /// The id as it stands in a path; `None` for whatever is no id.
    pub fn parse(text: &str) -> Option<Self> {
        part(text).map(Self)
    }

    pub fn as_str(&self) -> &str {
        // ASCII by construction.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::fmt::Display for KeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key as a client presents it. `Debug` shows the id only.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyToken {
    pub id: KeyId,
    secret: [u8; SECRET_CHARS],
}

impl KeyToken {
    /// A new secret for a key, new or not.
    pub fn random(id: KeyId) -> Self {
        Self { id, secret: random() }
    }

    /// Reads a token; `None` for whatever is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Some(Self { id: KeyId(part(id)?), secret: part(secret)? })
    }

    /// The token itself: for whoever made it, once.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, String::from_utf8_lossy(&self.secret))
    }

    /// What is kept of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }
}

impl std::fmt::Debug for KeyToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}_***", self.id)
    }
}

/// The SHA-256 of a secret. Compared in a time that does not tell where two differ; `Debug` hides it.
#[derive(Clone)]
pub struct SecretHash([u8; 32]);

impl SecretHash {
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether the secrets are the same.
    pub fn same(&self, other: &SecretHash) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl std::fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

fn part<const CHARS: usize>(text: &str) -> Option<[u8; CHARS]> {
    let chars: [u8; CHARS] = text.as_bytes().try_into().ok()?;
    chars.iter().all(u8::is_ascii_alphanumeric).then_some(chars)
}

fn random<const CHARS: usize>() -> [u8; CHARS] {
    let mut random = rand::rng();
    std::array::from_fn(|_| random.sample(Alphanumeric))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_is_read_back_and_no_two_are_the_same() {
        let (one, other) = (KeyToken::random(KeyId::random()), KeyToken::random(KeyId::random()));
        assert_eq!(KeyToken::parse(&one.expose()), Some(one.clone()));
        assert_eq!(one.expose().len(), 59);
        assert!(one.id != other.id && !bool::from(one.hash().same(&other.hash())));
        assert!(bool::from(one.hash().same(&one.clone().hash())));
    }

    #[test]
    fn secrets_do_not_show_in_debug_output() {
        let token = KeyToken::random(KeyId::random());
        assert_eq!(format!("{token:?}"), format!("tm_{}_***", token.id));
        assert_eq!(format!("{:?}", token.hash()), "***");
    }

    proptest! {
        #[test]
        fn whatever_is_read_as_a_token_is_written_as_it_was(
            text in prop_oneof!["\\PC{0,80}", "tm_[0-9A-Za-z]{11,13}_[0-9A-Za-z]{42,44}", "tm_[0-9A-Za-z_]{56}"]
        ) {
            let right = text.len() == 59 && text.starts_with("tm_") && text.as_bytes()[15] == b'_'
                && text.bytes().filter(|byte| *byte == b'_').count() == 2
                && text.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
            match KeyToken::parse(&text) {
                Some(token) => prop_assert!(right && token.expose() == text),
                None => prop_assert!(!right),
            }
        }
    }
}
