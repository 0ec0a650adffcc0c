//! Signatures of incoming webhooks: whatever stands in the headers, nothing is believed but the body that was signed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::fuzzing::hook_believes;
use taskmaster_openapi::hook::HookVerification;

/// The kinds that sign, each with its key and the one body that the seeds have signed with it.
const SIGNED: [(HookVerification, &[u8], &[u8]); 3] = [
    (HookVerification::Github, b"It's a Secret to Everybody", b"Hello, World!"),
    (HookVerification::Stripe, b"It's a Secret to Everybody", b"{\"id\": \"evt_1\"}"),
    // whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
    (
        HookVerification::StandardWebhooks,
        b"\x31\xf2\x90\xf6\xbf\x06\x29\x8a\xab\x4f\x08\xd4\x3c\x3f\x08\x2c\xf6\x48\xa3\x62\xda\x2d\xa4\xb0",
        b"{\"test\": 2432232314}",
    ),
];
const NOW_SECONDS: i64 = 1_614_265_330;

fuzz_target!(|bytes: &[u8]| {
    // The kind, an id, a time, a signature, and the rest is the body.
    let mut parts = bytes.splitn(5, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (kind, id, time, signature, body) = (next(), next(), next(), next(), next());
    let (kind, key, signed) = SIGNED[usize::from(kind.first().copied().unwrap_or_default()) % SIGNED.len()];
    let [id, time, signature] = [id, time, signature].map(|text| std::str::from_utf8(text).unwrap_or_default());
    let header = |name: &str| match name {
        "x-hub-signature-256" | "stripe-signature" | "webhook-signature" => Some(signature),
        "webhook-id" => Some(id),
        "webhook-timestamp" => Some(time),
        _ => None,
    };
    assert!(!hook_believes(kind, key, &header, body, NOW_SECONDS) || body == signed);
});
