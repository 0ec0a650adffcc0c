//! Who sent a delivery: signatures, shared secrets and tokens, by the bytes as they came. Pure: the time is told.
//!
//! Sources: GitHub, "Validating webhook deliveries"; Stripe, "Verify webhook signatures manually"; Standard Webhooks 1.0.0. Whatever is
//! compared with a secret is compared in constant time.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use rand::Rng;
use rand::distr::Alphanumeric;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use taskmaster_openapi::hook::HookVerification;
use taskmaster_openapi::limits;

use crate::webhooks::WebhookSecret;

/// Length of a secret that is made here: 62 to the power of 43 is above 2 to the power of 256.
const SECRET_CHARS: usize = 43;
/// Entries of a header with several signatures that are looked at: senders have two while they rotate.
const SIGNATURES_MAX: usize = 10;

/// A secret as people and apps write it.
#[derive(Clone, PartialEq, Eq)]
pub struct HookSecret(String);

impl HookSecret {
    /// A new one, of the kind's shape.
    pub fn random(kind: HookVerification) -> Self {
        if kind == HookVerification::StandardWebhooks {
            return Self(WebhookSecret::random().expose());
        }
        let mut random = rand::rng();
        Self((0..SECRET_CHARS).map(|_| char::from(random.sample(Alphanumeric))).collect())
    }

    /// One that somebody gives; `None` when it is too short or too long, or has another shape.
    pub fn parse(kind: HookVerification, text: &str) -> Option<Self> {
        let fits = match kind {
            HookVerification::StandardWebhooks => WebhookSecret::parse(text).is_some(),
            _ => {
                limits::HOOK_SECRET_CHARS.contains(&text.len())
                    && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
                    && text.trim() == text
            }
        };
        fits.then(|| Self(text.to_owned()))
    }

    /// The secret as it is written.
    pub fn expose(self) -> String {
        self.0
    }

    /// What is kept of it: the key of signatures. Where the sender shows the secret itself, its SHA-256 is enough.
    pub(super) fn kept(&self, kind: HookVerification) -> Vec<u8> {
        match kind {
            HookVerification::Github | HookVerification::Stripe => self.0.as_bytes().to_vec(),
            HookVerification::StandardWebhooks => {
                WebhookSecret::parse(&self.0).map(|secret| secret.bytes().to_vec()).unwrap_or_default()
            }
            HookVerification::SharedSecret | HookVerification::SecretUrl => Sha256::digest(&self.0).to_vec(),
        }
    }
}

impl std::fmt::Debug for HookSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HookSecret")
    }
}

/// Why a delivery is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// The signature, secret or token is missing or wrong.
    Unverified,
    /// It is right, and its time is too far off.
    Stale,
}

/// What is looked at.
pub struct Presented<'a> {
    /// The value of a header that is there once; names are in lower case.
    pub header: &'a dyn Fn(&str) -> Option<&'a str>,
    /// The token in the URL.
    pub token: Option<&'a str>,
    pub body: &'a [u8],
}

