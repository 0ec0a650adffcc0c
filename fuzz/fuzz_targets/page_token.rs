//! Page tokens: what is read is what would have been written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::hot::{read_page_token, write_page_token};
use taskmaster_openapi::gateway::TaskFilter;

fuzz_target!(|text: &str| {
    let filter = TaskFilter::default();
    if let Ok(after) = read_page_token(&filter, text) {
        assert_eq!(write_page_token(&filter, after), text);
        let other = TaskFilter { queue: Some("other".into()), ..TaskFilter::default() };
        assert!(read_page_token(&other, text).is_err());
    }
});
