//! Keeps web pages out of a gateway without API keys.
//!
//! Such a gateway trusts whoever reaches it, and a browser on the same machine reaches it on behalf of any page it shows. Three
//! checks tell: `Host` must be a name of this gateway (a page that had its own name resolve to 127.0.0.1, "DNS rebinding",
//! sends its own name); `Origin`, which browsers add to every request that can change something, must be this gateway's;
//! and `Sec-Fetch-Site` must not say that the page is of another site. Pages of the origins that `--cors-origins` names are let in; to
//! no others is CORS granted, so that nothing can be read either.

use axum::extract::Request;
use http::uri::Authority;
use http::{HeaderMap, Uri, header};
use taskmaster_openapi::{Code, Problem};

use crate::app::App;
use crate::edge::admission::Traffic;
use crate::edge::client::Client;
use crate::edge::cors::Origins;

const SEC_FETCH_SITE: &str = "sec-fetch-site";
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// A name under which the gateway may be called: a host, on any port unless it says which, or an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AllowedHost {
    scheme: Option<String>,
    place: Place,
}

/// A host in lower case, and its port where one is given.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    host: String,
    port: Option<u16>,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let host = authority.host().to_ascii_lowercase();
        // What follows the host must be a port and nothing else, and no user may stand before it.
        let port = authority.port_u16();
        let rest = text.get(host.len()..)?;
        let whole = match port {
            Some(port) => rest == format!(":{port}"),
            None => rest.is_empty(),
        };
        (whole && !host.is_empty()).then_some(Self { host, port })
    }
}

impl AllowedHost {
    /// A host name, with a port or without, or an origin (`https://tasks.example.com`).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.split_once("://") {
            Some((scheme @ ("http" | "https"), rest)) => {
                Place::parse(rest).map(|place| Self { scheme: Some(scheme.into()), place })
            }
            Some(_) => None,
            None => Place::parse(text).map(|place| Self { scheme: None, place }),
        }
    }

    fn is_host(&self, host: &Place) -> bool {
        let port = self.place.port.or_else(|| self.scheme.as_deref().map(default_port));
        let given = host.port.or_else(|| self.scheme.as_deref().map(default_port));
        self.place.host == host.host && (port.is_none() || port == given)
    }

    fn is_origin(&self, scheme: &str, place: &Place) -> bool {
        let port = self.place.port.or_else(|| self.scheme.as_deref().map(default_port));
        self.scheme.as_deref().is_none_or(|allowed| allowed == scheme)
            && self.place.host == place.host
            && port.is_none_or(|port| port == place.port.unwrap_or(default_port(scheme)))
    }
}

fn default_port(scheme: &str) -> u16 {
    if scheme == "https" { 443 } else { 80 }
}

/// Refuses what a web page of another origin may have sent. Where keys are wanted, or a right one is there, none of this is needed:
/// pages do not have one. Nor do they have what other apps are known by, under whatever name these call the gateway.
///
/// # Errors
/// `forbidden_origin`.
pub(crate) fn guard(app: &App, traffic: Traffic, request: &Request) -> Result<(), Problem> {
    let has_key = request.extensions().get::<Client>().is_some_and(|client| client.principal.is_key());
    if app.settings.keys_required || has_key || traffic == Traffic::Tokens {
        return Ok(());
    }
    check(request.headers(), request.uri(), &app.settings.allowed_hosts, &app.settings.cors_origins)
        .map_err(|detail| Problem::new(Code::ForbiddenOrigin, detail))
}

fn check(headers: &HeaderMap, uri: &Uri, allowed: &[AllowedHost], granted: &Origins) -> Result<(), String> {
    let host = host_of(headers, uri)?;
    if !LOOPBACK_NAMES.contains(&host.host.as_str()) && !allowed.iter().any(|a| a.is_host(&host)) {
        return Err(format!(
            "A gateway without API keys answers only to localhost, 127.0.0.1 and [::1], not to {:?}. Start it with \
             --allowed-host {} to allow that name, or with API keys.",
            host.host, host.host
        ));
    }
    if granted.granted(headers).is_some() {
        return Ok(());
    }
    for origin in headers.get_all(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or("");
        if !is_allowed_origin(origin, &host, allowed) {
            return Err(format!("Web pages of {origin:?} may not use this gateway."));
        }
    }
    match headers.get(SEC_FETCH_SITE) {
        Some(site) if site.as_bytes().eq_ignore_ascii_case(b"cross-site") => {
            Err("Web pages of other sites may not use this gateway.".into())
        }
        _ => Ok(()),
    }
}

/// The one host that the request is for. The request line wins over the header (RFC 9112, 3.2.2), so that both are looked at.
fn host_of(headers: &HeaderMap, uri: &Uri) -> Result<Place, String> {
    let mut given: Vec<&str> = headers.get_all(header::HOST).iter().map(|v| v.to_str().unwrap_or("")).collect();
    given.extend(uri.authority().map(Authority::as_str));
    let places: Option<Vec<Place>> = given.into_iter().map(Place::parse).collect();
    match places.as_deref() {
        Some([one]) => Ok(one.clone()),
        Some([one, same]) if one == same && uri.authority().is_some() => Ok(one.clone()),
        _ => Err("The request must say by one Host header whom it is for.".into()),
    }
}

