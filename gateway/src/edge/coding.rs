//! Compression of answers by gzip (RFC 9110, 8.4.1.3), for clients that take it. Nobody is refused for what they do not take.
//!
//! Only what is there as a whole is compressed: a stream of events, and what is passed on from coordinators, goes out as it comes.

use std::io::Write;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use taskmaster_openapi::Problem;
use taskmaster_service::stage::{Entry, Exit, Stage};

/// A smaller answer fits into one packet anyway.
const SIZE_BYTES_MIN: u64 = 1024;
/// A larger answer is compressed on a thread of its own: others wait for this one.
const INLINE_BYTES_MAX: usize = 128 * 1024;
/// What compresses well. Fonts and pictures do not.
const TYPES: [&str; 4] = ["application/json", "application/problem+json", "application/javascript", "text/"];

/// Compresses answers, and has every answer that depends on `Accept-Encoding` say so by `Vary`.
#[derive(Debug, Clone)]
pub(crate) struct Compress;

impl Stage for Compress {
    /// Whether the client wants it.
    type Kept = bool;

    fn enter(&self, request: Request) -> Entry<bool> {
        let wanted = accepts_gzip(request.headers()) && request.method() != Method::HEAD;
        Entry::Passed(request, wanted)
    }

    fn leave(&self, wanted: bool, mut response: Response) -> Exit {
        let encoded_already = response.headers().contains_key(header::CONTENT_ENCODING);
        let is_compressible = !encoded_already && is_compressible(&response);
        if is_compressible || encoded_already || response.status() == StatusCode::NOT_MODIFIED {
            response.headers_mut().append(header::VARY, HeaderValue::from_static("accept-encoding"));
        }
        match wanted && is_compressible {
            true => Exit::Later(Box::pin(compressed(response))),
            false => response.into(),
        }
    }
}

/// What `HEAD` is told of a body is its length only.
fn is_compressible(response: &Response) -> bool {
    let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let announced = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    let size = response.body().size_hint().exact().filter(|size| *size > 0).or(announced);
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    size.is_some_and(|size| size >= SIZE_BYTES_MIN) && TYPES.iter().any(|prefix| content_type.starts_with(prefix))
}

async fn compressed(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(plain) = to_bytes(body, usize::MAX).await else { return Problem::internal().into_response() };
    let small = match plain.len() <= INLINE_BYTES_MAX {
        true => gzip(&plain, Compression::fast()),
        false => {
            let plain = plain.clone();
            tokio::task::spawn_blocking(move || gzip(&plain, Compression::fast())).await.ok().flatten()
        }
    };
    let Some(small) = small else { return Response::from_parts(parts, Body::from(plain)) };
    note(&mut parts.headers);
    Response::from_parts(parts, Body::from(small))
}

/// Compresses; `None` when that fails, or gains nothing.
pub(crate) fn gzip(plain: &[u8], level: Compression) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), level);
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().filter(|small| small.len() < plain.len()).map(Bytes::from)
}

/// Says of an answer that its body is compressed. It is another representation then, whose bytes may differ from one gateway to the
/// next, so that its `ETag` is a weak one (RFC 9110, 8.8.3.3).
pub(crate) fn note(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok()).filter(|tag| tag.starts_with('"'));
    if let Some(Ok(weak)) = tag.map(|tag| HeaderValue::try_from(format!("W/{tag}"))) {
        headers.insert(header::ETAG, weak);
    }
}

/// Whether a client takes gzip, and does not like what is not compressed better (RFC 9110, 12.5.3).
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let (mut gzip, mut identity, mut others) = (None, 0.0, 0.0);
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    for entry in values.flat_map(|value| value.split(',')) {
        let (name, parameters) = entry.split_once(';').unwrap_or((entry, ""));
        let quality = parameters.trim().strip_prefix("q=").map_or(1.0, |q| q.trim().parse().unwrap_or(0.0));
        match name.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(quality),
            "identity" => identity = quality,
            "*" => others = quality,
            _ => {}
        }
    }
    let gzip: f32 = gzip.unwrap_or(others);
    gzip > 0.0 && gzip >= identity
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_take_it() {
        for (given, expected) in [
            ("gzip", true),
            ("GZIP", true),
            ("br, gzip;q=0.5", true),
            ("deflate, x-gzip", true),
            ("*", true),
            ("*;q=0.1, identity;q=0", true),
            ("", false),
            ("br", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("gzip;q=x", false),
            ("gzip;q=0.5, identity", false),
            ("*;q=0", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(given))]);
            assert_eq!(accepts_gzip(&headers), expected, "{given}");
        }
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn what_does_not_get_smaller_stays_as_it_is() {
        assert!(gzip(&[b'a'; 2_000], Compression::fast()).is_some_and(|small| small.len() < 200));
        assert_eq!(gzip(b"abc", Compression::fast()), None);
    }
}
