//! Who may speak: the join token lets a worker in; from then on it has a token of its own, which speaks for it alone.
//!
//! A worker's token is an HMAC (RFC 2104) of its id under the join token: every coordinator can check it, and none stores it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use http::HeaderMap;
use sha2::Sha256;
use taskmaster_openapi::Problem;
use taskmaster_service::Secret;
use taskmaster_service::auth::{bearer, same_secret, unauthorized};

/// Makes and checks tokens.
#[derive(Debug, Clone)]
pub struct Tokens {
    join: Secret,
}

impl Tokens {
    pub fn new(join: Secret) -> Self {
        Self { join }
    }

    /// The token of a worker.
    pub fn of_worker(&self, worker_id: &str) -> String {
        // HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(self.join.expose().as_bytes()) else { return String::new() };
        mac.update(b"taskmaster worker ");
        mac.update(worker_id.as_bytes());
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }

    /// Lets the worker itself through.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn check_worker(&self, headers: &HeaderMap, worker_id: &str) -> Result<(), Problem> {
        let given = bearer(headers).unwrap_or_default();
        match same_secret(given, &self.of_worker(worker_id)) {
            true => Ok(()),
            false => {
                Err(unauthorized("This needs the worker's own token, which the answer to a heartbeat has. Join again."))
            }
        }
    }

    /// Lets the worker itself through, and whoever may join.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn check_join(&self, headers: &HeaderMap, worker_id: &str) -> Result<(), Problem> {
        match self.is_join(headers) {
            true => Ok(()),
            false => self.check_worker(headers, worker_id).map_err(|_| {
                unauthorized("The join token is wrong: it must be the one that the coordinator was started with.")
            }),
        }
    }

    /// Lets holders of the join token through.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn check_reader(&self, headers: &HeaderMap) -> Result<(), Problem> {
        match self.is_join(headers) {
            true => Ok(()),
            false => Err(unauthorized("This needs the join token. The gateway's GET /v1/workers answers the same.")),
        }
    }

    fn is_join(&self, headers: &HeaderMap) -> bool {
        same_secret(bearer(headers).unwrap_or_default(), self.join.expose())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
        headers
    }

    #[test]
    fn a_workers_token_speaks_for_that_worker_alone() {
        let tokens = Tokens::new(Secret::new("a join token of some length"));
        let mine = with(&tokens.of_worker("one"));
        assert!(tokens.check_worker(&mine, "one").is_ok());
        assert!(tokens.check_worker(&mine, "two").is_err());
        assert!(tokens.check_reader(&mine).is_err());
    }

    #[test]
    fn the_join_token_joins_and_reports_for_nobody() {
        let tokens = Tokens::new(Secret::new("a join token of some length"));
        let join = with("a join token of some length");
        assert!(tokens.check_join(&join, "one").is_ok() && tokens.check_reader(&join).is_ok());
        assert!(tokens.check_worker(&join, "one").is_err());
        assert!(tokens.check_join(&with("wrong"), "one").is_err());
        assert!(tokens.check_join(&HeaderMap::new(), "one").is_err());
    }
}
