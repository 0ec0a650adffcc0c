//! Quotas of many clients: for each a bucket that holds a minute's worth and fills up steadily (GCRA, ITU-T I.371).
//!
//! Of a bucket only the time is kept at which it will be full again. Full ones are forgotten. Pure: every call is told the time.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::edge::client::Principal;

const NANOS_PER_SECOND: u64 = 1_000_000_000;
const MINUTE_NANOS: u64 = 60 * NANOS_PER_SECOND;
/// Locks, so that requests seldom wait for one another.
const SHARDS: usize = 16;
/// Addresses remembered at once, a megabyte or ten. Beyond, new ones share one bucket until others have been forgotten. API keys
/// are as many as somebody made, and keep their own.
const ADDRESSES_MAX: usize = 100_000;
/// How often at most a shard is searched for full buckets because it has no room.
const MAKE_ROOM_EVERY_NANOS: u64 = NANOS_PER_SECOND / 10;
/// Clients of which other gateways are told at once.
const TOLD_MAX: usize = 500;

/// Whether a request may be made, and how the client's quota stands after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub allowed: bool,
    pub per_minute: u32,
    pub remaining: u32,
    /// When there is more: after a refusal the time to the next request, else the time to the whole quota. Whole seconds, rounded up.
    pub reset_seconds: u64,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// When it will be full again, in nanoseconds since the start.
    full_at: u64,
    /// Requests that were admitted here, since it was full or since others are told of it.
    admitted: u64,
    /// Of these, those that in the end cost nothing, and that the next ones make up for.
    given_back: u64,
    /// Other gateways are told of it, until it is full again.
    told: bool,
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<Principal, Bucket>,
    make_room_at: u64,
}

/// The buckets of one class of requests.
#[derive(Debug)]
pub(super) struct Buckets {
    per_minute: NonZeroU32,
    /// What one request takes, in nanoseconds of filling.
    period: u64,
    began: Instant,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    /// Of addresses for which there is no room.
    crowd: Mutex<Bucket>,
}

impl Buckets {
    /// Buckets of so many requests a minute; `None` for 0, which is no limit.
    pub(super) fn new(per_minute: u32, now: Instant) -> Option<Self> {
        let per_minute = NonZeroU32::new(per_minute)?;
        let period = (MINUTE_NANOS / u64::from(per_minute.get())).max(1);
        let (hasher, shards) = (RandomState::new(), std::array::from_fn(|_| Mutex::default()));
        Some(Self { per_minute, period, began: now, hasher, shards, crowd: Mutex::default() })
    }

