//! What incoming webhooks must be like: [`NewHook`] in, [`HookToKeep`] out, or every field that is wrong.

use std::collections::HashSet;

use serde_json::{Map, Value};
use taskmaster_openapi::hook::{HookVerification, NewHook};
use taskmaster_openapi::schedule::TaskTemplate;
use taskmaster_openapi::task::HttpMethod;
use taskmaster_openapi::{FieldError, Problem, limits};
use taskmaster_store::TaskToCreate;
use taskmaster_store::hooks::{HookSecret, HookSettings, SECRET_HEADER};

use super::http::wrong_header_name;
use super::{Errors, check, schedule};

/// Headers with secrets of the sender's own: nobody else is given them.
const NEVER_PASSED: [&str; 2] = ["authorization", "cookie"];

/// A validated hook.
#[derive(Debug)]
pub(crate) struct HookToKeep {
    pub settings: HookSettings,
    /// The one that was given, or a new one.
    pub secret: HookSecret,
    /// What a delivery becomes, but for what is passed on.
    pub task: TaskToCreate,
}

/// Checks a hook that is to be made, or as it is to be.
///
/// # Errors
/// `validation_failed` with every field that is wrong.
pub(crate) fn hook(new: NewHook) -> Result<HookToKeep, Problem> {
    let mut errors = Errors::default();
    let kind = new.verification;
    if let Some(detail) = new.name.as_deref().and_then(schedule::wrong_name) {
        errors.add("/name", detail);
    }
    let secret = checked_secret(kind, new.secret.as_deref(), &mut errors);
    let is_shared = kind == HookVerification::SharedSecret;
    let is_own = is_shared || kind == HookVerification::SecretUrl;
    let secret_header = header_of("/secret_header", new.secret_header, is_shared, &mut errors);
    let delivery_id_header = header_of("/delivery_id_header", new.delivery_id_header, is_own, &mut errors);
    let usual = || kind.usual_headers().iter().map(|name| (*name).to_owned()).collect();
    let pass_headers: Vec<String> = new.pass_headers.unwrap_or_else(usual);
    let pass_headers: Vec<String> = pass_headers.iter().map(|name| name.to_ascii_lowercase()).collect();
    let secret_place = is_shared.then(|| secret_header.as_deref().unwrap_or(SECRET_HEADER));
    check_passed(&pass_headers, secret_place, &mut errors);
    let pass_body = new.pass_body.unwrap_or(true);
    if pass_body {
        check_place_of_body(&new.task, pass_headers.len(), &mut errors);
    }
    errors.prefix = "/task".into();
    let task = check(new.task.clone().into(), &mut errors);
    let Some(task) = task.filter(|_| errors.count == 0) else { return Err(errors.into_problem()) };
    let settings = HookSettings {
        name: new.name,
        secret_header,
        delivery_id_header,
        pass_body,
        pass_headers,
        task: new.task,
        enabled: new.enabled.unwrap_or(true),
    };
    Ok(HookToKeep { settings, secret, task })
}

/// Refuses a change of what is changed otherwise, or not at all.
///
/// # Errors
/// `validation_failed`.
pub(crate) fn patch(patch: &Map<String, Value>) -> Result<(), Problem> {
    let fixed = [
        ("verification", "cannot be changed: make another hook"),
        ("secret", "is changed by POST /v1/hooks/{id}/rotate"),
    ];
    let wrong = fixed.into_iter().filter(|(name, _)| patch.contains_key(*name));
    let errors: Vec<FieldError> = wrong.map(|(name, detail)| FieldError::new(format!("/{name}"), detail)).collect();
    if errors.is_empty() { Ok(()) } else { Err(Problem::validation(errors)) }
}

/// The secret that a rotation gives, or a new one.
///
/// # Errors
/// `validation_failed`.
pub(crate) fn secret(kind: HookVerification, given: Option<&str>) -> Result<HookSecret, Problem> {
    let mut errors = Errors::default();
    let secret = checked_secret(kind, given, &mut errors);
    if errors.count == 0 { Ok(secret) } else { Err(errors.into_problem()) }
}

fn checked_secret(kind: HookVerification, given: Option<&str>, errors: &mut Errors) -> HookSecret {
    let Some(given) = given else { return HookSecret::random(kind) };
    let (min, max) = limits::HOOK_SECRET_CHARS.into_inner();
    let detail = match (kind, HookSecret::parse(kind, given)) {
        (HookVerification::SecretUrl, _) => "is made here, and cannot be given".into(),
        (_, Some(secret)) => return secret,
        (HookVerification::StandardWebhooks, None) => {
            "must be whsec_ and 24 to 64 bytes in base64 (RFC 4648, with padding)".into()
        }
        (_, None) => format!("must be {min} to {max} visible ASCII characters, with blanks only between them"),
    };
    errors.add("/secret", detail);
    HookSecret::random(kind)
}

