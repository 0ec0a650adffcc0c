//! What webhooks and callbacks must be like.

use std::collections::{BTreeMap, HashSet};

use taskmaster_openapi::event::EventType;
use taskmaster_openapi::task::Callback;
use taskmaster_openapi::webhook::{NewWebhook, Only, WebhookChange};
use taskmaster_openapi::{Problem, limits};
use taskmaster_store::Callbacks;
use taskmaster_store::webhooks::filter::{Filter, kinds};
use taskmaster_store::webhooks::{WebhookSecret, WebhookSettings};

use super::{Errors, check_tags, http, retry, whole, wrong_queue};

/// Headers that deliveries have anyway.
const OWN_PREFIX: &str = "webhook-";

/// Whom to tell of a task's end.
pub(super) fn callbacks(
    callback: Option<Callback>,
    failure_callback: Option<Callback>,
    errors: &mut Errors,
) -> Option<Callbacks> {
    for (at, callback) in [("/callback", &callback), ("/failure_callback", &failure_callback)] {
        let Some(callback) = callback else { continue };
        check_url(at, &callback.url, errors);
        check_headers(at, &callback.headers, errors);
        check_secret(at, callback.secret.as_deref(), errors);
    }
    let given = callback.is_some() || failure_callback.is_some();
    given.then_some(Callbacks { callback, failure_callback })
}

/// Checks a new webhook. Its secret is made when it has none.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub(crate) fn new(new: NewWebhook) -> Result<(WebhookSettings, WebhookSecret), Problem> {
    let mut errors = Errors::default();
    if new.events.is_some() && new.only.is_some() {
        errors.add("/only", "cannot be given together with events");
    }
    let ends = || vec![EventType::TaskCompleted, EventType::TaskFailed, EventType::TaskCancelled];
    let settings = WebhookSettings {
        url: new.url,
        description: new.description,
        filter: Filter {
            events: new.only.map(shown_kinds).or(new.events).unwrap_or_else(ends),
            queues: new.queues,
            tags: new.tags,
            only: new.only,
        },
        headers: new.headers,
        max_attempts: attempts(new.max_attempts, &mut errors),
        retry: new.retry,
        timeout_seconds: timeout(new.timeout_seconds, &mut errors),
        enabled: new.enabled.unwrap_or(true),
    };
    check(&settings, &mut errors);
    check_secret("", new.secret.as_deref(), &mut errors);
    let secret = new.secret.as_deref().and_then(WebhookSecret::parse).unwrap_or_else(WebhookSecret::random);
    if errors.count == 0 { Ok((settings, secret)) } else { Err(errors.into_problem()) }
}

/// Checks a change, and gives back how it is made.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub(crate) fn change(change: WebhookChange) -> Result<impl FnOnce(&mut WebhookSettings), Problem> {
    let mut errors = Errors::default();
    if change.events.is_some() && matches!(change.only, Some(Some(_))) {
        errors.add("/only", "cannot be given together with events");
    }
    let max_attempts = change.max_attempts.map(|given| attempts(Some(given), &mut errors));
    let timeout_seconds = change.timeout_seconds.map(|given| timeout(Some(given), &mut errors));
    // What is left out is right already.
    check(
        &WebhookSettings {
            url: change.url.clone().unwrap_or_else(|| "http://localhost/".into()),
            description: change.description.clone().flatten(),
            filter: Filter {
                events: change.events.clone().unwrap_or_else(|| vec![EventType::TaskFailed]),
                queues: change.queues.clone().unwrap_or_default(),
                tags: change.tags.clone().unwrap_or_default(),
                only: None,
            },
            headers: change.headers.clone().unwrap_or_default(),
            max_attempts: 1,
            retry: change.retry.clone(),
            timeout_seconds: 1,
            enabled: true,
        },
        &mut errors,
    );
    if errors.count > 0 {
        return Err(errors.into_problem());
    }
    Ok(move |settings: &mut WebhookSettings| {
        let filter = &mut settings.filter;
        if let Some(events) = change.events {
            (filter.events, filter.only) = (events, None);
        }
        if let Some(only) = change.only {
            filter.only = only;
            filter.events = only.map_or(std::mem::take(&mut filter.events), shown_kinds);
        }
        filter.queues = change.queues.unwrap_or(std::mem::take(&mut filter.queues));
        filter.tags = change.tags.unwrap_or(std::mem::take(&mut filter.tags));
        settings.url = change.url.unwrap_or(std::mem::take(&mut settings.url));
        settings.description = change.description.unwrap_or(settings.description.take());
        settings.headers = change.headers.unwrap_or(std::mem::take(&mut settings.headers));
        settings.max_attempts = max_attempts.unwrap_or(settings.max_attempts);
        settings.retry = change.retry.or(settings.retry.take());
        settings.timeout_seconds = timeout_seconds.unwrap_or(settings.timeout_seconds);
        settings.enabled = change.enabled.unwrap_or(settings.enabled);
    })
}

/// The secret that a rotation gives, or a new one.
///
/// # Errors
/// `validation_failed`.
pub(crate) fn secret(given: Option<&str>) -> Result<WebhookSecret, Problem> {
    let mut errors = Errors::default();
    check_secret("", given, &mut errors);
    if errors.count > 0 {
        return Err(errors.into_problem());
    }
    Ok(given.and_then(WebhookSecret::parse).unwrap_or_else(WebhookSecret::random))
}

/// The kinds of events that are sent.
fn shown_kinds(only: Only) -> Vec<EventType> {
    match only {
        Only::Recovery => vec![EventType::TaskCompleted],
        Only::Changes | Only::Failures => kinds(only).to_vec(),
    }
}

