//! `Prefer`: a wait is never longer than the limit.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::fuzzing::prefer_wait;
use taskmaster_openapi::limits;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for value in bytes.split(|byte| *byte == b'\n').filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append("prefer", value);
    }
    if let Some(wait) = prefer_wait(&headers) {
        assert!((1..=limits::WAIT_SECONDS_MAX).contains(&wait.as_secs()) && wait.subsec_nanos() == 0);
    }
});
