//! How many requests a minute a client may make. One bucket a client (GCRA): a whole minute's worth at once, then a steady trickle.
//!
//! Headers as in the IETF draft "RateLimit header fields for HTTP": the policy, what is left of it, and when there is more.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use http::{HeaderName, HeaderValue};
use taskmaster_openapi::{Code, Problem};
use taskmaster_service::Shutdown;

use crate::app::App;
use crate::edge::client::{Client, Principal};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
/// How often clients that have their whole quota again are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Clients remembered at once. Beyond, new ones share one bucket until others have been forgotten.
const CLIENTS_MAX: usize = 100_000;

type Buckets = RateLimiter<Bucket, DashMapStateStore<Bucket>, DefaultClock, StateInformationMiddleware>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Bucket {
    Of(Principal),
    Shared,
}

/// The rate limit of one gateway process.
#[derive(Debug)]
pub(crate) struct Limiter {
    per_minute: NonZeroU32,
    buckets: Buckets,
    crowded: AtomicBool,
}

/// Whether a request may be made, and how the client's quota stands after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Verdict {
    allowed: bool,
    per_minute: u32,
    remaining: u32,
    /// When there is more: after a refusal the time to the next request, else the time to the whole quota. Whole seconds, rounded up.
    reset_seconds: u64,
}

impl Limiter {
    /// A limiter of so many requests a minute; `None` for 0, which is no limit.
    pub(crate) fn new(per_minute: u32) -> Option<Self> {
        let per_minute = NonZeroU32::new(per_minute)?;
        let buckets = RateLimiter::dashmap(Quota::per_minute(per_minute)).with_middleware();
        Some(Self { per_minute, buckets, crowded: AtomicBool::new(false) })
    }

    fn check(&self, client: Principal) -> Verdict {
        let bucket = match self.crowded.load(Ordering::Relaxed) {
            true if !client.is_key() => Bucket::Shared,
            _ => Bucket::Of(client),
        };
        let per_minute = self.per_minute.get();
        match self.buckets.check_key(&bucket) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity();
                let missing = u64::from(per_minute.saturating_sub(remaining));
                let reset_seconds = (missing * 60).div_ceil(u64::from(per_minute));
                Verdict { allowed: true, per_minute, remaining, reset_seconds }
            }
            Err(until) => {
                let wait = until.wait_time_from(DefaultClock::default().now());
                Verdict { allowed: false, per_minute, remaining: 0, reset_seconds: wait.as_secs() + 1 }
            }
        }
    }

    /// Forgets clients that have their whole quota again, until the stop is requested.
    pub(crate) async fn sweep(&self, shutdown: &Shutdown) {
        while shutdown.or_stop(tokio::time::sleep(SWEEP_INTERVAL)).await.is_some() {
            self.buckets.retain_recent();
            self.crowded.store(self.buckets.len() > CLIENTS_MAX, Ordering::Relaxed);
        }
    }
}

impl Verdict {
    fn add_headers(&self, response: &mut Response) {
        let policy = format!("\"default\";q={};w=60", self.per_minute);
        let limit = format!("\"default\";r={};t={}", self.remaining, self.reset_seconds);
        for (name, value) in [(POLICY, policy), (LIMIT, limit)] {
            if let Ok(value) = HeaderValue::try_from(value) {
                response.headers_mut().insert(name, value);
            }
        }
    }

    fn refusal(&self) -> Problem {
        let detail = format!("At most {} requests a minute; try again in {} s.", self.per_minute, self.reset_seconds);
        Problem::new(Code::RateLimited, detail).retry_after_seconds(self.reset_seconds)
    }
}

/// Refuses clients that ask too often, and tells all of them how their quota stands.
pub(crate) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let client = request.extensions().get::<Client>().map(|client| client.principal);
    let (Some(limiter), Some(client)) = (&app.limiter, client) else { return next.run(request).await };
    let verdict = limiter.check(client);
    let mut response = match verdict.allowed {
        true => next.run(request).await,
        false => verdict.refusal().into_response(),
    };
    verdict.add_headers(&mut response);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;
    use std::net::{IpAddr, Ipv4Addr};

    const CLIENT: Principal = Principal::Address(IpAddr::V4(Ipv4Addr::LOCALHOST));

    #[test]
    fn a_client_has_a_minutes_worth_and_is_then_told_when_to_come_back() {
        let limiter = Limiter::new(2).unwrap();
        let first = limiter.check(CLIENT);
        assert_eq!((first.allowed, first.remaining, first.reset_seconds), (true, 1, 30));
        let second = limiter.check(CLIENT);
        assert_eq!((second.allowed, second.remaining, second.reset_seconds), (true, 0, 60));
        let third = limiter.check(CLIENT);
        assert!(!third.allowed && third.remaining == 0 && (1..=31).contains(&third.reset_seconds), "{third:?}");
        assert!(limiter.check(Principal::ConfiguredKey(0)).allowed, "another client has its own quota");
    }

    #[test]
    fn a_refusal_says_by_headers_what_the_draft_wants() {
        let verdict = Verdict { allowed: false, per_minute: 100, remaining: 0, reset_seconds: 7 };
        let mut response = verdict.refusal().into_response();
        verdict.add_headers(&mut response);
        let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header(POLICY), "\"default\";q=100;w=60");
        assert_eq!(header(LIMIT), "\"default\";r=0;t=7");
        assert_eq!(header(header::RETRY_AFTER), "7");
        assert_eq!(response.status(), 429);
    }

    #[test]
    fn strangers_beyond_the_bound_share_one_bucket() {
        let limiter = Limiter::new(1).unwrap();
        limiter.crowded.store(true, Ordering::Relaxed);
        let address = |last| Principal::Address(IpAddr::V4(Ipv4Addr::new(192, 0, 2, last)));
        assert!(limiter.check(address(1)).allowed);
        assert!(!limiter.check(address(2)).allowed);
        assert!(limiter.check(Principal::ConfiguredKey(0)).allowed, "keys are few and keep their own");
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Limiter::new(0).is_none());
    }
}
