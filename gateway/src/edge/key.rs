//! API keys: whether a request carries one of them.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};
use taskmaster_service::{Secret, auth};

use crate::app::App;
use crate::edge::client::Client;

/// The place of the request's key among the configured ones. Takes the same time whichever it is, and wherever a wrong one differs.
pub(crate) fn find(headers: &HeaderMap, keys: &[Secret]) -> Option<usize> {
    let given = auth::bearer(headers)?.as_bytes();
    let mut place = u64::MAX;
    for (i, key) in keys.iter().enumerate() {
        // Slices of different lengths are unequal at once: lengths are no secret.
        let same: Choice = given.ct_eq(key.expose().as_bytes());
        place.conditional_assign(&(i as u64), same);
    }
    usize::try_from(place).ok().filter(|place| *place < keys.len())
}

/// Refuses requests without a valid key, where there are keys.
pub(crate) async fn require(State(app): State<App>, request: Request, next: Next) -> Response {
    let has_key = matches!(request.extensions().get::<Client>(), Some(Client::ApiKey(_)));
    if has_key || app.settings.api_keys.is_empty() {
        return next.run(request).await;
    }
    let detail = match auth::bearer(request.headers()) {
        Some(_) => "This API key is not known here.",
        None => "This gateway wants an API key: `Authorization: Bearer <key>`.",
    };
    auth::unauthorized(detail).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderValue, header};

    #[test]
    fn a_key_is_found_whole_or_not_at_all() {
        let keys = [Secret::new("first-key"), Secret::new("second-key")];
        let found = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            find(&headers, &keys)
        };
        assert_eq!(found("Bearer first-key"), Some(0));
        assert_eq!(found("bearer second-key"), Some(1));
        for wrong in
            ["Bearer first-ke", "Bearer first-keyy", "Bearer ", "Basic first-key", "first-key", "Bearer x,first-key"]
        {
            assert_eq!(found(wrong), None, "{wrong}");
        }
        assert_eq!(find(&HeaderMap::new(), &keys), None);
    }
}