fn check(settings: &WebhookSettings, errors: &mut Errors) {
    check_url("", &settings.url, errors);
    check_headers("", &settings.headers, errors);
    if let Some(description) = &settings.description {
        let max = limits::WEBHOOK_DESCRIPTION_CHARS_MAX;
        if description.chars().any(char::is_control) {
            errors.add("/description", "must not contain control characters");
        } else if description.chars().count() > max {
            errors.add("/description", format!("must have at most {max} characters"));
        }
    }
    let Filter { events, queues, tags, .. } = &settings.filter;
    if events.is_empty() {
        errors.add("/events", "must have at least one kind of event");
    }
    let (mut kinds, mut names) = (HashSet::new(), HashSet::new());
    for (i, _) in events.iter().enumerate().filter(|(_, kind)| !kinds.insert(**kind)) {
        errors.add(format!("/events/{i}"), "is given twice");
    }
    if queues.len() > limits::WEBHOOK_QUEUES_MAX {
        errors.add("/queues", format!("must be at most {}, and are {}", limits::WEBHOOK_QUEUES_MAX, queues.len()));
    } else {
        for (i, queue) in queues.iter().enumerate() {
            let twice = || (!names.insert(queue)).then(|| "is given twice".to_owned());
            if let Some(detail) = wrong_queue(queue).or_else(twice) {
                errors.add(format!("/queues/{i}"), detail);
            }
        }
    }
    check_tags(tags, errors);
    if let Some(policy) = &settings.retry {
        retry(policy, errors);
    }
}

fn attempts(given: Option<i64>, errors: &mut Errors) -> i16 {
    let default = limits::WEBHOOK_ATTEMPTS_DEFAULT;
    i16::try_from(whole("/max_attempts", given, default, 1..=limits::ATTEMPTS_MAX, errors)).unwrap_or(1)
}

fn timeout(given: Option<i64>, errors: &mut Errors) -> i32 {
    let (default, max) = (limits::WEBHOOK_TIMEOUT_SECONDS_DEFAULT, limits::WEBHOOK_TIMEOUT_SECONDS_MAX);
    i32::try_from(whole("/timeout_seconds", given, default, 1..=max, errors)).unwrap_or(1)
}

fn check_url(at: &str, url: &str, errors: &mut Errors) {
    if let Some(detail) = http::wrong_url(url) {
        errors.add(format!("{at}/url"), detail);
    }
}

fn check_headers(at: &str, headers: &BTreeMap<String, String>, errors: &mut Errors) {
    let at = format!("{at}/headers");
    http::check_headers(&at, headers, limits::WEBHOOK_HEADERS_MAX, errors);
    let own = |name: &&String| {
        let name = name.to_ascii_lowercase();
        name.starts_with(OWN_PREFIX) || name == "content-type"
    };
    for name in headers.keys().filter(own).take(1) {
        errors.add(http::header_pointer(&at, name), "is set here, and cannot be given");
    }
}

fn check_secret(at: &str, secret: Option<&str>, errors: &mut Errors) {
    if secret.is_some_and(|secret| WebhookSecret::parse(secret).is_none()) {
        errors.add(format!("{at}/secret"), "must be whsec_ and 24 to 64 bytes in base64 (RFC 4648, with padding)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use taskmaster_openapi::task::RetryPolicy;

    fn pointers(body: &str) -> Vec<String> {
        let checked = new(serde_json::from_str(body).unwrap());
        checked.err().map(|problem| problem.errors.into_iter().map(|error| error.pointer).collect()).unwrap_or_default()
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let table: [(&str, &[&str]); 12] = [
            (r#"{"url":"http://x/"}"#, &[]),
            (r#"{"url":"http://x/","secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw","only":"changes"}"#, &[]),
            (r#"{"url":"ftp://x/"}"#, &["/url"]),
            (r#"{"url":"http://0.0.0.0/"}"#, &["/url"]),
            (r#"{"url":"http://x/","events":[]}"#, &["/events"]),
            (r#"{"url":"http://x/","events":["task.failed","task.failed"]}"#, &["/events/1"]),
            (r#"{"url":"http://x/","events":["task.failed"],"only":"failures"}"#, &["/only"]),
            (r#"{"url":"http://x/","queues":["$webhooks"],"tags":[""]}"#, &["/queues/0", "/tags/0"]),
            (r#"{"url":"http://x/","headers":{"Webhook-Id":"1","X":"é"}}"#, &["/headers/X", "/headers/Webhook-Id"]),
            (r#"{"url":"http://x/","secret":"whsec_short"}"#, &["/secret"]),
            (r#"{"url":"http://x/","max_attempts":0,"timeout_seconds":31}"#, &["/max_attempts", "/timeout_seconds"]),
            (r#"{"url":"http://x/","description":"a\u0000"}"#, &["/description"]),
        ];
        for (body, expected) in table {
            assert_eq!(pointers(body), expected, "{body}");
        }
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let changed = |body: &str| {
            let (mut settings, _) = new(NewWebhook { url: "http://x/".into(), ..NewWebhook::default() }).unwrap();
            settings.retry = Some(RetryPolicy::default());
            change(serde_json::from_str(body).unwrap()).unwrap()(&mut settings);
            settings
        };
        let before = changed("{}");
        assert_eq!((before.url.as_str(), before.enabled, before.filter.only), ("http://x/", true, None));
        assert_eq!(changed(r#"{"only":"recovery"}"#).filter.events, [EventType::TaskCompleted]);
        let disabled = changed(r#"{"enabled":false}"#);
        assert_eq!(WebhookSettings { enabled: true, ..disabled }, before);
        assert!(change(serde_json::from_str(r#"{"url":"x"}"#).unwrap()).is_err());
    }
}
