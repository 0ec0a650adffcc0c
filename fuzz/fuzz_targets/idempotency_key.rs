//! `Idempotency-Key`: a key that is taken is bounded, and the same in quotes.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::fuzzing::idempotency_key;

fn key_of<'a>(values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut headers = HeaderMap::new();
    for value in values.filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append("idempotency-key", value);
    }
    idempotency_key(&headers).ok().flatten()
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(key) = key_of(bytes.split(|byte| *byte == b'\n')) {
        assert!((1..=255).contains(&key.len()) && key.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        let quoted = format!("\"{key}\"");
        assert_eq!(key_of(std::iter::once(quoted.as_bytes())), Some(key));
    }
});
