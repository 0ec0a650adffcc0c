//! What a worker that is only a URL must be like: [`NewUrlWorker`] in, [`UrlWorkerToKeep`] out, or every field that is wrong.

use taskmaster_openapi::coordinator::Abilities;
use taskmaster_openapi::url_worker::NewUrlWorker;
use taskmaster_openapi::{Code, Problem, limits};
use taskmaster_store::url_workers::UrlWorkerToKeep;

use super::{Errors, check_labels, http, whole, wrong_queue, wrong_worker_id};

/// Calls at once of one that does not say.
const SLOTS_DEFAULT: i64 = 10;

/// Checks one that is to be kept.
///
/// # Errors
/// `invalid_path`, or `validation_failed` with every field that is wrong.
pub(crate) fn new(worker_id: String, new: NewUrlWorker) -> Result<UrlWorkerToKeep, Problem> {
    if let Some(detail) = wrong_worker_id(&worker_id) {
        return Err(Problem::field(Code::InvalidPath, "worker_id", detail));
    }
    let mut errors = Errors::default();
    let max = limits::ADDRESS_CHARS_MAX;
    if let Some(detail) = http::wrong_url(&new.url) {
        errors.add("/url", detail);
    } else if new.url.chars().count() > max {
        errors.add("/url", format!("must have at most {max} characters"));
    }
    let slots = whole("/slots", new.slots, SLOTS_DEFAULT, 1..=limits::SLOTS_MAX, &mut errors);
    let max = limits::SERVED_QUEUES_MAX;
    if !(1..=max).contains(&new.queues.len()) {
        errors.add("/queues", format!("must be 1 to {max}"));
    } else {
        for (i, queue) in new.queues.iter().enumerate() {
            if let Some(detail) = wrong_queue(queue) {
                errors.add(format!("/queues/{i}"), detail);
            }
        }
    }
    check_labels("/labels", &new.labels, limits::LABELS_MAX, &mut errors);
    let (http, commands) = (new.http.unwrap_or(true), new.commands.unwrap_or(false));
    if !http && !commands {
        errors.add("/http", "must be true, unless commands is: there would be nothing to do");
    }
    let secret = new.push_secret.as_str();
    if !limits::PUSH_SECRET_CHARS.contains(&secret.len()) || !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
        errors.add("/push_secret", "must be 16 to 128 visible ASCII characters");
    }
    match errors.count {
        0 => Ok(UrlWorkerToKeep {
            worker_id,
            url: new.url,
            slots: i32::try_from(slots).unwrap_or(1),
            abilities: Abilities { commands, http, http_rules: false, queues: new.queues },
            labels: new.labels,
            push_secret: new.push_secret,
        }),
        _ => Err(errors.into_problem()),
    }
}
