//! `Last-Event-ID`: the number of an event, or refused.
#![no_main]

use http::{HeaderMap, HeaderValue};
use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::fuzzing::last_event_id;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
    let mut headers = HeaderMap::new();
    headers.insert("last-event-id", value);
    if let Ok(after) = last_event_id(&headers) {
        assert!(after.is_none_or(|number| number >= 0) && (after.is_some() || bytes.is_empty()));
    }
});
