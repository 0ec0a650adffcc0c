//! Which web pages of other origins a browser lets use this gateway (CORS, in the Fetch standard): none, unless they are configured.
//!
//! Outside of everything else: a browser asks without an API key whether a page may send a request with one, and a page must be
//! able to read why it was refused.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::app::App;

/// Methods that pages may use, and headers that they may send and read besides those that every page may.
const METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const SENT: &str = "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, Traceparent, X-Request-Id";
const READ: &str = "Allow, Deprecation, ETag, Idempotency-Replayed, Link, Location, Preference-Applied, RateLimit, RateLimit-Policy, \
    Retry-After, Sunset, WWW-Authenticate, X-Request-Id";
/// How long a browser may remember the answer, in seconds; more than Chromium does.
const REMEMBERED_SECONDS: &str = "7200";

/// The origins whose pages may use this gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Origins(Vec<Origin>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Any,
    /// As browsers write it: `https://app.example.com`, with a port where it is not the usual one.
    One(String),
}

impl Origin {
    /// An origin, or `*` for any.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Any);
        }
        let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        let is_bare =
            url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        (is_bare && url.password().is_none()).then(|| Self::One(url.origin().ascii_serialization()))
    }
}

impl Origins {
    pub(crate) fn new(origins: Vec<Origin>) -> Self {
        Self(origins)
    }

    /// Whether there are any.
    pub(crate) fn are_granted(&self) -> bool {
        !self.0.is_empty()
    }

    pub(crate) fn any(&self) -> bool {
        self.0.contains(&Origin::Any)
    }

    /// The origin that a request comes from, if its pages may use this gateway.
    pub(crate) fn granted<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (given.next(), given.next()) else { return None };
        let is_granted = |granted: &Origin| match granted {
            Origin::Any => true,
            Origin::One(granted) => origin.as_bytes() == granted.as_bytes(),
        };
        self.0.iter().any(is_granted).then_some(origin)
    }
}

/// Where pages of other origins may use this gateway at all: answers browsers that ask first ("preflight"), and lets the pages
/// read all other answers.
pub(crate) async fn grant(State(app): State<App>, request: Request, next: Next) -> Response {
    let origins = &app.settings.cors_origins;
    let granted = origins.granted(request.headers()).cloned();
    let asks_first =
        request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match (&granted, asks_first) {
        (Some(_), true) => preflight(),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = granted {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ));
    }
    response
}

fn preflight() -> Response {
    let headers = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, SENT),
        (header::ACCESS_CONTROL_MAX_AGE, REMEMBERED_SECONDS),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_granted_as_browsers_write_it_and_nothing_else_is() {
        let one = |text: &str| Origins::new(vec![Origin::parse(text).unwrap()]);
        let from = |origin: &'static str| HeaderMap::from_iter([(header::ORIGIN, HeaderValue::from_static(origin))]);
        for (configured, origin, granted) in [
            ("https://app.example.com", "https://app.example.com", true),
            ("https://App.Example.com:443/", "https://app.example.com", true),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://localhost:3000", "http://localhost:3001", false),
            ("https://app.example.com", "http://app.example.com", false),
            ("https://app.example.com", "https://app.example.com.evil.example", false),
            ("https://app.example.com", "null", false),
            ("*", "https://anything.example", true),
        ] {
            assert_eq!(one(configured).granted(&from(origin)).is_some(), granted, "{configured} {origin}");
        }
        let mut two = from("https://app.example.com");
        two.append(header::ORIGIN, HeaderValue::from_static("https://evil.example"));
        assert_eq!(one("https://app.example.com").granted(&two), None);
        assert_eq!(Origins::default().granted(&from("https://app.example.com")), None);
    }

    #[test]
    fn nonsense_is_no_origin() {
        for text in
            ["", "null", "app.example.com", "https://", "https://a/path", "https://a?q", "https://u@a", "file:///a"]
        {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
