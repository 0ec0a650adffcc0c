//! `docs/problems.md`: every code of a problem document, and what to do about it.

use std::fmt::Write;

use taskmaster_openapi::Code;

const HEAD: &str = "# When a request is refused

Every refusal is a problem document (RFC 9457), `application/problem+json`. `code` is for programs: it is never renamed. `type` ends with it, but for the two kinds that IANA has a name for. `detail` says what was wrong this
time, `errors` names each field by a JSON pointer, and `request_id` finds the request in the logs. What is answered with a status below 500 has changed nothing.

**Again** says whether the same request may succeed later: after what `Retry-After` says, or a second, and twice as long each time. A create that is sent again wants the
`Idempotency-Key` of the first: it may have been done.

| `code` | status | what it says | what to do | again |
|---|---|---|---|---|
";

/// The page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for code in Code::ALL {
        let (status, again) = (code.status().as_u16(), if is_worth_another_try(*code) { "yes" } else { "" });
        let (name, title, remedy) = (code.as_str(), code.title(), remedy(*code));
        // Writing to a string does not fail.
        let _ = writeln!(page, "| `{name}` | {status} | {title} | {remedy} | {again} |");
    }
    page
}

/// Whether the same request may succeed a little later, with nobody doing anything about it.
fn is_worth_another_try(code: Code) -> bool {
    matches!(
        code,
        Code::RequestTimeout
            | Code::IdempotencyInFlight
            | Code::TooManyFlowKeys
            | Code::RateLimited
            | Code::Internal
            | Code::Overloaded
            | Code::DatabaseUnavailable
            | Code::CoordinatorUnavailable
            | Code::ShuttingDown
            | Code::Timeout
    )
}

fn remedy(code: Code) -> &'static str {
    match code {
        Code::InvalidJson => "send one JSON object, in UTF-8",
        Code::InvalidBody => {
            "compare the field with the document of the API; names that it does not have are refused too"
        }
        Code::ValidationFailed => "change each field that `errors` names as it says",
        Code::InvalidQuery => "change or leave out the parameter that `errors` names",
        Code::InvalidPath => "ids are as they were answered; check for what was cut off or encoded twice",
        Code::InvalidHeader => "change the header that `errors` names",
        Code::InvalidPageToken => {
            "use a `next_page_token` with the filters of the page that it came with, or begin without one"
        }
        Code::Unauthorized => "send `Authorization: Bearer` and an API key that is active",
        Code::InsufficientScope => "use a key that has the scope which `detail` names",
        Code::ForbiddenOrigin => {
            "use an API key; or name the page's origin by `--cors-origins`, the host by `--allowed-host`"
        }
        Code::NotFound => "compare the path with the document of the API",
        Code::TaskNotFound => "ended tasks are kept for as long as `TASKMASTER_HISTORY_DAYS` says; check the id",
        Code::WorkerNotFound => "it has left, or never was: `GET /v1/workers` lists those that are there",
        Code::KeyNotFound => "`GET /v1/keys` lists those that there are",
        Code::ScheduleNotFound => "`GET /v1/schedules` lists those that there are",
        Code::WebhookNotFound => "`GET /v1/webhooks` lists those that there are",
        Code::HookNotFound => "`GET /v1/hooks` lists those that there are",
        Code::DeliveryNotFound => "deliveries are kept for a while only; check the id",
        Code::QueueNotFound => "`GET /v1/queues` lists those that there are",
        Code::MethodNotAllowed => "use one of those that `Allow` lists",
        Code::RequestTimeout => "send the whole request sooner",
        Code::TaskStateConflict => "`GET` the task: it may have ended meanwhile",
        Code::AttemptOver => "stop: nobody waits for the attempt any more",
        Code::KeyNotActive => "make a new key",
        Code::ScheduleNameTaken => "choose another name, or change the schedule that has it",
        Code::WebhookDisabled => "enable it first, with `PATCH`",
        Code::HookDisabled => "whoever owns it enables it, with `PATCH`",
        Code::IdempotencyInFlight => "wait for the first request to be answered",
        Code::IdempotencyMismatch => "use a new key for another payload",
        Code::PreconditionFailed => "`GET` it, look at what has changed, and send the new `ETag`",
        Code::BodyTooLarge => "send less: fewer tasks in one request, or a smaller one",
        Code::UnsupportedMediaType => "send `Content-Type: application/json`",
        Code::TooManyQueues
        | Code::TooManyRequirements
        | Code::TooManyUrlWorkers
        | Code::TooManySchedules
        | Code::TooManyWebhooks
        | Code::TooManyHooks => "use or delete one that there is",
        Code::TooManyFlowKeys => "wait until some of them have no tasks left",
        Code::RateLimited => "wait for as long as `Retry-After` says",
        Code::Internal => "tell whoever runs this the `request_id`",
        Code::ScalingUnsupported => "scale as `detail` says",
        Code::Overloaded => "slow down",
        Code::DatabaseUnavailable | Code::CoordinatorUnavailable => "wait; `/readyz` says what is missing",
        Code::ShuttingDown => "another process of its kind, or its successor, answers in a moment",
        Code::Timeout => "wait; if it was a create, it may have been done",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_a_line_for_every_code() {
        let page = page();
        for code in Code::ALL {
            let lines = page.lines().filter(|line| line.starts_with(&format!("| `{}` |", code.as_str()))).count();
            assert_eq!(lines, 1, "{code:?}");
        }
    }
}
