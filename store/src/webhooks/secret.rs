//! Secrets and signatures, as Standard Webhooks 1.0.0 has them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rand::Rng;
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Length of a secret that is made here; given ones have 24 to 64 bytes.
const BYTES: usize = 32;

/// What a subscriber verifies with.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Vec<u8>);

impl WebhookSecret {
    /// A new one.
    pub fn random() -> Self {
        let mut bytes = vec![0; BYTES];
        rand::rng().fill(&mut bytes[..]);
        Self(bytes)
    }

    /// Reads `whsec_` and 24 to 64 bytes in base64 (RFC 4648, with padding).
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX)?).ok()?;
        (24..=64).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The secret as it is written.
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(&self.0))
    }

    /// What messages are signed with.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The signature of a message, with its version.
    pub fn sign(&self, message_id: &str, timestamp_seconds: i64, body: impl AsRef<[u8]>) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{message_id}.{timestamp_seconds}.").as_bytes());
        mac.update(body.as_ref());
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

impl std::fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("WebhookSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_published_vector_is_signed_as_published() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_read_as_they_are_written_and_bounded() {
        let secret = WebhookSecret::random();
        assert_eq!(WebhookSecret::parse(&secret.expose()), Some(secret.clone()));
        assert_eq!(format!("{secret:?}"), "WebhookSecret");
        let of = |bytes: usize| format!("whsec_{}", STANDARD.encode(vec![7; bytes]));
        assert!([24, 64].iter().all(|bytes| WebhookSecret::parse(&of(*bytes)).is_some()));
        for wrong in [of(23), of(65), "whsec_".into(), "whsec_?".into(), of(32).replace("whsec_", "")] {
            assert!(WebhookSecret::parse(&wrong).is_none(), "{wrong}");
        }
    }
}
