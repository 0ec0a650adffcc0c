//! How many requests a minute a client may make, by class: reads, writes, and wrong keys, of which an address may present far fewer.
//!
//! Headers as in the IETF draft "RateLimit header fields for HTTP": the policy, what is left of it, and when there is more.

mod buckets;
pub(crate) mod shared;

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::Request;
use axum::response::Response;
use http::{HeaderName, HeaderValue, StatusCode};
use taskmaster_openapi::{Code, Problem};
use taskmaster_service::stage::{Entry, Exit, Stage};
use uuid::Uuid;

use crate::app::App;
use crate::config::RateLimits;
use crate::edge::client::{Client, Principal};
use buckets::{Buckets, Verdict};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// What is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Reads,
    Writes,
    WrongKeys,
}

impl Class {
    const ALL: [Class; 3] = [Class::Reads, Class::Writes, Class::WrongKeys];

    fn of(request: &Request, client: &Client) -> Self {
        match client.is_guess {
            true => Class::WrongKeys,
            false if request.method().is_safe() => Class::Reads,
            false => Class::Writes,
        }
    }

    /// The name of its policy.
    fn name(self) -> &'static str {
        match self {
            Class::Reads => "reads",
            Class::Writes => "writes",
            Class::WrongKeys => "wrong-keys",
        }
    }
}

/// The rate limits of one gateway process.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// In the order of [`Class::ALL`]; none is no limit.
    quotas: [Option<Quota>; 3],
}

/// The quota of each client in one class.
#[derive(Debug)]
struct Quota {
    buckets: Buckets,
    /// What every answer says of it.
    policy: HeaderValue,
}

impl Quota {
    fn new(class: Class, per_minute: u32, now: Instant) -> Option<Self> {
        let policy = HeaderValue::try_from(policy(class, per_minute)).ok()?;
        Some(Self { buckets: Buckets::new(per_minute, now)?, policy })
    }
}

impl Limiter {
    pub(crate) fn new(limits: RateLimits) -> Self {
        let now = Instant::now();
        let per_minute = |class| match class {
            Class::Reads => limits.reads,
            Class::Writes => limits.writes,
            Class::WrongKeys => limits.wrong_keys,
        };
        Self { quotas: Class::ALL.map(|class| Quota::new(class, per_minute(class), now)) }
    }

    fn quota(&self, class: Class) -> Option<&Quota> {
        self.quotas[class as usize].as_ref()
    }

    fn of(&self, class: Class) -> Option<&Buckets> {
        self.quota(class).map(|quota| &quota.buckets)
    }

    /// Whether an address has presented as many wrong keys as it may.
    pub(crate) fn has_guessed_enough(&self, address: IpAddr) -> bool {
        let client = Principal::Address(address);
        self.of(Class::WrongKeys).is_some_and(|buckets| buckets.is_empty(client, Instant::now()))
    }

    /// Admits a delivery to an incoming webhook, which has the quota of a client that writes.
    ///
    /// # Errors
    /// `rate_limited`.
    pub(crate) fn admit_hook(&self, id: Uuid) -> Result<(), Problem> {
        let Some(buckets) = self.of(Class::Writes) else { return Ok(()) };
        let verdict = buckets.take(Principal::Hook(id), Instant::now());
        if verdict.allowed { Ok(()) } else { Err(refusal(Class::Writes, verdict)) }
    }

    /// Forgets whoever has a whole quota again, and gives back what other gateways are to be told.
    fn sweep(&self, now: Instant) -> Vec<(Class, Principal, u64)> {
        let classes = Class::ALL.into_iter().filter_map(|class| Some((class, self.of(class)?)));
        classes
            .flat_map(|(class, buckets)| buckets.sweep(now).into_iter().map(move |(client, n)| (class, client, n)))
            .collect()
    }

    /// Counts what another gateway has admitted.
    fn count(&self, class: Class, client: Principal, admitted: u64, now: Instant) {
        if let Some(buckets) = self.of(class) {
            buckets.count(client, admitted, now);
        }
    }
}

fn policy(class: Class, per_minute: u32) -> String {
    format!("\"{}\";q={per_minute};w=60", class.name())
}

/// How a quota stands.
fn standing(class: Class, verdict: Verdict) -> String {
    format!("\"{}\";r={};t={}", class.name(), verdict.remaining, verdict.reset_seconds)
}

fn refusal(class: Class, verdict: Verdict) -> Problem {
    let (per_minute, seconds) = (verdict.per_minute, verdict.reset_seconds);
    let detail = match class {
        Class::Reads => format!("At most {per_minute} reading requests a minute; try again in {seconds} s."),
        Class::Writes => format!("At most {per_minute} writing requests a minute; try again in {seconds} s."),
        Class::WrongKeys => {
            format!("At most {per_minute} wrong API keys a minute from one address; try again in {seconds} s.")
        }
    };
    Problem::new(Code::RateLimited, detail)
        .retry_after_seconds(seconds)
        .with_header(POLICY, policy(class, per_minute))
        .with_header(LIMIT, standing(class, verdict))
}

/// Refuses clients that ask too often, and tells all of them how their quota stands. Who has the answer already (304) pays nothing.
#[derive(Clone)]
pub(crate) struct Quotas(pub App);

impl Stage for Quotas {
    type Kept = Option<(Class, Principal, Verdict)>;

    fn enter(&self, request: Request) -> Entry<Self::Kept> {
        let Some(client) = request.extensions().get::<Client>() else { return Entry::Passed(request, None) };
        let (class, principal) = (Class::of(&request, client), client.principal);
        let Some(Quota { buckets, .. }) = self.0.limiter.quota(class) else { return Entry::Passed(request, None) };
        let verdict = buckets.take(principal, Instant::now());
        match verdict.allowed {
            true => Entry::Passed(request, Some((class, principal, verdict))),
            false => Entry::Refused(refusal(class, verdict)),
        }
    }

    fn leave(&self, counted: Self::Kept, mut response: Response) -> Exit {
        let Some((class, principal, mut verdict)) = counted else { return response.into() };
        let Some(Quota { buckets, policy }) = self.0.limiter.quota(class) else { return response.into() };
        if response.status() == StatusCode::NOT_MODIFIED {
            verdict = buckets.give_back(principal, Instant::now(), verdict);
        }
        let headers = response.headers_mut();
        headers.insert(POLICY, policy.clone());
        headers.extend(HeaderValue::try_from(standing(class, verdict)).map(|standing| (LIMIT, standing)));
        response.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header;

    #[test]
    fn a_refusal_says_by_headers_what_the_draft_wants() {
        let verdict = Verdict { allowed: false, per_minute: 100, remaining: 0, reset_seconds: 7 };
        let response = refusal(Class::Writes, verdict).written(Response::default());
        let header = |name: HeaderName| response.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header(POLICY), "\"writes\";q=100;w=60");
        assert_eq!(header(LIMIT), "\"writes\";r=0;t=7");
        assert_eq!(header(header::RETRY_AFTER), "7");
        assert_eq!(response.status(), 429);
    }

    #[test]
    fn classes_are_counted_apart_and_zero_is_no_limit() {
        let limiter = Limiter::new(RateLimits { reads: 1, writes: 1, wrong_keys: 0 });
        let now = Instant::now();
        for class in [Class::Reads, Class::Writes] {
            let taken = [(); 2].map(|()| limiter.of(class).unwrap().take(Principal::ConfiguredKey(0), now).allowed);
            assert_eq!(taken, [true, false], "{class:?}");
        }
        assert!(limiter.of(Class::WrongKeys).is_none() && !limiter.has_guessed_enough([127, 0, 0, 1].into()));
    }
}
