//! Bearer tokens (RFC 6750).

use http::{HeaderMap, header};
use taskmaster_openapi::{Code, Problem};

/// The bearer token of a request.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Compares two secrets in a time that does not tell where they differ.
pub fn same_secret(given: &str, expected: &str) -> bool {
    // Lengths are no secret. Folding over all bytes keeps the time independent of the first difference.
    given.len() == expected.len()
        && std::hint::black_box(given.bytes().zip(expected.bytes()).fold(0u8, |acc, (a, b)| acc | (a ^ b))) == 0
}

/// The refusal of a request without the right token.
pub fn unauthorized(detail: &str) -> Problem {
    Problem::new(Code::Unauthorized, detail).with_header(header::WWW_AUTHENTICATE, "Bearer")
}