/// Verifies a delivery with these secrets, any of which will do, at this time (seconds since 1970). Gives back what the sender calls it,
/// where that is known.
///
/// # Errors
/// Why it is not believed.
pub fn verify(
    kind: HookVerification,
    secrets: &[Vec<u8>],
    secret_header: &str,
    delivery_id_header: Option<&str>,
    presented: &Presented<'_>,
    now_seconds: i64,
) -> Result<Option<String>, Doubt> {
    let Presented { header, token, body } = presented;
    let own_id = || delivery_id_header.and_then(header).filter(|id| !id.is_empty()).map(str::to_owned);
    match kind {
        HookVerification::Github => {
            let signature = header("x-hub-signature-256").and_then(|text| unhex(text.strip_prefix("sha256=")?));
            let signature = signature.ok_or(Doubt::Unverified)?;
            signed(secrets, &[body], &[signature])?;
            Ok(header("x-github-delivery").filter(|id| !id.is_empty()).map(str::to_owned))
        }
        HookVerification::Stripe => {
            let parsed = StripeSignature::parse(header("stripe-signature").ok_or(Doubt::Unverified)?);
            let StripeSignature { timestamp, signatures } = parsed.ok_or(Doubt::Unverified)?;
            signed(secrets, &[timestamp.as_bytes(), b".", body], &signatures)?;
            fresh(timestamp, now_seconds)?;
            // Of what has no id, the signed message itself tells a replay.
            Ok(Some(event_id(body).unwrap_or_else(|| digest(&[timestamp.as_bytes(), b".", body]))))
        }
        HookVerification::StandardWebhooks => {
            let prefix = if header("webhook-signature").is_some() { "webhook" } else { "svix" };
            let of = |name: &str| header(&format!("{prefix}-{name}")).ok_or(Doubt::Unverified);
            let (id, timestamp, signature) = (of("id")?, of("timestamp")?, of("signature")?);
            signed(secrets, &[id.as_bytes(), b".", timestamp.as_bytes(), b".", body], &standard_signatures(signature))?;
            fresh(timestamp, now_seconds)?;
            Ok(Some(id.to_owned()))
        }
        HookVerification::SharedSecret => {
            let given = header(secret_header).ok_or(Doubt::Unverified)?;
            let bearer = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let after_bearer = bearer.is_some_and(|(_, token)| shown(secrets, token.trim()));
            if shown(secrets, given) | after_bearer { Ok(own_id()) } else { Err(Doubt::Unverified) }
        }
        HookVerification::SecretUrl => match token.is_some_and(|token| shown(secrets, token)) {
            true => Ok(own_id()),
            false => Err(Doubt::Unverified),
        },
    }
}

/// Whether one of the signatures is that of the message under one of the secrets.
fn signed(secrets: &[Vec<u8>], message: &[&[u8]], signatures: &[Vec<u8>]) -> Result<(), Doubt> {
    let mut found = false;
    for secret in secrets {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { continue };
        message.iter().for_each(|part| mac.update(part));
        for signature in signatures {
            found |= mac.clone().verify_slice(signature).is_ok();
        }
    }
    if found { Ok(()) } else { Err(Doubt::Unverified) }
}

/// Whether the text is one of the secrets, of which the digests are known.
fn shown(digests: &[Vec<u8>], text: &str) -> bool {
    let digest = Sha256::digest(text);
    digests.iter().fold(false, |found, known| found | bool::from(digest.as_slice().ct_eq(known)))
}

fn fresh(timestamp: &str, now_seconds: i64) -> Result<(), Doubt> {
    let at: i64 = timestamp.parse().map_err(|_| Doubt::Unverified)?;
    if at.abs_diff(now_seconds) <= limits::HOOK_TOLERANCE_SECONDS { Ok(()) } else { Err(Doubt::Stale) }
}

/// `t=1492774577,v1=5257a8…,v1=…`: the schemes that are not known are passed over.
#[derive(Debug, PartialEq, Eq)]
struct StripeSignature<'a> {
    /// As it was signed.
    timestamp: &'a str,
    signatures: Vec<Vec<u8>>,
}

impl<'a> StripeSignature<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let entries = || text.split(',').take(SIGNATURES_MAX * 2).filter_map(|entry| entry.trim().split_once('='));
        let (_, timestamp) = entries().find(|(name, _)| *name == "t")?;
        let signatures = entries().filter(|(name, _)| *name == "v1").filter_map(|(_, value)| unhex(value));
        Some(Self { timestamp, signatures: signatures.take(SIGNATURES_MAX).collect() })
    }
}

/// `v1,<base64> v1,<base64>`: the versions that are not known are passed over.
fn standard_signatures(text: &str) -> Vec<Vec<u8>> {
    let signatures = text.split(' ').filter_map(|entry| STANDARD.decode(entry.strip_prefix("v1,")?).ok());
    signatures.take(SIGNATURES_MAX).collect()
}

/// The `id` of a JSON object.
fn event_id(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Event {
        id: String,
    }
    serde_json::from_slice::<Event>(body).ok().map(|event| event.id).filter(|id| !id.is_empty())
}

