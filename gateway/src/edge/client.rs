//! Who asks: an API key, or an address; and what they may do.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use http::HeaderMap;
use ipnet::IpNet;
use taskmaster_openapi::key::{Scope, Scopes};
use taskmaster_openapi::{Code, Problem};
use taskmaster_service::auth;
use taskmaster_service::places::site;
use taskmaster_service::stage::{Entry, Stage};
use taskmaster_store::keys::{KeyId, KeyToken};
use uuid::Uuid;

use crate::app::App;
use crate::edge::admission::Traffic;
use crate::edge::key;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Whose quota and whose idempotency keys a request uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Principal {
    /// An API key of the database.
    Key(KeyId),
    /// The API key with this place in the configuration.
    ConfiguredKey(usize),
    /// An incoming webhook, whose sender was verified.
    Hook(Uuid),
    /// No (valid) key: the address, of IPv6 the /64 that one customer has.
    Address(IpAddr),
}

impl Principal {
    pub(crate) fn is_key(self) -> bool {
        !matches!(self, Principal::Address(_))
    }
}

/// Who asks, as an extension of the request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub principal: Principal,
    /// The request carries a wrong key.
    pub is_guess: bool,
    /// What is allowed, or why nothing is.
    pub allowed: Result<Scopes, Problem>,
}

impl Client {
    /// One without a key.
    fn at(address: IpAddr, allowed: Result<Scopes, Problem>) -> Self {
        Self { principal: Principal::Address(address), is_guess: false, allowed }
    }

    fn with_key(principal: Principal, scopes: Scopes) -> Self {
        Self { principal, is_guess: false, allowed: Ok(scopes) }
    }

    /// One whose key is not right, or cannot be checked.
    fn refused(address: IpAddr, problem: Problem) -> Self {
        Self { is_guess: problem.code == Code::Unauthorized, ..Self::at(address, Err(problem)) }
    }

    fn of(key: KeyId, verdict: Result<Scopes, Problem>, address: IpAddr) -> Self {
        match verdict {
            Ok(scopes) => Self::with_key(Principal::Key(key), scopes),
            Err(problem) => Self::refused(address, problem),
        }
    }

    pub(crate) fn may(&self, scope: Scope) -> bool {
        self.allowed.as_ref().is_ok_and(|scopes| scopes.allow(scope))
    }
}

/// Finds out who asks, by the API key if there is one; refuses nobody yet. What others than the API's users carry is theirs: whoever
/// handles it checks it.
#[derive(Clone)]
pub(crate) struct Identify {
    pub app: App,
    pub traffic: Traffic,
}

impl Stage for Identify {
    type Kept = ();

    /// A key that is presented is checked, whether one is wanted or not: who presents a wrong one must not think that it is right.
    fn enter(&self, request: Request) -> Entry<()> {
        let address = address_of(&self.app, &request);
        let presented = auth::bearer(request.headers()).filter(|_| self.traffic == Traffic::Api);
        let Some(presented) = presented else { return passed(request, self.without_key(address)) };
        if let Some(place) = key::find(presented, &self.app.settings.api_keys) {
            return passed(request, Client::with_key(Principal::ConfiguredKey(place), Scopes::ALL));
        }
        let Some(token) = KeyToken::parse(presented) else {
            return passed(request, Client::refused(address, auth::unauthorized("This API key is not known here.")));
        };
        if let Some(verdict) = self.app.keyring.recall(&token) {
            return passed(request, Client::of(token.id, verdict, address));
        }
        let app = self.app.clone();
        Entry::Later(Box::pin(async move {
            // Whoever guesses too much is not looked up any more; who comes from the same address with a key that is known here, is.
            let may_ask = || !app.limiter.has_guessed_enough(address);
            let verdict = app.keyring.check(&token, may_ask).await;
            passed(request, Client::of(token.id, verdict, address))
        }))
    }
}

impl Identify {
    fn without_key(&self, address: IpAddr) -> Client {
        let detail = "This gateway wants an API key: `Authorization: Bearer <key>`.";
        Client::at(
            address,
            match self.traffic {
                Traffic::Tokens | Traffic::Workers => Ok(Scopes::default()),
                Traffic::Api if self.app.settings.keys_required => Err(auth::unauthorized(detail)),
                Traffic::Api => Ok(Scopes::ALL),
            },
        )
    }
}

fn passed(mut request: Request, client: Client) -> Entry<()> {
    request.extensions_mut().insert(client);
    Entry::Passed(request, ())
}

fn address_of(app: &App, request: &Request) -> IpAddr {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
    let peer = peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    site(address(peer, request.headers(), &app.settings.trusted_proxies))
}

/// The client's address: the peer's, or behind trusted proxies the last one in `X-Forwarded-For` that is none of them.
/// What stands further left was written by the client itself and is not believed.
pub(crate) fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut client = peer.to_canonical();
    let hops: Vec<&str> =
        headers.get_all(FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(',')).collect();
    for hop in hops.into_iter().rev() {
        if !is_trusted(&client) {
            break;
        }
        let Some(before) = parse_hop(hop.trim()) else { break };
        client = before;
    }
    client
}

/// An address as proxies write it: alone, or with a port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let plain = text.parse::<IpAddr>().ok();
    let address = plain.or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    address.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn seen(peer: &str, forwarded: &[&'static str], trusted: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(value));
        }
        let trusted: Vec<IpNet> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        address(peer.parse().unwrap(), &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_addresses_are_believed_only_as_far_as_trusted_proxies_wrote_them() {
        let trusted = ["10.0.0.0/8", "fd00::/8"];
        assert_eq!(seen("203.0.113.9", &["1.1.1.1"], &trusted), "203.0.113.9", "a stranger's header");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1"], &[]), "10.0.0.1", "nobody is trusted");
        assert_eq!(seen("10.0.0.1", &["1.1.1.1"], &trusted), "1.1.1.1");
        assert_eq!(seen("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.9.9.9"], &trusted), "1.1.1.1", "two proxies, one forgery");
        assert_eq!(seen("10.0.0.1", &["6.6.6.6", "1.1.1.1:5000"], &trusted), "1.1.1.1", "two headers, and a port");
        assert_eq!(seen("10.0.0.1", &["6.6.6.6, unknown"], &trusted), "10.0.0.1", "what cannot be read ends the chain");
        assert_eq!(seen("::ffff:10.0.0.1", &["[fd00::1]:80, ::ffff:1.1.1.1"], &trusted), "1.1.1.1");
    }
}
