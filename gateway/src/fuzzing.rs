//! Parsers of request headers, as the fuzz targets call them.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use taskmaster_openapi::Problem;
use taskmaster_openapi::gateway::EventFilter;
use taskmaster_openapi::hook::HookVerification;
use taskmaster_store::hooks::Presented;
use taskmaster_store::hooks::verify::verify;

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

/// Whether a delivery is believed with this key.
pub fn hook_believes<'a>(
    kind: HookVerification,
    key: &[u8],
    header: &'a dyn Fn(&str) -> Option<&'a str>,
    body: &'a [u8],
    now_seconds: i64,
) -> bool {
    let presented = Presented { header, token: None, body };
    verify(kind, &[key.to_vec()], "x-secret", None, &presented, now_seconds).is_ok()
}
