//! API keys of the configuration, and the refusal of whoever has none that is right.

use axum::extract::Request;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use taskmaster_openapi::Problem;
use taskmaster_service::Secret;

use crate::edge::client::Client;

/// The place of a presented key among the configured ones. Takes the same time whichever it is, and wherever a wrong one differs.
pub(crate) fn find(presented: &str, keys: &[Secret]) -> Option<usize> {
    let mut place = u64::MAX;
    for (i, key) in keys.iter().enumerate() {
        // Slices of different lengths are unequal at once: lengths are no secret.
        let same: Choice = presented.as_bytes().ct_eq(key.expose().as_bytes());
        place.conditional_assign(&(i as u64), same);
    }
    usize::try_from(place).ok().filter(|place| *place < keys.len())
}

/// Refuses requests whose key is wrong, and those without one where keys are wanted.
///
/// # Errors
/// As [`Client::allowed`] says.
pub(crate) fn require(request: &Request) -> Result<(), Problem> {
    match request.extensions().get::<Client>().map(|client| &client.allowed) {
        Some(Ok(_)) => Ok(()),
        Some(Err(problem)) => Err(problem.clone()),
        None => Err(Problem::internal()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_whole_or_not_at_all() {
        let keys = [Secret::new("first-key"), Secret::new("second-key")];
        assert_eq!(find("first-key", &keys), Some(0));
        assert_eq!(find("second-key", &keys), Some(1));
        for wrong in ["first-ke", "first-keyy", "", "x,first-key", "First-key"] {
            assert_eq!(find(wrong, &keys), None, "{wrong}");
        }
    }
}
