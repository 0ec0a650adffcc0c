//! Conditional requests (RFC 9110, 13): a strong `ETag`, and 304 for a client that has the answer already.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Serialize;
use sha2::{Digest, Sha256};
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_service::extract::bound_header;

use crate::edge::coding;

/// An answer of 200 with its `ETag`, or 304 when `If-None-Match` names it. May be cached, but must be asked for again.
pub(crate) fn json<T: Serialize>(request: &HeaderMap, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Problem::internal()
    })?;
    Ok(answer(request, &etag(&body), "application/json", body.into()))
}

/// As [`json`], with a tag that begins with a revision: what [`if_match`] goes by.
pub(crate) fn revised<T: Serialize>(request: &HeaderMap, revision: i64, value: &T) -> Result<Response, Problem> {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Problem::internal()
    })?;
    let tag = format!("\"{revision}.{}", &etag(&body)[1..]);
    Ok(answer(request, &tag, "application/json", body.into()))
}

/// Refuses an `If-None-Match` that is longer than what the documents allow.
///
/// # Errors
/// `invalid_header`.
pub(crate) fn bound_if_none_match(request: &HeaderMap) -> Result<(), Problem> {
    bound_header(request, "If-None-Match", limits::REQUEST_HEADER_CHARS_MAX)
}

/// The revisions that `If-Match` allows; `None` when any will do. What the tag says of figures beside the revision does not matter: they
/// change by themselves. A tag that is none of ours allows nothing.
///
/// # Errors
/// `invalid_header` when it is neither `*` nor a list of tags (RFC 9110, 13.1.1), or too long.
pub(crate) fn if_match(request: &HeaderMap) -> Result<Option<Vec<i64>>, Problem> {
    bound_header(request, "If-Match", limits::REQUEST_HEADER_CHARS_MAX)?;
    let values: Vec<&HeaderValue> = request.get_all(header::IF_MATCH).iter().collect();
    match values.as_slice() {
        [] => return Ok(None),
        [only] if only.as_bytes() == b"*" => return Ok(None),
        _ => {}
    }
    let wrong = || Problem::field(Code::InvalidHeader, "If-Match", "must be the ETag of an answer, or *");
    let mut revisions = Vec::new();
    for value in values {
        let tags = value.to_str().ok().and_then(tags).ok_or_else(wrong)?;
        revisions.extend(tags.iter().filter_map(|tag| tag.split('.').next()?.parse::<i64>().ok()));
    }
    Ok(Some(revisions))
}

/// The refusal of a change to a thing (`queue`, `hook`, …) that has another revision than the one that `If-Match` names.
pub(crate) fn changed_meanwhile(thing: &str) -> Problem {
    let detail =
        format!("The {thing} has been changed since. Get it again, and see whether the change is still wanted.");
    Problem::new(Code::PreconditionFailed, detail)
}

/// The tags of a list, without their quotes, the weak ones too: what was compressed has the same revision. `None` when it is no list of
/// tags (RFC 9110, 8.8.3).
fn tags(list: &str) -> Option<Vec<&str>> {
    let blanks = [' ', '\t'];
    let mut found = Vec::new();
    let mut rest = list;
    loop {
        let opened = rest.strip_prefix("W/").unwrap_or(rest).strip_prefix('"')?;
        let (tag, after) = opened.split_once('"')?;
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        found.push(tag);
        match after.trim_start_matches(blanks) {
            "" => return Some(found),
            more => rest = more.strip_prefix(',')?.trim_start_matches(blanks),
        }
    }
}

/// A body that does not change: its `ETag` is found, and it is compressed, once. The answers are as those of [`json`].
#[derive(Debug)]
pub(crate) struct Fixed {
    content_type: String,
    tag: String,
    plain: Bytes,
    /// Where it gains anything.
    gzip: Option<Bytes>,
}

impl Fixed {
    pub(crate) fn new(content_type: impl Into<String>, plain: Bytes) -> Self {
        let (tag, gzip) = (etag(&plain), coding::gzip(&plain, Compression::default()));
        Self { content_type: content_type.into(), tag, plain, gzip }
    }

