//! URLs and headers of HTTP tasks: what the gateway takes the worker can send, and what the worker's guard lets pass is no address
//! that the standard library calls local.
#![no_main]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use http::{HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::hot::validate_task;
use taskmaster_openapi::task::{HttpWork, NewTask};
use taskmaster_worker::targets::TargetGuard;
use url::{Host, Url};

// The URL in the first line, a header's name in the second, its value in the rest.
fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let url = lines.next().unwrap_or_default().to_owned();
    let headers: BTreeMap<_, _> =
        lines.next().map(|name| (name.to_owned(), lines.next().unwrap_or_default().to_owned())).into_iter().collect();
    let http = HttpWork { url: url.clone(), headers: headers.clone(), ..HttpWork::default() };
    if validate_task(NewTask { http: Some(http), ..NewTask::default() }).is_err() {
        return;
    }
    for (name, value) in &headers {
        assert!(HeaderName::try_from(name.as_str()).is_ok() && HeaderValue::try_from(value.as_str()).is_ok());
    }
    let url = Url::parse(&url).expect("the gateway has parsed it");
    assert!(url.username().is_empty() && url.password().is_none() && matches!(url.scheme(), "http" | "https"));
    if TargetGuard::new(&[], &[]).check_url(&url).is_err() {
        return;
    }
    match url.host().expect("the gateway has seen a host") {
        Host::Ipv4(address) => assert!(is_public(address), "{url}"),
        Host::Ipv6(address) => {
            assert!(
                address.segments()[0] & 0xe000 == 0x2000
                    || address.segments()[..2] == [0x64, 0xff9b]
                    || address.to_ipv4_mapped().is_some(),
                "{url}"
            );
            assert!(address.to_ipv4_mapped().is_none_or(is_public), "{url}");
        }
        // A name must not be read as an address by whoever connects.
        Host::Domain(name) => assert!(name.parse::<std::net::IpAddr>().is_err(), "{url}"),
    }
});

fn is_public(address: Ipv4Addr) -> bool {
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_unspecified()
        || address.is_multicast()
        || address.is_broadcast()
        || address.is_documentation())
}
