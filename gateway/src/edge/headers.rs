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

/// Adds the headers that the answer does not have yet.
pub(crate) async fn secure(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in EVERYWHERE {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
