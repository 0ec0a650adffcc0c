//! Headers that every answer carries, so that a browser makes nothing of it but what it is.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};

/// Answers of the API are neither pages nor parts of pages.
const NO_CONTENT_POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

const EVERYWHERE: [(HeaderName, &str); 5] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CONTENT_SECURITY_POLICY, NO_CONTENT_POLICY),
    // Tasks hold what nobody else should find in a cache. Answers that may be kept say so themselves.
    (header::CACHE_CONTROL, "no-store"),
];

/// For a year, browsers that were here once come back by HTTPS only (RFC 6797).
const HTTPS_ONLY: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Tells browsers that this gateway is served over TLS.
pub(crate) async fn https_only(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    response.headers_mut().insert(header::STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
    response
}

/// Adds the headers that the answer does not have yet.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in EVERYWHERE {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