/// SHA-256 of the parts one after another, in hexadecimal digits.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    parts.iter().for_each(|part| hash.update(part));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes that 64 hexadecimal digits stand for.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let bytes = text.as_bytes();
    if bytes.len() != 64 {
        return None;
    }
    bytes.chunks_exact(2).map(|pair| u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use HookVerification::{Github, SecretUrl, SharedSecret, StandardWebhooks, Stripe};
    use proptest::prelude::*;

    /// Verifies at this time, with these headers.
    fn at(
        now: i64,
        kind: HookVerification,
        secret: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Option<String>, Doubt> {
        let secrets = [HookSecret(secret.to_owned()).kept(kind)];
        let header = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
        let token = headers.iter().find(|(name, _)| *name == "?token").map(|(_, value)| *value);
        let presented = Presented { header: &header, token, body: body.as_bytes() };
        verify(kind, &secrets, "x-secret", Some("x-id"), &presented, now)
    }

    /// The example of "Validating webhook deliveries".
    #[test]
    fn what_github_publishes_is_verified() {
        let secret = "It's a Secret to Everybody";
        let signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let signed = [("x-hub-signature-256", signature), ("x-github-delivery", "72d3162e")];
        assert_eq!(at(0, Github, secret, &signed, "Hello, World!"), Ok(Some("72d3162e".into())));
        assert_eq!(at(0, Github, secret, &signed[..1], "Hello, World!"), Ok(None));
        let upper = format!("sha256={}", signature["sha256=".len()..].to_uppercase());
        assert!(at(0, Github, secret, &[("x-hub-signature-256", &upper)], "Hello, World!").is_ok());
        for (secret, body, signature) in [
            (secret, "Hello, World", signature),
            ("another secret", "Hello, World!", signature),
            (secret, "Hello, World!", &signature["sha256=".len()..]),
            (secret, "Hello, World!", "sha1=01dc10d0c83e72ed246219cdd91669667fe2ca59"),
            (secret, "Hello, World!", "sha256="),
            (secret, "Hello, World!", ""),
        ] {
            let wrong = at(0, Github, secret, &[("x-hub-signature-256", signature)], body);
            assert_eq!(wrong, Err(Doubt::Unverified), "{signature}");
        }
        assert_eq!(at(0, Github, secret, &[], "Hello, World!"), Err(Doubt::Unverified));
    }

    /// Of the tests of Stripe's library for Go: the payload and the secret; the signature by its scheme (`t.body`).
    #[test]
    fn what_stripe_signs_is_verified_within_five_minutes() {
        let (secret, now) = ("whsec_test_secret_0123456789", 1_492_774_577);
        let sign = |at: &str, body: &str| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
            mac.update(format!("{at}.{body}").as_bytes());
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let (at_text, body) = (now.to_string(), r#"{"id": "evt_1", "object": "event", "pending_webhooks": 1}"#);
        let header = |at: &str, body: &str| format!("t={at},v1={},v0=6ffbb59b", sign(at, body));
        let ask = |now: i64, header: &str, body: &str| at(now, Stripe, secret, &[("stripe-signature", header)], body);
        let right = header(&at_text, body);
        for (late, expected) in [
            (0, Ok(Some("evt_1".to_owned()))),
            (300, Ok(Some("evt_1".to_owned()))),
            (301, Err(Doubt::Stale)),
            (-301, Err(Doubt::Stale)),
        ] {
            assert_eq!(ask(now + late, &right, body), expected, "{late}");
        }
        let rotating = format!("t={now},v1={},v1={}", "0".repeat(64), sign(&at_text, body));
        assert!(ask(now, &rotating, body).is_ok(), "one of several is enough");
        assert_eq!(ask(now, &right, &body.replace("evt_1", "evt_2")), Err(Doubt::Unverified));
        assert_eq!(ask(now, &right.replace("t=", "t=1"), body), Err(Doubt::Unverified), "the time is signed");
        assert_eq!(ask(now, &header("soon", body), body), Err(Doubt::Unverified));
        let without = ask(now, &header(&at_text, "{}"), "{}").unwrap().unwrap();
        assert_eq!(without.len(), 64, "the signed message tells it from others");
    }

    /// The vectors of the specification's reference libraries.
    #[test]
    fn what_standard_webhooks_publishes_is_verified() {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let (now, body) = (1_614_265_330, r#"{"test": 2432232314}"#);
        let right = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        let several = format!("v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v2,abc {right} v1a,xyz");
        for prefix in ["webhook", "svix"] {
            let names = ["id", "timestamp", "signature"].map(|name| format!("{prefix}-{name}"));
            let ask = |now: i64, id: &str, signature: &str| {
                let headers = [(&*names[0], id), (&*names[1], "1614265330"), (&*names[2], signature)];
                at(now, StandardWebhooks, secret, &headers, body)
            };
            let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
            assert_eq!(ask(now, id, right), Ok(Some(id.into())));
            assert_eq!(ask(now - 300, id, &several), Ok(Some(id.into())));
            assert_eq!(ask(now + 301, id, right), Err(Doubt::Stale));
            assert_eq!(ask(now, "msg_other", right), Err(Doubt::Unverified));
            assert_eq!(ask(now, id, &right[3..]), Err(Doubt::Unverified));
        }
    }

    #[test]
    fn a_secret_is_shown_whole_in_its_place_and_only_its_digest_is_kept() {
        let secret = "a secret that both know";
        assert!(!HookSecret(secret.into()).kept(SharedSecret).windows(6).any(|part| part == b"secret"));
        let bearer = format!("Bearer {secret}");
        for (kind, place, value, right) in [
            (SharedSecret, "x-secret", secret, true),
            (SharedSecret, "x-secret", &bearer, true),
            (SharedSecret, "x-secret", &secret[1..], false),
            (SharedSecret, "x-secret", "", false),
            (SharedSecret, "authorization", &bearer, false),
            (SharedSecret, "?token", secret, false),
            (SecretUrl, "?token", secret, true),
            (SecretUrl, "?token", &bearer, false),
            (SecretUrl, "x-secret", secret, false),
        ] {
            let expected = if right { Ok(Some("7".to_owned())) } else { Err(Doubt::Unverified) };
            assert_eq!(at(0, kind, secret, &[(place, value), ("x-id", "7")], ""), expected, "{kind:?} {place} {value}");
        }
    }

    #[test]
    fn either_of_two_secrets_will_do() {
        let kept = |text: &str| HookSecret(text.to_owned()).kept(SecretUrl);
        let secrets = [kept("the new one"), kept("the old one")];
        let ask = |token| {
            let presented = Presented { header: &|_| None, token: Some(token), body: b"" };
            verify(SecretUrl, &secrets, "", None, &presented, 0)
        };
        assert_eq!([ask("the old one"), ask("the new one")], [Ok(None), Ok(None)]);
        assert_eq!(ask("another one"), Err(Doubt::Unverified));
    }

    #[test]
    fn secrets_are_bounded_and_made_in_their_shape() {
        for kind in HookVerification::ALL {
            let made = HookSecret::random(kind);
            assert_eq!(HookSecret::parse(kind, &made.clone().expose()), Some(made.clone()));
            assert_eq!(format!("{made:?}"), "HookSecret");
            for wrong in ["short", &"x".repeat(201), " begins with a blank", "has a line\nbreak in it"] {
                assert_eq!(HookSecret::parse(kind, wrong), None, "{kind:?} {wrong}");
            }
        }
        assert!(HookSecret::parse(StandardWebhooks, "sixteen characters").is_none());
    }

    proptest! {
        #[test]
        fn whatever_strangers_send_is_refused(kind in 0usize..5, header in ".{0,200}", body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let kind = HookVerification::ALL[kind];
            let secrets = [HookSecret::random(kind).kept(kind)];
            let presented = Presented { header: &|_| Some(header.as_str()), token: Some(&header), body: &body };
            prop_assert_eq!(verify(kind, &secrets, "x", None, &presented, 0), Err(Doubt::Unverified));
        }
    }
}
