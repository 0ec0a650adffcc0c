//! Parsers of request headers, as the fuzz targets call them.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use taskmaster_openapi::Problem;
use taskmaster_openapi::gateway::EventFilter;

/// # Errors
/// `invalid_header`.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    crate::once::key(headers)
}

pub fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    crate::prefer::wait(headers)
}

/// # Errors
/// `invalid_header`.
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    crate::events::after(headers, &EventFilter::default())
}

pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    crate::edge::client::address(peer, headers, trusted)
}