fn is_allowed_origin(origin: &str, host: &Place, allowed: &[AllowedHost]) -> bool {
    // Also refuses `null`, the origin of sandboxed pages and files.
    let Some((scheme, rest)) = origin.split_once("://") else { return false };
    let (scheme, Some(place)) = (scheme.to_ascii_lowercase(), Place::parse(rest)) else { return false };
    let port = |place: &Place| place.port.unwrap_or(default_port(&scheme));
    let same = place.host == host.host && port(&place) == port(host) && matches!(scheme.as_str(), "http" | "https");
    same || allowed.iter().any(|a| a.is_origin(&scheme, &place))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn verdict(allowed: &[&str], uri: &str, given: &[(&'static str, &'static str)]) -> bool {
        let mut headers = HeaderMap::new();
        for (name, value) in given {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let allowed: Vec<AllowedHost> = allowed.iter().map(|a| AllowedHost::parse(a).unwrap()).collect();
        check(&headers, &uri.parse().unwrap(), &allowed, &Origins::default()).is_ok()
    }

    #[test]
    fn only_this_gateways_own_pages_and_programs_get_in() {
        let table: &[(&[(&'static str, &'static str)], bool)] = &[
            (&[("host", "localhost:8081")], true),
            (&[("host", "LocalHost")], true),
            (&[("host", "127.0.0.1:8081")], true),
            (&[("host", "[::1]:8081")], true),
            (&[], false),
            (&[("host", "evil.example")], false),
            (&[("host", "evil.example:8081")], false),
            (&[("host", "localhost.evil.example")], false),
            (&[("host", "localhost@evil.example")], false),
            (&[("host", "localhost:8081"), ("host", "evil.example")], false),
            (&[("host", "localhost:8081"), ("origin", "http://localhost:8081")], true),
            (&[("host", "localhost:8081"), ("origin", "http://127.0.0.1:8081")], false),
            (&[("host", "localhost:8081"), ("origin", "http://localhost:3000")], false),
            (&[("host", "localhost:8081"), ("origin", "https://evil.example")], false),
            (&[("host", "localhost:8081"), ("origin", "null")], false),
            (&[("host", "localhost:8081"), ("origin", "")], false),
            (&[("host", "localhost:8081"), ("origin", "file://localhost:8081")], false),
            (&[("host", "localhost"), ("origin", "http://localhost:80")], true),
            (&[("host", "localhost:8081"), ("sec-fetch-site", "same-origin")], true),
            (&[("host", "localhost:8081"), ("sec-fetch-site", "none")], true),
            (&[("host", "localhost:8081"), ("sec-fetch-site", "cross-site")], false),
        ];
        for (headers, expected) in table {
            assert_eq!(verdict(&[], "/v1/tasks", headers), *expected, "{headers:?}");
        }
    }

    #[test]
    fn allowed_names_get_in_with_the_port_and_scheme_they_were_allowed_with() {
        let table: &[(&str, &'static str, &'static str, bool)] = &[
            ("tasks.example.com", "tasks.example.com", "https://tasks.example.com", true),
            ("tasks.example.com", "tasks.example.com:9000", "https://tasks.example.com:9000", true),
            ("tasks.example.com:8443", "tasks.example.com:8443", "https://tasks.example.com:8443", true),
            ("tasks.example.com:8443", "tasks.example.com:8444", "https://tasks.example.com:8444", false),
            ("https://tasks.example.com", "localhost:8081", "https://tasks.example.com", true),
            ("https://tasks.example.com", "localhost:8081", "http://tasks.example.com", false),
            ("https://tasks.example.com", "localhost:8081", "https://tasks.example.com:444", false),
            ("https://tasks.example.com", "tasks.example.com", "https://tasks.example.com", true),
            ("tasks.example.com", "tasks.example.com.evil.example", "https://tasks.example.com", false),
        ];
        for (allowed, host, origin, expected) in table {
            assert_eq!(
                verdict(&[allowed], "/", &[("host", host), ("origin", origin)]),
                *expected,
                "{allowed} {host} {origin}"
            );
        }
    }

    #[test]
    fn the_request_line_cannot_name_another_host() {
        assert!(!verdict(&[], "http://evil.example/v1/tasks", &[("host", "localhost")]));
        assert!(!verdict(&[], "http://localhost/v1/tasks", &[("host", "evil.example")]));
        assert!(verdict(&[], "http://localhost/v1/tasks", &[("host", "localhost")]));
    }

    #[test]
    fn nonsense_is_no_allowed_host() {
        for text in ["a b", "ftp://x", "https://", "https://x/path", "user@x", "x:", "x:99999"] {
            assert_eq!(AllowedHost::parse(text), None, "{text}");
        }
    }
}
