//! `POST /v1/attempts`: targets of HTTP tasks that have answered 202 say what came of it. The token in the URL is all they need.

use axum::extract::State;
use serde_json::Value;
use taskmaster_openapi::attempt::{
    AttemptAnswer, AttemptOutcome, AttemptReport, AttemptStatus, AttemptToken, Progress,
};
use taskmaster_openapi::task::{Completion, TaskResult, Work};
use taskmaster_openapi::{Code, FieldError, Problem, limits};
use taskmaster_service::auth;
use taskmaster_service::extract::{Json, Query};
use taskmaster_store::detached::{Heard, Word};

use crate::app::App;

/// A result may be written with six bytes for one, and the rest is small.
const BODY_BYTES_MAX: usize = 6 * limits::OUTPUT_BYTES_MAX + 16 * 1024;
/// What FAILED without a reason is kept as.
const NO_REASON: &str = "the target said that it failed, and gave no reason";

/// `POST /v1/attempts`
pub(crate) async fn report(
    State(app): State<App>,
    Query(AttemptToken { token }): Query<AttemptToken>,
    Json(report): Json<AttemptReport, BODY_BYTES_MAX>,
) -> Result<axum::Json<AttemptAnswer>, Problem> {
    let of = app.store.attempt_tokens().await?.read(&token);
    let of = of.ok_or_else(|| auth::unauthorized("This is not the URL that TaskMaster-Callback-Url had."))?;
    let outcome = match app.store.hear(of, word(report)?).await? {
        Heard::Recorded => AttemptOutcome::Recorded,
        Heard::AlreadyRecorded => AttemptOutcome::AlreadyRecorded,
        Heard::Over => {
            let detail = "The attempt is over: it was cancelled, its time was up, or the task runs elsewhere by now.";
            return Err(Problem::new(Code::AttemptOver, detail));
        }
    };
    Ok(axum::Json(AttemptAnswer { outcome }))
}

/// What is said, checked.
fn word(report: AttemptReport) -> Result<Word, Problem> {
    let AttemptReport { status, percent, message, result, permanent, retry_after_seconds } = report;
    let mut errors = Vec::new();
    let mut expect = |holds: bool, pointer: &str, detail: String| {
        if !holds {
            errors.push(FieldError::new(pointer, detail));
        }
    };
    let text = message.as_deref().unwrap_or_default();
    let max = limits::ERROR_MESSAGE_CHARS_MAX;
    let fits = text.chars().count() <= max && !text.contains('\0');
    expect(fits, "/message", format!("must have at most {max} characters, and not the character NUL"));
    let of_hundred = percent.is_none_or(|percent| (0.0..=100.0).contains(&percent));
    expect(of_hundred, "/percent", "must be a number from 0 to 100".into());
    let seconds = 0.0..=limits::RETRY_SECONDS_MAX;
    let is_delay = retry_after_seconds.is_none_or(|given| seconds.contains(&given));
    expect(is_delay, "/retry_after_seconds", format!("must be a number from 0 to {}", limits::RETRY_SECONDS_MAX));
    // What is NUL within is written `\u0000`.
    let body = result.map(|result| Value::Object(result).to_string());
    let max = limits::OUTPUT_BYTES_MAX;
    let fits = body.as_ref().is_none_or(|body| body.len() <= max);
    expect(fits, "/result", format!("must have at most {max} bytes"));
    if !errors.is_empty() {
        return Err(Problem::validation(errors));
    }
    let result = body.map(|body| TaskResult { body: Some(body), ..TaskResult::default() });
    Ok(match status {
        AttemptStatus::Running => Word::Running(Progress { percent, message, heard_at: None }),
        AttemptStatus::Complete => Word::Complete(result),
        AttemptStatus::Failed => Word::Failed {
            result,
            message: message.filter(|message| !message.is_empty()).unwrap_or_else(|| NO_REASON.into()),
            permanent,
            retry_after_ms: retry_after_seconds.map(|seconds| (seconds * 1000.0).round() as u64),
        },
    })
}

/// Sees to it that targets can call back, where one of these is to. Pointers begin with the prefix: `/tasks/17/http/completion`.
///
/// # Errors
/// `validation_failed` where this gateway does not know how the outside reaches it; `database_unavailable`.
pub(crate) async fn prepare<'a>(
    app: &App,
    works: impl Iterator<Item = &'a Work>,
    prefix: impl Fn(usize) -> String,
) -> Result<(), Problem> {
    let calls_back = |work: &Work| matches!(work, Work::Http(http) if http.completion == Completion::Callback);
    let Some((place, _)) = works.enumerate().find(|(_, work)| calls_back(work)) else { return Ok(()) };
    if app.settings.public_url.is_none() {
        let detail = "targets cannot call back: this gateway does not know the URL by which they reach it; start it with --public-url \
                      (TASKMASTER_PUBLIC_URL)";
        let pointer = format!("{}/http/completion", prefix(place));
        return Err(Problem::field(Code::ValidationFailed, pointer, detail));
    }
    keep_public_url(app).await
}

/// Keeps this gateway's public URL where coordinators find it, once in the life of the process.
///
/// # Errors
/// `database_unavailable`.
pub(crate) async fn keep_public_url(app: &App) -> Result<(), Problem> {
    let Some(url) = &app.settings.public_url else { return Ok(()) };
    app.public_url_kept.get_or_try_init(|| app.store.keep_public_url(url)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(report: Value) -> Result<Word, String> {
        let report: AttemptReport = serde_json::from_value(report).unwrap();
        word(report).map_err(|problem| problem.errors[0].pointer.clone())
    }

    #[test]
    fn a_result_is_kept_as_text_and_a_failure_has_a_reason() {
        let body = |word: Word| match word {
            Word::Complete(result) => result.unwrap().body.unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(body(said(json!({"status": "COMPLETE", "result": {"pages": 12}})).unwrap()), r#"{"pages":12}"#);
        assert_eq!(said(json!({"status": "COMPLETE", "result": null})), Ok(Word::Complete(None)));
        let failed = said(json!({"status": "FAILED", "permanent": true, "retry_after_seconds": 1.5}));
        let expected =
            Word::Failed { result: None, message: NO_REASON.into(), permanent: true, retry_after_ms: Some(1500) };
        assert_eq!(failed, Ok(expected));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        for (report, pointer) in [
            (json!({"status": "RUNNING", "percent": 100.1}), "/percent"),
            (json!({"status": "RUNNING", "message": "x".repeat(1001)}), "/message"),
            (json!({"status": "FAILED", "message": "\0"}), "/message"),
            (json!({"status": "FAILED", "retry_after_seconds": -1}), "/retry_after_seconds"),
            (json!({"status": "COMPLETE", "result": {"text": "x".repeat(64 * 1024)}}), "/result"),
        ] {
            assert_eq!(said(report), Err(pointer.to_owned()));
        }
    }
}
