//! A template and a delivery make a task. Pure.
//!
//! What a sender sends never becomes a part of a shell's command line: a command has it as an argument, `$1`, as it came.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use taskmaster_openapi::task::{HttpWork, NewTask};
use taskmaster_openapi::{FieldError, Problem};
use taskmaster_store::hooks::HookSettings;

use crate::validate::http::wrong_header_value;

const CONTENT_TYPE: &str = "content-type";

/// The task of a delivery, to be validated.
///
/// # Errors
/// `validation_failed` when a command is to take a body that is no text.
pub(crate) fn task(settings: &HookSettings, headers: &HeaderMap, body: &[u8]) -> Result<NewTask, Problem> {
    let mut new = NewTask::from(settings.task.clone());
    if !settings.pass_body {
        return Ok(new);
    }
    let passed = passed(settings, headers);
    if let Some(http) = new.http.take() {
        new.http = Some(request(http, passed, body));
        return Ok(new);
    }
    let text = text(body).ok_or_else(|| {
        let detail = "must be UTF-8 without the character NUL: this hook gives it to a command as an argument";
        Problem::validation(vec![FieldError::new("", detail)])
    })?;
    let passed = serde_json::to_string(&passed).map_err(|_| Problem::internal())?;
    new.argv = match (new.command.take(), new.argv.take()) {
        // The shell's own name is `$0`.
        (Some(command), _) => Some(["/bin/sh", "-c", &command, "sh", text, &passed].map(str::to_owned).into()),
        (None, argv) => argv.map(|mut argv| {
            argv.extend([text.to_owned(), passed]);
            argv
        }),
    };
    Ok(new)
}

/// The headers that are passed on, and the content type. What cannot be sent on, is not; of several values there is one list.
fn passed(settings: &HookSettings, headers: &HeaderMap) -> BTreeMap<String, String> {
    let names = settings.pass_headers.iter().map(String::as_str).chain([CONTENT_TYPE]);
    let value = |name: &str| {
        let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
        (!values.is_empty()).then(|| values.join(", ").trim().to_owned())
    };
    let values = names.filter_map(|name| Some((name.to_owned(), value(name)?)));
    values.filter(|(_, value)| wrong_header_value(value).is_none()).collect()
}

/// The template's request with the body. Headers of the template stay as they are.
fn request(template: HttpWork, passed: BTreeMap<String, String>, body: &[u8]) -> HttpWork {
    let mut http = template;
    for (name, value) in passed {
        if !http.headers.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
            http.headers.insert(name, value);
        }
    }
    match text(body) {
        Some(text) => http.body = Some(text.to_owned()),
        None => http.body_base64 = Some(STANDARD.encode(body)),
    }
    http
}

/// Text that the database can store and a command can take.
fn text(body: &[u8]) -> Option<&str> {
    std::str::from_utf8(body).ok().filter(|text| !text.contains('\0'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use taskmaster_openapi::schedule::TaskTemplate;

    fn settings(task: &str, pass_body: bool) -> HookSettings {
        let task: TaskTemplate = serde_json::from_str(task).unwrap();
        let pass_headers = vec!["x-github-event".to_owned(), "x-bad".to_owned()];
        let (secret_header, delivery_id_header) = (None, None);
        HookSettings { name: None, secret_header, delivery_id_header, pass_body, pass_headers, task, enabled: true }
    }

    fn headers() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("content-type", "application/json"),
            ("x-github-event", "push"),
            ("x-other", "1"),
            ("authorization", "Bearer x"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert("x-bad", HeaderValue::from_bytes(b"caf\xe9").unwrap());
        headers
    }

    #[test]
    fn a_request_has_the_body_as_it_came_and_the_headers_that_were_named() {
        let settings =
            settings(r#"{"http":{"url":"http://x/","headers":{"X-GitHub-Event":"mine"}},"queue":"q"}"#, true);
        let http = task(&settings, &headers(), b"{\"a\": 1 }").unwrap().http.unwrap();
        assert_eq!((http.body.as_deref(), http.body_base64), (Some("{\"a\": 1 }"), None));
        let expected = [("X-GitHub-Event", "mine"), (CONTENT_TYPE, "application/json")];
        assert!(http.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).eq(expected));
        for bytes in [&b"\xff\x00"[..], b"a\0b"] {
            let http = task(&settings, &headers(), bytes).unwrap().http.unwrap();
            assert_eq!((http.body, http.body_base64), (None, Some(STANDARD.encode(bytes))));
        }
    }

    #[test]
    fn a_command_has_the_body_as_an_argument_and_never_within_its_line() {
        let body = br#"{"a": "$(touch /tmp/x); `id` 'quoted'"}"#;
        let passed = r#"{"content-type":"application/json","x-github-event":"push"}"#;
        let text = std::str::from_utf8(body).unwrap();
        let argv = |template: &str| task(&settings(template, true), &headers(), body).unwrap().argv.unwrap();
        let line = "deploy \"$1\"";
        assert_eq!(argv(r#"{"command":"deploy \"$1\""}"#), ["/bin/sh", "-c", line, "sh", text, passed]);
        assert_eq!(argv(r#"{"argv":["deploy","--"]}"#), ["deploy", "--", text, passed]);
        for bytes in [&b"\xff"[..], b"a\0b"] {
            assert!(task(&settings(r#"{"command":"x"}"#, true), &headers(), bytes).is_err());
        }
    }

    #[test]
    fn a_template_that_takes_nothing_stays_as_it_is() {
        let settings = settings(r#"{"command":"deploy"}"#, false);
        assert_eq!(task(&settings, &headers(), b"\xff").unwrap(), NewTask::from(settings.task));
    }
}