    pub(crate) fn answer(&self, request: &HeaderMap) -> Response {
        let gzip = self.gzip.as_ref().filter(|_| coding::accepts_gzip(request));
        let body = gzip.unwrap_or(&self.plain).clone();
        let mut response = answer(request, &self.tag, &self.content_type, body);
        if gzip.is_some() && response.status() == StatusCode::OK {
            coding::note(response.headers_mut());
        }
        response
    }
}

fn answer(request: &HeaderMap, tag: &str, content_type: &str, body: Bytes) -> Response {
    let known = none_match(request, tag);
    let mut response = match known {
        Some(_) => StatusCode::NOT_MODIFIED.into_response(),
        None => body.into_response(),
    };
    let headers = response.headers_mut();
    let values = [
        // Caches find what they have by the tag that they have it under: the weak one, if it is compressed.
        (header::ETAG, known.unwrap_or(tag)),
        (header::CACHE_CONTROL, "private, no-cache"),
        (header::CONTENT_TYPE, content_type),
    ];
    for (name, value) in values {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    if response.status() == StatusCode::NOT_MODIFIED {
        response.headers_mut().remove(header::CONTENT_TYPE);
    }
    response
}

/// A strong validator: equal for equal bytes, whichever gateway answers.
fn etag(body: &[u8]) -> String {
    let digest = Sha256::digest(body);
    let mut tag = String::with_capacity(34);
    tag.push('"');
    for byte in &digest[..16] {
        tag.push_str(&format!("{byte:02x}"));
    }
    tag.push('"');
    tag
}

/// The tag as `If-None-Match` names it, strong or weak, if it does; by the weak comparison, as RFC 9110, 13.1.2 wants.
fn none_match<'a>(request: &'a HeaderMap, tag: &'a str) -> Option<&'a str> {
    let values = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .map(|given| if given == "*" { tag } else { given })
        .find(|given| given.strip_prefix("W/").unwrap_or(given) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(if_none_match: &str) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::try_from(if_none_match).unwrap());
        json(&headers, &"body").unwrap().status().as_u16()
    }

    #[test]
    fn a_client_that_has_the_answer_gets_304_with_its_tag() {
        let first = json(&HeaderMap::new(), &"body").unwrap();
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() == 34, "{tag}");
        for matching in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".into()] {
            assert_eq!(status(&matching), 304, "{matching}");
        }
        for other in ["\"other\"", "", &tag[1..], &format!("W/W/{tag}")] {
            assert_eq!(status(other), 200, "{other}");
        }
    }

    #[test]
    fn a_precondition_goes_by_the_revision_alone() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::IF_MATCH, HeaderValue::try_from(*value).unwrap());
            }
            if_match(&headers).map_err(|problem| problem.code)
        };
        let tag = revised(&HeaderMap::new(), 7, &"body").unwrap().headers()[header::ETAG].to_str().unwrap().to_owned();
        assert_eq!(of(&[&tag]), Ok(Some(vec![7])));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&["*"]), Ok(None));
        assert_eq!(of(&["\"3.ab\", \"4\"", "\"5.x\""]), Ok(Some(vec![3, 4, 5])));
        assert_eq!(of(&["W/\"7.a\""]), Ok(Some(vec![7])), "of an answer that was compressed");
        assert_eq!(of(&["\"x\" ,\t\"a,b\"", "\"\""]), Ok(Some(vec![])), "tags of others allow nothing");
        let long = format!("\"{}\"", "7".repeat(limits::REQUEST_HEADER_CHARS_MAX));
        for wrong in
            ["7", "\"x", "x\"", "", "W/7", "w/\"7\"", "*, \"7\"", "\"7\",", ",\"7\"", "\"a b\"", "\"7\" \"8\"", &long]
        {
            assert_eq!(of(&[wrong]), Err(Code::InvalidHeader), "{wrong:?}");
        }
    }

    #[test]
    fn other_bodies_have_other_tags() {
        assert_eq!(etag(b"a"), etag(b"a"));
        assert_ne!(etag(b"a"), etag(b"b"));
    }
}
