//! Headers that every answer carries, so that a browser makes nothing of it but what it is.

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, HeaderValue, header};
use taskmaster_service::stage::{Entry, Exit, Stage};

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

/// Adds the headers that the answer does not have yet, and over TLS tells browsers that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Secured {
    pub over_tls: bool,
}

impl Stage for Secured {
    type Kept = ();

    fn enter(&self, request: Request) -> Entry<()> {
        Entry::Passed(request, ())
    }

    fn leave(&self, (): (), mut response: Response) -> Exit {
        let headers = response.headers_mut();
        headers.reserve(EVERYWHERE.len() + 1);
        for (name, value) in EVERYWHERE {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        if self.over_tls {
            headers.insert(header::STRICT_TRANSPORT_SECURITY, HTTPS_ONLY);
        }
        response.into()
    }
}
