//! Places that are taken and given back: so many in all, and so many of each client, so that one cannot take them all.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places for clients of type `K`. Remembers nobody who has none.
#[derive(Debug)]
pub struct Places<K> {
    all_max: usize,
    each_max: usize,
    taken: Mutex<Taken<K>>,
}

#[derive(Debug)]
struct Taken<K> {
    all: usize,
    by_client: HashMap<K, usize>,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// All are taken.
    All,
    /// This client has as many as it may have.
    Client,
}

/// A place that was taken; free again when it is dropped.
#[derive(Debug)]
pub struct Place<K: Eq + Hash> {
    places: Arc<Places<K>>,
    client: K,
}

impl<K: Eq + Hash + Clone> Places<K> {
    /// So many places in all, and so many of them for each client.
    pub fn new(all_max: usize, each_max: usize) -> Arc<Self> {
        let taken = Taken { all: 0, by_client: HashMap::new() };
        Arc::new(Self { all_max, each_max, taken: Mutex::new(taken) })
    }

    /// Takes a place for a client.
    ///
    /// # Errors
    /// At once, when there is none.
    pub fn take(self: &Arc<Self>, client: K) -> Result<Place<K>, Full> {
        let mut taken = self.taken();
        if taken.all >= self.all_max {
            return Err(Full::All);
        }
        let own = taken.by_client.get(&client).copied().unwrap_or(0);
        if own >= self.each_max {
            return Err(Full::Client);
        }
        taken.all += 1;
        taken.by_client.insert(client.clone(), own + 1);
        Ok(Place { places: self.clone(), client })
    }
}

impl<K> Places<K> {
    fn taken(&self) -> MutexGuard<'_, Taken<K>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut taken = self.places.taken();
        taken.all -= 1;
        if let Some(own) = taken.by_client.get_mut(&self.client) {
            *own -= 1;
            if *own == 0 {
                taken.by_client.remove(&self.client);
            }
        }
    }
}

/// One customer's network: of IPv6 the /64, because whoever has one address there has all of them.
pub fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_has_its_share_and_all_have_theirs() {
        let places = Places::new(3, 2);
        let first = places.take("a").unwrap();
        let second = places.take("a").unwrap();
        assert_eq!(places.take("a").unwrap_err(), Full::Client);
        let third = places.take("b").unwrap();
        assert_eq!(places.take("c").unwrap_err(), Full::All);
        drop(first);
        let again = places.take("a").unwrap();
        drop((second, third, again));
        assert!(places.taken().by_client.is_empty() && places.taken().all == 0, "nobody is remembered");
    }

    #[test]
    fn one_ipv6_network_is_one_client() {
        let [a, b, other] =
            ["2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"].map(|a| a.parse::<IpAddr>().unwrap());
        assert_eq!(site(a), site(b));
        assert_ne!(site(a), site(other));
        let [v4, mapped] = ["192.0.2.1", "::ffff:192.0.2.1"].map(|a| a.parse::<IpAddr>().unwrap());
        assert_eq!((site(v4), site(mapped)), (v4, v4));
    }
}
