//! Hosts that fail again and again are not asked for a while (a circuit breaker for each): their tasks go back, and use no attempt.
//!
//! Closed → open, after so many failures in a row → after a pause one request is let through: success closes, failure opens for twice as
//! long. Takes `now` and returns values: no clock, no network. Only hosts that fail are remembered, and of them so many.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long a circuit is open at first; each further time is twice as long.
pub const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// … and this at most.
pub const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Hosts that are remembered; of more, the one is forgotten that failed longest ago.
pub const HOSTS_MAX: usize = 1_000;

/// The hosts that lately failed.
#[derive(Debug)]
pub struct Circuits {
    /// Failures in a row that open a circuit; none ever does when 0.
    failures_max: u32,
    hosts: HashMap<String, Circuit>,
}

#[derive(Debug, Clone, Copy)]
struct Circuit {
    failures: u32,
    last_failure: Instant,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until: Instant,
    pause: Duration,
    /// One was let through, and has not come back.
    probing: bool,
}

/// A circuit that is not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHost {
    pub host: String,
    pub failures: u32,
    pub wait: Duration,
}

impl Circuits {
    pub fn new(failures_max: u32) -> Self {
        Self { failures_max, hosts: HashMap::new() }
    }

    /// Whether a request to this host may be made now.
    ///
    /// # Errors
    /// How long it should wait.
    pub fn admit(&mut self, host: &str, now: Instant) -> Result<(), Duration> {
        let Some(open) = self.hosts.get_mut(host).and_then(|circuit| circuit.open.as_mut()) else { return Ok(()) };
        if now < open.until {
            return Err(open.until - now);
        }
        // Whoever is let through now has as long again to come back; then it is another's turn.
        open.probing = true;
        open.until = now + open.pause;
        Ok(())
    }

    /// A request to this host ended.
    pub fn note(&mut self, host: &str, failed: bool, now: Instant) {
        if self.failures_max == 0 {
            return;
        }
        if !failed {
            self.hosts.remove(host);
            return;
        }
        if !self.hosts.contains_key(host) && self.hosts.len() >= HOSTS_MAX {
            self.forget_one();
        }
        let fresh = Circuit { failures: 0, last_failure: now, open: None };
        let circuit = self.hosts.entry(host.to_owned()).or_insert(fresh);
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.last_failure = now;
        circuit.open = match circuit.open {
            None if circuit.failures < self.failures_max => None,
            None => Some(Open { until: now + PAUSE_FIRST, pause: PAUSE_FIRST, probing: false }),
            Some(Open { pause, probing: true, .. }) => {
                let pause = (pause * 2).min(PAUSE_MAX);
                Some(Open { until: now + pause, pause, probing: false })
            }
            // Requests that were on their way when it opened say nothing new.
            open => open,
        };
    }

    fn forget_one(&mut self) {
        let oldest = self.hosts.iter().min_by_key(|(_, circuit)| circuit.last_failure);
        if let Some(host) = oldest.map(|(host, _)| host.clone()) {
            self.hosts.remove(&host);
        }
    }

