//! Several gateways share a limit: once a second each tells the others how much it has admitted of clients that have used more than a
//! tenth of their quota, and takes what they tell out of its own buckets. What a client is admitted for elsewhere within that second
//! it has been given too much.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use taskmaster_service::Shutdown;
use taskmaster_store::keys::KeyId;
use taskmaster_store::quotas::QuotaUse;
use taskmaster_store::{Store, StoreError};
use uuid::Uuid;

use super::{Class, Limiter};
use crate::config::Settings;
use crate::edge::client::Principal;

const EXCHANGE_EVERY: Duration = Duration::from_secs(1);
/// A database that does not answer by then is not waited for: this gateway then counts alone.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(2);

/// What was admitted, by the names of clients.
type Counts = HashMap<String, u64>;

/// Exchanges counts until the stop is requested.
pub(crate) async fn run(limiter: &Limiter, settings: &Settings, store: &Store, shutdown: &Shutdown) {
    let mut exchange = Exchange { gateway: Uuid::now_v7(), names: Names::new(settings), has_told: false, heard: None };
    while shutdown.or_stop(tokio::time::sleep(EXCHANGE_EVERY)).await.is_some() {
        let exchanged = tokio::time::timeout(EXCHANGE_TIMEOUT, exchange.once(limiter, store));
        match shutdown.or_stop(exchanged).await {
            Some(Ok(Err(error))) => tracing::debug!(%error, "quotas could not be exchanged"),
            Some(_) => {}
            None => break,
        }
    }
    if exchange.has_told {
        // What is left behind is removed by others.
        let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, store.tell_quota_use(exchange.gateway, &[])).await;
    }
}

struct Exchange {
    gateway: Uuid,
    names: Names,
    /// The others have been told something, and not yet that there is nothing more to tell.
    has_told: bool,
    /// What each of the others has told last; `None` before the first time.
    heard: Option<HashMap<Uuid, Counts>>,
}

impl Exchange {
    async fn once(&mut self, limiter: &Limiter, store: &Store) -> Result<(), StoreError> {
        let admitted = limiter.sweep(Instant::now()).into_iter().filter(|(.., count)| *count > 0);
        let tell = |(class, client, count)| (self.names.of(class, client), i64::try_from(count).unwrap_or(i64::MAX));
        let admitted: Vec<(String, i64)> = admitted.map(tell).collect();
        if self.has_told || !admitted.is_empty() {
            store.tell_quota_use(self.gateway, &admitted).await?;
            self.has_told = !admitted.is_empty();
        }
        let others = store.quota_use_of_others(self.gateway).await?;
        for (name, admitted) in self.news(others) {
            if let Some((class, client)) = self.names.parse(&name) {
                limiter.count(class, client, admitted, Instant::now());
            }
        }
        Ok(())
    }

    /// What the others have admitted since they told last. What they had told before this gateway began is not known to be recent.
    fn news(&mut self, others: Vec<QuotaUse>) -> Vec<(String, u64)> {
        let now: HashMap<Uuid, Counts> = others
            .into_iter()
            .map(|told| {
                let counts = told.admitted.into_iter().map(|(name, n)| (name, u64::try_from(n).unwrap_or_default()));
                (told.gateway, counts.collect())
            })
            .collect();
        let Some(before) = self.heard.replace(now) else { return Vec::new() };
        let mut news = Vec::new();
        for (gateway, counts) in self.heard.iter().flatten() {
            for (name, n) in counts {
                let known = before.get(gateway).and_then(|counts| counts.get(name)).copied().unwrap_or_default();
                // A count that has become smaller began anew.
                let more = n.checked_sub(known).unwrap_or(*n);
                if more > 0 {
                    news.push((name.clone(), more));
                }
            }
        }
        news
    }
}

/// Names of classes and clients that every gateway understands. Configured keys go by their digests: their places may differ.
struct Names {
    digests: Vec<String>,
}

impl Names {
    fn new(settings: &Settings) -> Self {
        Self { digests: (0..settings.api_keys.len()).map(|place| settings.key_digest(place)).collect() }
    }

    fn of(&self, class: Class, client: Principal) -> String {
        let class = class.name();
        match client {
            Principal::Key(id) => format!("{class} key {id}"),
            Principal::ConfiguredKey(place) => {
                format!("{class} digest {}", self.digests.get(place).map_or("", String::as_str))
            }
            Principal::Hook(id) => format!("{class} hook {id}"),
            Principal::Address(address) => format!("{class} address {address}"),
        }
    }

    /// `None` for what another version tells, and for keys that this gateway does not have.
    fn parse(&self, name: &str) -> Option<(Class, Principal)> {
        let mut words = name.split(' ');
        let (class, kind, value) = (words.next()?, words.next()?, words.next()?);
        let class = Class::ALL.into_iter().find(|known| known.name() == class)?;
        let client = match kind {
            "key" => Principal::Key(KeyId::parse(value)?),
            "digest" => Principal::ConfiguredKey(self.digests.iter().position(|digest| digest == value)?),
            "hook" => Principal::Hook(value.parse().ok()?),
            "address" => Principal::Address(value.parse::<IpAddr>().ok()?),
            _ => return None,
        };
        Some((class, client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Exchange {
        let names = Names { digests: vec!["d0".into(), "d1".into()] };
        Exchange { gateway: Uuid::nil(), names, has_told: false, heard: None }
    }

    fn told(gateway: u128, counts: &[(&str, i64)]) -> QuotaUse {
        let admitted = counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
        QuotaUse { gateway: Uuid::from_u128(gateway), admitted }
    }

    #[test]
    fn names_are_read_back() {
        let names = exchange().names;
        let clients = [
            Principal::Key(KeyId::random()),
            Principal::ConfiguredKey(1),
            Principal::Hook(Uuid::now_v7()),
            Principal::Address("192.0.2.7".parse().unwrap()),
            Principal::Address("2001:db8::".parse().unwrap()),
        ];
        for class in Class::ALL {
            for client in clients {
                assert_eq!(names.parse(&names.of(class, client)), Some((class, client)));
            }
        }
        for other in ["", "reads", "reads digest d7", "reads key x", "walks address 192.0.2.7", "reads sheep 1"] {
            assert_eq!(names.parse(other), None, "{other}");
        }
    }

    #[test]
    fn only_what_is_new_is_counted() {
        let mut exchange = exchange();
        assert_eq!(exchange.news(vec![told(1, &[("a", 50)])]), [], "nobody knows how long ago that was");
        for (counts, expected) in [
            (vec![told(1, &[("a", 50)])], &[][..]),
            (vec![told(1, &[("a", 57)])], &[("a", 7)]),
            (vec![told(1, &[("a", 57), ("b", 20)])], &[("b", 20)]),
            (vec![told(1, &[("a", 12), ("b", 20)])], &[("a", 12)]),
            (vec![told(2, &[("a", 30)])], &[("a", 30)]),
            (vec![], &[]),
        ] {
            let expected: Vec<(String, u64)> = expected.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect();
            assert_eq!(exchange.news(counts), expected);
        }
    }
}