/// The name of a header that only some kinds have, in lower case.
fn header_of(pointer: &str, given: Option<String>, is_of_kind: bool, errors: &mut Errors) -> Option<String> {
    let name = given?.to_ascii_lowercase();
    if !is_of_kind {
        errors.add(pointer, "is not looked at by this kind of verification");
    } else if let Some(detail) = wrong_header_name(&name) {
        errors.add(pointer, detail);
    }
    Some(name)
}

fn check_passed(names: &[String], secret_header: Option<&str>, errors: &mut Errors) {
    if names.len() > limits::HOOK_HEADERS_MAX {
        errors.add("/pass_headers", format!("must be at most {}, and are {}", limits::HOOK_HEADERS_MAX, names.len()));
        return;
    }
    let mut seen = HashSet::new();
    for (i, name) in names.iter().enumerate() {
        let is_secret = NEVER_PASSED.contains(&name.as_str()) || secret_header == Some(name);
        let secret = || is_secret.then(|| "has a secret, and is not passed on".to_owned());
        let twice = || (!seen.insert(name)).then(|| "is given twice".to_owned());
        if let Some(detail) = wrong_header_name(name).or_else(secret).or_else(twice) {
            errors.add(format!("/pass_headers/{i}"), detail);
        }
    }
}

/// Whether the template leaves room for what is passed on.
fn check_place_of_body(task: &TaskTemplate, headers: usize, errors: &mut Errors) {
    let Some(http) = &task.http else { return };
    for (name, is_given) in [("body", http.body.is_some()), ("body_base64", http.body_base64.is_some())] {
        if is_given {
            let detail = "is what the sender sends: leave it out, or set pass_body to false";
            errors.add(format!("/task/http/{name}"), detail);
        }
    }
    if !matches!(http.method, HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch) {
        errors.add("/task/http/method", "must be POST, PUT or PATCH, to have a body; or set pass_body to false");
    }
    // And the content type.
    let max = limits::HEADERS_MAX - headers.min(limits::HOOK_HEADERS_MAX) - 1;
    if http.headers.len() > max {
        errors.add("/task/http/headers", format!("must be at most {max} beside those that are passed on"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(body: &str) -> Vec<String> {
        let checked = hook(serde_json::from_str(body).unwrap());
        checked.err().map(|problem| problem.errors.into_iter().map(|error| error.pointer).collect()).unwrap_or_default()
    }

    #[test]
    fn every_field_that_is_wrong_is_named() {
        let long = format!(r#"{{"verification":"github","secret":"{}","task":{{"command":"x"}}}}"#, "x".repeat(201));
        let table: [(&str, &[&str]); 15] = [
            (r#"{"verification":"github","task":{"command":"x"}}"#, &[]),
            (r#"{"verification":"secret_url","task":{"http":{"url":"http://x/"}},"delivery_id_header":"X-Id"}"#, &[]),
            (
                r#"{"verification":"shared_secret","secret_header":"X-Gitlab-Token","secret":"0123456789abcdef","task":{"argv":["x"]}}"#,
                &[],
            ),
            (r#"{"verification":"github","secret":"short","name":"","task":{"command":"x"}}"#, &["/name", "/secret"]),
            (&long, &["/secret"]),
            (r#"{"verification":"secret_url","secret":"0123456789abcdef","task":{"command":"x"}}"#, &["/secret"]),
            (
                r#"{"verification":"standard_webhooks","secret":"whsec_0123456789","task":{"command":"x"}}"#,
                &["/secret"],
            ),
            (
                r#"{"verification":"stripe","secret_header":"x","delivery_id_header":"y","task":{"command":"x"}}"#,
                &["/secret_header", "/delivery_id_header"],
            ),
            (r#"{"verification":"shared_secret","secret_header":"a b","task":{"command":"x"}}"#, &["/secret_header"]),
            (
                r#"{"verification":"shared_secret","secret_header":"X-T","pass_headers":["X-A","x-a","x-t","Cookie","Host"],"task":{"command":"x"}}"#,
                &["/pass_headers/1", "/pass_headers/2", "/pass_headers/3", "/pass_headers/4"],
            ),
            (r#"{"verification":"github","task":{"http":{"url":"http://x/","body":"x"}}}"#, &["/task/http/body"]),
            (r#"{"verification":"github","task":{"http":{"url":"http://x/","method":"GET"}}}"#, &["/task/http/method"]),
            (r#"{"verification":"github","pass_body":false,"task":{"http":{"url":"http://x/","method":"GET"}}}"#, &[]),
            (r#"{"verification":"github","task":{}}"#, &["/task"]),
            (r#"{"verification":"github","task":{"command":"x","priority":10}}"#, &["/task/priority"]),
        ];
        for (body, expected) in table {
            assert_eq!(pointers(body), expected, "{body}");
        }
    }

    #[test]
    fn a_patch_leaves_verification_and_secret_alone() {
        let of = |text: &str| patch(&serde_json::from_str(text).unwrap()).map_err(|problem| problem.errors.len());
        assert_eq!(of(r#"{"name":null,"enabled":false}"#), Ok(()));
        assert_eq!(of(r#"{"verification":"github","secret":"x"}"#), Err(2));
    }
}
