//! What can be set of a queue: every field that is wrong is named.

use taskmaster_openapi::queue::{QueueSettings, Rate};
use taskmaster_openapi::{Problem, limits};

use super::{Errors, retry, whole};

/// Checks what is to be set.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub(crate) fn settings(settings: QueueSettings) -> Result<QueueSettings, Problem> {
    let mut errors = Errors::default();
    let numbers = [
        ("/concurrency", settings.concurrency, limits::CONCURRENCY_MAX),
        ("/concurrency_by_key", settings.concurrency_by_key, limits::CONCURRENCY_MAX),
        ("/max_attempts", settings.max_attempts, limits::ATTEMPTS_MAX),
        ("/timeout_seconds", settings.timeout_seconds, limits::TIMEOUT_SECONDS_MAX),
    ];
    for (pointer, number, max) in numbers {
        if number.is_some() {
            whole(pointer, number, 1, 1..=max, &mut errors);
        }
    }
    rate("/rate", settings.rate, &mut errors);
    rate("/rate_by_key", settings.rate_by_key, &mut errors);
    if let Some(policy) = &settings.retry {
        retry(policy, &mut errors);
    }
    if errors.count == 0 { Ok(settings) } else { Err(errors.into_problem()) }
}

fn rate(pointer: &str, rate: Option<Rate>, errors: &mut Errors) {
    let Some(Rate { count, period_seconds }) = rate else { return };
    whole(&format!("{pointer}/count"), Some(count), 1, 1..=limits::RATE_COUNT_MAX, errors);
    whole(&format!("{pointer}/period_seconds"), Some(period_seconds), 1, 1..=limits::RATE_SECONDS_MAX, errors);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let pointers = |body: &str| -> Vec<String> {
            let checked = settings(serde_json::from_str(body).unwrap());
            checked
                .err()
                .map(|problem| problem.errors.into_iter().map(|error| error.pointer).collect())
                .unwrap_or_default()
        };
        assert!(pointers("{}").is_empty());
        assert!(
            pointers(r#"{"concurrency":1,"rate":{"count":1,"period_seconds":86400},"retry":{"jitter":0}}"#).is_empty()
        );
        assert_eq!(
            pointers(r#"{"concurrency":0,"concurrency_by_key":100001,"max_attempts":101,"timeout_seconds":0}"#),
            ["/concurrency", "/concurrency_by_key", "/max_attempts", "/timeout_seconds"]
        );
        assert_eq!(
            pointers(
                r#"{"rate":{"count":0,"period_seconds":1},"rate_by_key":{"count":1,"period_seconds":86401},"retry":{"jitter":2}}"#
            ),
            ["/rate/count", "/rate_by_key/period_seconds", "/retry/jitter"]
        );
    }
}