    /// What a full bucket holds, in nanoseconds of filling.
    fn whole(&self) -> u64 {
        self.period * u64::from(self.per_minute.get())
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_nanos()).unwrap_or(u64::MAX / 4)
    }

    fn shard(&self, client: Principal) -> MutexGuard<'_, Shard> {
        locked(&self.shards[self.hasher.hash_one(client) as usize % SHARDS])
    }

    /// Does something with a client's bucket.
    fn with<T>(&self, client: Principal, at: u64, act: impl FnOnce(&mut Bucket) -> T) -> T {
        let mut shard = self.shard(client);
        if let Some(bucket) = shard.buckets.get_mut(&client) {
            return act(bucket);
        }
        let is_full = |shard: &Shard| !client.is_key() && shard.buckets.len() >= ADDRESSES_MAX / SHARDS;
        if is_full(&shard) && shard.make_room_at <= at {
            shard.make_room_at = at + MAKE_ROOM_EVERY_NANOS;
            shard.buckets.retain(|_, bucket| bucket.full_at > at);
        }
        match is_full(&shard) {
            true => act(&mut locked(&self.crowd)),
            false => act(shard.buckets.entry(client).or_default()),
        }
    }

    /// Takes one request out of a client's bucket, if it is in there.
    pub(super) fn take(&self, client: Principal, now: Instant) -> Verdict {
        let (at, whole) = (self.nanos(now), self.whole());
        let per_minute = self.per_minute.get();
        self.with(client, at, |bucket| {
            let missing = bucket.full_at.max(at) + self.period - at;
            if missing > whole {
                let reset_seconds = (missing - whole).div_ceil(NANOS_PER_SECOND);
                return Verdict { allowed: false, per_minute, remaining: 0, reset_seconds };
            }
            bucket.full_at = at + missing;
            match bucket.given_back {
                0 => bucket.admitted += 1,
                _ => bucket.given_back -= 1,
            }
            let remaining = u32::try_from((whole - missing) / self.period).unwrap_or(per_minute);
            Verdict { allowed: true, per_minute, remaining, reset_seconds: missing.div_ceil(NANOS_PER_SECOND) }
        })
    }

    /// A request that was taken out has cost nothing.
    pub(super) fn give_back(&self, client: Principal, now: Instant, verdict: Verdict) -> Verdict {
        self.with(client, self.nanos(now), |bucket| {
            bucket.full_at = bucket.full_at.saturating_sub(self.period);
            bucket.given_back += 1;
        });
        let remaining = (verdict.remaining + 1).min(verdict.per_minute);
        Verdict { remaining, ..verdict }
    }

    /// Whether a client that has a bucket of its own has nothing left in it.
    pub(super) fn is_empty(&self, client: Principal, now: Instant) -> bool {
        let at = self.nanos(now);
        let lacks = |bucket: &Bucket| bucket.full_at.max(at) + self.period - at > self.whole();
        self.shard(client).buckets.get(&client).is_some_and(lacks)
    }

    /// Counts what another gateway has admitted. What is not in the bucket any more is owed, up to a whole quota: otherwise each of
    /// several gateways would give an empty bucket's client all that trickles in.
    pub(super) fn count(&self, client: Principal, admitted: u64, now: Instant) {
        let at = self.nanos(now);
        self.with(client, at, |bucket| {
            let missing = (bucket.full_at.max(at) - at).saturating_add(admitted.saturating_mul(self.period));
            bucket.full_at = at + missing.min(2 * self.whole());
        });
    }

    /// Forgets full buckets. Gives back what other gateways are to be told: how much was admitted, in all, of clients that have used
    /// more than a tenth of their quota, until their buckets are full again.
    pub(super) fn sweep(&self, now: Instant) -> Vec<(Principal, u64)> {
        let (at, mut told) = (self.nanos(now), Vec::new());
        let mut news = Vec::new();
        for shard in &self.shards {
            let mut shard = locked(shard);
            shard.buckets.retain(|_, bucket| bucket.full_at > at);
            for (client, bucket) in &shard.buckets {
                if bucket.told {
                    told.push((*client, bucket.admitted));
                } else if bucket.full_at - at > self.whole() / 10 {
                    news.push(*client);
                }
            }
        }
        for client in news.into_iter().take(TOLD_MAX.saturating_sub(told.len())) {
            self.with(client, at, |bucket| {
                // What was admitted long ago is in nobody's bucket any more.
                bucket.admitted = bucket.admitted.min((bucket.full_at.max(at) - at) / self.period);
                bucket.told = true;
                told.push((client, bucket.admitted));
            });
        }
        told
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| locked(shard).buckets.len()).sum()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    const KEY: Principal = Principal::ConfiguredKey(0);

    fn address(number: u32) -> Principal {
        Principal::Address(IpAddr::V4(Ipv4Addr::from_bits(number)))
    }

    fn buckets(per_minute: u32) -> (Buckets, impl Fn(f64) -> Instant) {
        let began = Instant::now();
        (Buckets::new(per_minute, began).unwrap(), move |seconds| began + Duration::from_secs_f64(seconds))
    }

    #[test]
    fn a_client_has_a_minutes_worth_at_once_and_is_then_told_when_to_come_back() {
        let (buckets, at) = buckets(2);
        for (seconds, allowed, remaining, reset_seconds) in [
            (0.0, true, 1, 30),
            (0.0, true, 0, 60),
            (0.0, false, 0, 30),
            (29.5, false, 0, 1),
            (30.0, true, 0, 60),
            (95.0, true, 1, 30),
        ] {
            let expected = Verdict { allowed, per_minute: 2, remaining, reset_seconds };
            assert_eq!(buckets.take(KEY, at(seconds)), expected, "{seconds}");
        }
        assert!(buckets.take(address(1), at(0.0)).allowed, "another client has its own");
    }

    #[test]
    fn what_cost_nothing_is_given_back() {
        let (buckets, at) = buckets(1);
        let verdict = buckets.take(KEY, at(0.0));
        assert!(verdict.allowed && buckets.is_empty(KEY, at(0.0)));
        assert_eq!(buckets.give_back(KEY, at(0.0), verdict).remaining, 1);
        assert!(!buckets.is_empty(KEY, at(0.0)) && buckets.take(KEY, at(0.0)).allowed);
        assert!(!buckets.take(KEY, at(0.0)).allowed);
    }

    #[test]
    fn a_million_addresses_take_bounded_memory_and_no_quota_of_a_key() {
        let (buckets, at) = buckets(10);
        assert!(buckets.take(KEY, at(0.0)).allowed);
        let admitted = (0..1_000_000).filter(|number| buckets.take(address(*number), at(0.0)).allowed).count();
        assert!(buckets.len() <= ADDRESSES_MAX + 1 && admitted <= ADDRESSES_MAX + 10, "{} {admitted}", buckets.len());
        assert_eq!(buckets.take(KEY, at(0.0)).remaining, 8, "keys keep their own");
        assert!(!buckets.take(address(1_000_001), at(0.0)).allowed, "strangers share one bucket");
        assert!(buckets.take(address(1_000_001), at(60.0)).allowed, "until others are forgotten");
        buckets.sweep(at(200.0));
        assert_eq!(buckets.len(), 0);
    }

    #[test]
    fn one_that_floods_leaves_the_others_their_quota() {
        let (buckets, at) = buckets(600);
        let flooded = (0..100_000).filter(|_| buckets.take(address(1), at(0.0)).allowed).count();
        assert_eq!(flooded, 600);
        // Ten a second is what everybody may have for ever.
        assert!((0..600).all(|i| buckets.take(KEY, at(f64::from(i) / 10.0)).allowed));
    }

    #[test]
    fn others_are_told_of_whoever_has_used_a_tenth_and_of_nobody_else() {
        let (buckets, at) = buckets(100);
        let take = |client, count, seconds| (0..count).filter(|_| buckets.take(client, at(seconds)).allowed).count();
        assert_eq!((take(KEY, 10, 0.0), take(address(1), 50, 0.0)), (10, 50));
        assert_eq!(buckets.sweep(at(0.0)), [(address(1), 50)]);
        take(KEY, 1, 0.0);
        take(address(1), 1, 0.0);
        let mut told = buckets.sweep(at(0.0));
        told.sort_by_key(|(_, admitted)| *admitted);
        assert_eq!(told, [(KEY, 11), (address(1), 51)]);
        // As long as there is something to tell, the count only rises; then the client is forgotten.
        assert_eq!(buckets.sweep(at(10.0)), [(address(1), 51)]);
        assert!(buckets.sweep(at(60.0)).is_empty());
        // One that goes on slowly for long is told of by what is missing, not by all that ever was.
        (0..1000).for_each(|i| assert_eq!(take(KEY, 1, 100.0 + f64::from(i) * 0.599), 1));
        take(KEY, 15, 699.0);
        let told = buckets.sweep(at(699.0));
        assert!(told.len() == 1 && (11..=20).contains(&told[0].1), "{told:?}");
    }

    #[test]
    fn what_others_have_admitted_counts_and_is_owed_up_to_a_whole_quota() {
        let (buckets, at) = buckets(100);
        buckets.count(KEY, 40, at(0.0));
        assert_eq!(buckets.take(KEY, at(0.0)).remaining, 59);
        buckets.count(KEY, u64::MAX, at(0.0));
        let refused = buckets.take(KEY, at(0.0));
        assert!(!refused.allowed && refused.reset_seconds == 61, "{refused:?}");
        assert!(!buckets.take(KEY, at(60.0)).allowed && buckets.take(KEY, at(60.6)).allowed);
        assert_eq!(buckets.sweep(at(60.6)), [(KEY, 2)], "each tells of its own only");
    }

    #[test]
    fn zero_is_no_limit() {
        assert!(Buckets::new(0, Instant::now()).is_none());
    }
}
