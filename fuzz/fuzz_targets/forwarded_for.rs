//! `X-Forwarded-For`: a stranger's is not believed, and a proxy's only as far as proxies wrote it.
#![no_main]

use std::net::IpAddr;

use http::{HeaderMap, HeaderValue};
use ipnet::IpNet;
use libfuzzer_sys::fuzz_target;
use taskmaster_gateway::fuzzing::client_address;

fuzz_target!(|bytes: &[u8]| {
    let mut headers = HeaderMap::new();
    for value in bytes.split(|byte| *byte == b'\n').filter_map(|value| HeaderValue::from_bytes(value).ok()) {
        headers.append("x-forwarded-for", value);
    }
    let trusted: [IpNet; 2] = ["10.0.0.0/8".parse().expect("a network"), "fd00::/8".parse().expect("a network")];
    let (stranger, proxy): (IpAddr, IpAddr) = ([203, 0, 113, 9].into(), [10, 0, 0, 1].into());
    assert_eq!(client_address(stranger, &headers, &trusted), stranger);
    assert_eq!(client_address(proxy, &headers, &[]), proxy);
    let client = client_address(proxy, &headers, &trusted);
    assert_eq!(client, client.to_canonical());
    // The last hop that is no proxy of ours, seen from the right: everything after it is one.
    let text = headers.get_all("x-forwarded-for").iter().next_back().and_then(|value| value.to_str().ok());
    if let Some(last) = text.and_then(|text| text.rsplit(',').next()).and_then(|hop| hop.trim().parse::<IpAddr>().ok())
    {
        let last = last.to_canonical();
        assert!(trusted.iter().any(|network| network.contains(&last)) || client == last);
    }
});
