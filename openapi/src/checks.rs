//! What values must hold besides their shape, in messages between processes: both sides check by these, and the documents say the same.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderName;

use crate::limits::{
    ARGV_MAX, BODY_BYTES_MAX, COMMAND_BYTES_MAX, ERROR_MESSAGE_CHARS_MAX, HEADER_NAME_CHARS_MAX,
    HEADER_VALUE_BYTES_MAX, HEADERS_MAX, INTEGER_MAX, MILLISECONDS_MAX, OUTPUT_BASE64_CHARS_MAX, OUTPUT_BYTES_MAX,
    RESULT_HEADERS_MAX, RETRY_AFTER_MS_MAX, URL_BYTES_MAX,
};
use crate::problem::FieldError;
use crate::report::{StatusReport, TaskClaim};
use crate::task::{HttpWork, TaskResult, Work};

/// Whether it is a name of queues or workers: 1 to so many ASCII letters, digits, `.`, `_` and `-`.
pub fn is_name(text: &str, chars_max: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=chars_max).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether it is the name or the text of a label: at most so many characters, none of them a control character.
pub fn is_plain(text: &str, chars_max: usize) -> bool {
    text.chars().count() <= chars_max && !text.chars().any(char::is_control)
}

/// Whether it is a `traceparent` of the version 00 (W3C Trace Context, 3.2): four parts in small hexadecimal digits.
pub fn is_traceparent(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let parts: Vec<&str> = text.split('-').collect();
    parts[0] == "00" && parts.iter().all(|part| is_hex(part)) && parts.iter().map(|part| part.len()).eq([2, 32, 16, 2])
}

/// What is wrong with the parts of a message, each with its pointer.
#[derive(Debug)]
pub struct Findings<'a> {
    list: &'a str,
    index: usize,
    errors: Vec<FieldError>,
}

impl<'a> Findings<'a> {
    /// Of an item of a list: `/reports/17`.
    pub fn of(list: &'a str, index: usize) -> Self {
        Self { list, index, errors: Vec::new() }
    }

    pub fn into_errors(self) -> Vec<FieldError> {
        self.errors
    }

    /// Notes what does not hold, and what would be right.
    pub fn expect(&mut self, holds: bool, field: &str, right: fmt::Arguments<'_>) {
        if !holds {
            let pointer = format!("/{}/{}/{field}", self.list, self.index);
            self.errors.push(FieldError::new(pointer, right.to_string()));
        }
    }

    fn text(&mut self, text: Option<&String>, field: &str, max: usize) {
        let holds = text.is_none_or(|text| text.len() <= max || text.chars().count() <= max);
        self.expect(holds, field, format_args!("must have at most {max} characters"));
    }

    fn base64(&mut self, text: Option<&String>, field: &str, max: usize) {
        self.text(text, field, max);
        let holds = text.is_none_or(|text| text.len() > max || STANDARD.decode(text).is_ok());
        self.expect(holds, field, format_args!("must be base64 (RFC 4648, with padding)"));
    }

    fn headers(&mut self, headers: &BTreeMap<String, String>, field: &str, max: usize) {
        self.expect(headers.len() <= max, field, format_args!("must be at most {max}"));
        let is_name = |name: &str| name.len() <= HEADER_NAME_CHARS_MAX && HeaderName::try_from(name).is_ok();
        self.expect(
            headers.keys().all(|name| is_name(name)),
            field,
            format_args!("must have the names of headers (RFC 9110)"),
        );
        let fits = |value: &String| value.chars().count() <= HEADER_VALUE_BYTES_MAX;
        self.expect(
            headers.values().all(fits),
            field,
            format_args!("have at most {HEADER_VALUE_BYTES_MAX} characters"),
        );
    }

    /// A claim number.
    pub fn claim(&mut self, claim: i64) {
        self.expect((1..=INTEGER_MAX).contains(&claim), "claim", format_args!("must be 1 to {INTEGER_MAX}"));
    }