    /// The circuits that are open, at most so many, the longest first.
    pub fn open(&self, max: usize, now: Instant) -> Vec<OpenHost> {
        let of = |(host, circuit): (&String, &Circuit)| {
            let wait = circuit.open?.until.saturating_duration_since(now);
            Some(OpenHost { host: host.clone(), failures: circuit.failures, wait })
        };
        let mut open: Vec<OpenHost> = self.hosts.iter().filter_map(of).collect();
        open.sort_by(|a, b| b.failures.cmp(&a.failures).then_with(|| a.host.cmp(&b.host)));
        open.truncate(max);
        open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FAILURES: u32 = 3;

    fn opened(now: Instant) -> Circuits {
        let mut circuits = Circuits::new(FAILURES);
        (0..FAILURES).for_each(|_| circuits.note("h", true, now));
        circuits
    }

    #[test]
    fn failures_in_a_row_open_a_circuit_and_one_success_closes_it() {
        let now = Instant::now();
        let mut circuits = Circuits::new(FAILURES);
        for failed in [true, true, false, true, true] {
            circuits.note("h", failed, now);
            assert_eq!(circuits.admit("h", now), Ok(()));
        }
        circuits.note("h", true, now);
        assert_eq!(circuits.admit("h", now), Err(PAUSE_FIRST));
        assert_eq!(circuits.admit("other", now), Ok(()));
        assert_eq!(circuits.open(9, now), [OpenHost { host: "h".into(), failures: 3, wait: PAUSE_FIRST }]);
        // One that was on its way.
        circuits.note("h", false, now);
        assert_eq!((circuits.admit("h", now), circuits.open(9, now).len()), (Ok(()), 0));
    }

    #[test]
    fn after_the_pause_one_is_let_through_and_pauses_grow_up_to_a_minute() {
        let mut now = Instant::now();
        let mut circuits = opened(now);
        let mut pause = PAUSE_FIRST;
        for _ in 0..10 {
            now += pause - Duration::from_nanos(1);
            assert!(circuits.admit("h", now).is_err());
            now += Duration::from_nanos(1);
            assert_eq!(circuits.admit("h", now), Ok(()));
            assert_eq!(circuits.admit("h", now), Err(pause), "one at a time");
            circuits.note("h", true, now);
            pause = (pause * 2).min(PAUSE_MAX);
            assert_eq!(circuits.admit("h", now), Err(pause));
        }
        assert_eq!(pause, PAUSE_MAX);
    }

    #[test]
    fn one_that_was_let_through_and_never_came_back_keeps_nobody_out_for_ever() {
        let now = Instant::now();
        let mut circuits = opened(now);
        assert_eq!(circuits.admit("h", now + PAUSE_FIRST), Ok(()));
        assert_eq!(circuits.admit("h", now + PAUSE_FIRST * 2), Ok(()));
    }

    #[test]
    fn memory_is_bounded_and_0_is_never() {
        let mut now = Instant::now();
        let mut circuits = Circuits::new(1);
        for number in 0..HOSTS_MAX + 5 {
            now += Duration::from_millis(1);
            circuits.note(&number.to_string(), true, now);
        }
        assert_eq!(circuits.hosts.len(), HOSTS_MAX);
        assert_eq!(circuits.admit("0", now), Ok(()));
        assert!(circuits.admit(&(HOSTS_MAX + 4).to_string(), now).is_err());
        assert_eq!(circuits.open(100, now).len(), 100);
        let mut never = Circuits::new(0);
        (0..1_000).for_each(|_| never.note("h", true, now));
        assert_eq!((never.admit("h", now), never.hosts.len()), (Ok(()), 0));
    }

    proptest! {
        #[test]
        fn nobody_is_kept_out_for_longer_than_a_minute_nor_without_failures_in_a_row(
            events in prop::collection::vec((0..3u8, 0..90_000u64), 0..200),
        ) {
            let mut now = Instant::now();
            let mut circuits = Circuits::new(FAILURES);
            let mut in_a_row = 0;
            let mut let_through_until = None;
            for (event, ms) in events {
                match event {
                    0 => {
                        circuits.note("h", true, now);
                        in_a_row += 1;
                        let_through_until = None;
                    }
                    1 => {
                        circuits.note("h", false, now);
                        in_a_row = 0;
                        let_through_until = None;
                    }
                    _ => now += Duration::from_millis(ms),
                }
                match circuits.admit("h", now) {
                    Err(wait) => {
                        prop_assert!(in_a_row >= FAILURES);
                        prop_assert!(wait > Duration::ZERO && wait <= PAUSE_MAX);
                    }
                    Ok(()) if in_a_row >= FAILURES => {
                        // While it is open, one a pause.
                        prop_assert!(let_through_until.is_none_or(|until| now >= until));
                        let_through_until = circuits.admit("h", now).err().map(|wait| now + wait);
                        prop_assert!(let_through_until.is_some());
                    }
                    Ok(()) => {}
                }
            }
        }
    }
}
