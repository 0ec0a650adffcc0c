//! The traces that tasks are part of (W3C Trace Context): kept as `traceparent`, and after a blank `tracestate` where there is one.

use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Where the parent's id stands in `00-<trace id>-<parent id>-<flags>`.
const PARENT: std::ops::Range<usize> = 36..52;
/// How long that is.
const TRACEPARENT: usize = 55;

/// A trace as it is kept, in its two headers.
pub(crate) fn parts(kept: &str) -> (&str, Option<&str>) {
    match kept.split_once(' ') {
        Some((traceparent, tracestate)) => (traceparent, Some(tracestate)),
        None => (kept, None),
    }
}

/// The trace as an attempt passes it on: in it, the attempt has an id of its own, which is the same however often it is pushed.
pub(crate) fn of_attempt(kept: &str, task_id: Uuid, claim: i64) -> Option<(String, Option<String>)> {
    let (traceparent, tracestate) = parts(kept);
    if traceparent.len() != TRACEPARENT || !traceparent.is_ascii() {
        return None;
    }
    let digest = Sha256::new().chain_update(task_id.as_bytes()).chain_update(claim.to_be_bytes()).finalize();
    let mut id: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    if id.bytes().all(|digit| digit == b'0') {
        // All zeros stands for none.
        id.replace_range(15.., "1");
    }
    let mut own = traceparent.to_owned();
    own.replace_range(PARENT, &id);
    Some((own, tracestate.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEPT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01 congo=t61rcWkgMzE";

    #[test]
    fn an_attempt_has_an_id_of_its_own_in_the_trace() {
        let of = |claim| of_attempt(KEPT, Uuid::nil(), claim).unwrap();
        let (first, state) = of(1);
        assert_eq!((first.len(), &first[..36], &first[52..]), (55, &KEPT[..36], "-01"));
        assert!(first[PARENT].bytes().all(|digit| b"0123456789abcdef".contains(&digit)));
        assert_eq!(state.as_deref(), Some("congo=t61rcWkgMzE"));
        assert_eq!(of(1), of(1));
        assert!(of(2).0 != first && first[PARENT] != KEPT[PARENT]);
        assert_eq!(of_attempt(&KEPT[..55], Uuid::nil(), 1).unwrap().1, None);
        assert_eq!(of_attempt("00-4bf9", Uuid::nil(), 1), None);
    }
}