    /// A report of a worker.
    pub fn report(&mut self, report: &StatusReport) {
        self.claim(report.claim);
        let ms = MILLISECONDS_MAX.unsigned_abs();
        for (value, field, max) in [
            (report.started_ms_ago, "started_ms_ago", ms),
            (report.ended_ms_ago, "ended_ms_ago", ms),
            (report.retry_after_ms, "retry_after_ms", RETRY_AFTER_MS_MAX),
        ] {
            self.expect(value.is_none_or(|value| value <= max), field, format_args!("must be 0 to {max}"));
        }
        self.text(report.error.as_ref().map(|error| &error.message), "error/message", ERROR_MESSAGE_CHARS_MAX);
        if let Some(result) = &report.result {
            self.result(result);
        }
    }

    fn result(&mut self, result: &TaskResult) {
        let TaskResult { stdout, stderr, body, stdout_base64, stderr_base64, body_base64, .. } = result;
        for (text, field) in [(stdout, "result/stdout"), (stderr, "result/stderr"), (body, "result/body")] {
            self.text(text.as_ref(), field, OUTPUT_BYTES_MAX);
        }
        for (text, field) in [
            (stdout_base64, "result/stdout_base64"),
            (stderr_base64, "result/stderr_base64"),
            (body_base64, "result/body_base64"),
        ] {
            self.base64(text.as_ref(), field, OUTPUT_BASE64_CHARS_MAX);
        }
        self.headers(&result.headers, "result/headers", RESULT_HEADERS_MAX);
        let signal = result.signal.is_none_or(|signal| (1..=255).contains(&signal));
        self.expect(signal, "result/signal", format_args!("must be 1 to 255"));
        let status = result.http_status.is_none_or(|status| (100..=999).contains(&status));
        self.expect(status, "result/http_status", format_args!("must be 100 to 999"));
    }

    /// What a worker is to do.
    pub fn work(&mut self, work: &Work) {
        let fits = |text: &String| text.len() <= COMMAND_BYTES_MAX;
        match work {
            Work::Command(command) => {
                self.expect(fits(command), "work/command", format_args!("must have at most {COMMAND_BYTES_MAX} bytes"))
            }
            Work::Argv(argv) => {
                let count = (1..=ARGV_MAX).contains(&argv.len());
                self.expect(count, "work/argv", format_args!("must be 1 to {ARGV_MAX}"));
                self.expect(
                    argv.iter().all(fits),
                    "work/argv",
                    format_args!("must have at most {COMMAND_BYTES_MAX} bytes"),
                );
            }
            Work::Http(http) => self.http(http),
        }
    }

    fn http(&mut self, http: &HttpWork) {
        // The rest shows when it is called: to parse it here, once more, would cost every task.
        let (scheme, rest) = http.url.split_once("://").unwrap_or_default();
        let is_http = ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
        let is_url = is_http && !rest.is_empty() && http.url.len() <= URL_BYTES_MAX;
        self.expect(is_url, "work/http/url", format_args!("must be an absolute http or https URL"));
        self.headers(&http.headers, "work/http/headers", HEADERS_MAX);
        let sendable = |value: &String| http::HeaderValue::try_from(value.as_str()).is_ok() && value.is_ascii();
        let ascii = http.headers.values().all(|value| sendable(value) && value.trim() == value);
        self.expect(
            ascii,
            "work/http/headers",
            format_args!("must be visible ASCII characters, with blanks only between them"),
        );
        self.text(http.body.as_ref(), "work/http/body", BODY_BYTES_MAX);
        self.base64(http.body_base64.as_ref(), "work/http/body_base64", BODY_BYTES_MAX);
        let one = http.body.is_none() || http.body_base64.is_none();
        self.expect(one, "work/http/body_base64", format_args!("cannot be given together with body"));
    }
}

