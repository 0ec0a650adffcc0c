//! Answers that a replica gave say how old they may be: `Age` (RFC 9111, 5.1).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;
use taskmaster_store::Seen;

/// An answer of 200; `Age` is there only when it did not come from the primary. Parts of seconds count as whole ones.
pub(crate) fn json<T: Serialize>(seen: Seen<T>) -> Response {
    let mut answer = axum::Json(seen.value).into_response();
    if let Some(age) = seen.age {
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        answer.headers_mut().insert(header::AGE, HeaderValue::from(seconds));
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_what_a_replica_said_has_an_age_and_it_is_never_too_small() {
        let age = |age| {
            let answer = json(Seen { value: "figures", age });
            answer.headers().get("age").map(|value| value.to_str().unwrap().to_owned())
        };
        assert_eq!(age(None), None);
        assert_eq!(age(Some(Duration::ZERO)).as_deref(), Some("0"));
        assert_eq!(age(Some(Duration::from_millis(1))).as_deref(), Some("1"));
        assert_eq!(age(Some(Duration::from_millis(2_001))).as_deref(), Some("3"));
    }
}