/// What is wrong with claims in a list of this name.
pub fn claims(list: &str, claims: &[TaskClaim]) -> Vec<FieldError> {
    let of = |(i, claim): (usize, &TaskClaim)| {
        let mut findings = Findings::of(list, i);
        findings.claim(claim.claim);
        findings.into_errors()
    };
    claims.iter().enumerate().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pointers(report: Value) -> Vec<String> {
        let mut findings = Findings::of("reports", 3);
        findings.report(&serde_json::from_value(report).unwrap());
        findings.into_errors().into_iter().map(|error| error.pointer).collect()
    }

    fn report(field: &str, value: Value) -> Value {
        let mut report = json!({"task_id": "01890a5d-ac96-774b-bcce-b302099a8057", "claim": 1, "status": "COMPLETE"});
        report[field] = value;
        report
    }

    #[test]
    fn what_a_worker_reports_is_bounded() {
        let output = |chars: usize| report("result", json!({"stdout": "é".repeat(chars)}));
        assert!(pointers(report("claim", json!(INTEGER_MAX))).is_empty());
        assert!(pointers(output(OUTPUT_BYTES_MAX)).is_empty(), "characters are counted, as JSON Schema does");
        for (wrong, field) in [
            (report("claim", json!(0)), "claim"),
            (report("claim", json!(INTEGER_MAX + 1)), "claim"),
            (report("started_ms_ago", json!(u64::MAX)), "started_ms_ago"),
            (report("retry_after_ms", json!(RETRY_AFTER_MS_MAX + 1)), "retry_after_ms"),
            (report("error", json!({"code": "spawn", "message": "x".repeat(1001)})), "error/message"),
            (output(OUTPUT_BYTES_MAX + 1), "result/stdout"),
            (report("result", json!({"body_base64": "no"})), "result/body_base64"),
            (report("result", json!({"signal": 0})), "result/signal"),
            (report("result", json!({"http_status": 99})), "result/http_status"),
            (report("result", json!({"headers": {"a b": "c"}})), "result/headers"),
        ] {
            assert_eq!(pointers(wrong), [format!("/reports/3/{field}")]);
        }
    }

    #[test]
    fn what_a_worker_is_given_is_bounded() {
        let pointers = |work: Value| -> Vec<String> {
            let mut findings = Findings::of("tasks", 0);
            findings.work(&serde_json::from_value(work).unwrap());
            findings.into_errors().into_iter().map(|error| error.pointer).collect()
        };
        let http = |field: &str, value: Value| {
            let mut http = json!({"url": "http://127.0.0.1:9/"});
            http[field] = value;
            json!({"http": http})
        };
        for fine in [json!({"command": "true"}), json!({"argv": ["true"]}), http("body", json!("x"))] {
            assert!(pointers(fine.clone()).is_empty(), "{fine}");
        }
        for (wrong, field) in [
            (json!({"command": "x".repeat(COMMAND_BYTES_MAX + 1)}), "command"),
            (json!({"argv": []}), "argv"),
            (http("url", json!("x")), "http/url"),
            (http("headers", json!({"": "x"})), "http/headers"),
            (http("headers", json!({"x": "a\nb"})), "http/headers"),
            (http("body_base64", json!("no")), "http/body_base64"),
        ] {
            assert_eq!(pointers(wrong), [format!("/tasks/0/work/{field}")]);
        }
        let both = json!({"http": {"url": "http://127.0.0.1:9/", "body": "", "body_base64": ""}});
        assert_eq!(pointers(both), ["/tasks/0/work/http/body_base64"]);
    }

    #[test]
    fn a_traceparent_has_four_parts_of_their_own_lengths() {
        let fine = "00-662666f5c78b2e4f00ae193af0de3672-1611b010ea3e5c09-7c";
        assert!(is_traceparent(fine));
        for wrong in [
            "",
            "00",
            &fine[1..],
            &fine[..54],
            &format!("{fine}-00"),
            &fine.replace('a', "A"),
            &fine.replace("00-", "01-"),
        ] {
            assert!(!is_traceparent(wrong), "{wrong}");
        }
    }

    #[test]
    fn names_are_letters_digits_and_three_signs() {
        assert!(is_name("a.B_9-", 6) && !is_name("", 6) && !is_name("a.B_9-x", 6) && !is_name("a b", 6));
    }
}
