//! What to do about each problem, in a sentence, for the documents.

use crate::problem::Code;

pub(super) fn advice(code: Code) -> &'static str {
    match code {
        Code::InvalidJson => "Send one JSON object, whole.",
        Code::InvalidBody => "`errors` names the field that is unknown, missing or of a wrong type.",
        Code::ValidationFailed => "`errors` names each field, and what it must be.",
        Code::InvalidQuery => "`errors` names the parameter, and what it must be.",
        Code::InvalidPath => "`errors` names the part of the path, and what it must be.",
        Code::InvalidHeader => "`errors` names the header, and what it must be.",
        Code::InvalidPageToken => {
            "Take `next_page_token` from the page before, with the same filters, or begin without one."
        }
        Code::Unauthorized => "Send `Authorization: Bearer …`, with what this operation wants.",
        Code::InsufficientScope => "Ask with a key that has the scope which `detail` names.",
        Code::ForbiddenOrigin => {
            "A gateway without API keys is for this machine's programs, not for web pages of others."
        }
        Code::NotFound => "`GET /docs` lists what there is.",
        Code::TaskNotFound => "Its history may have been dropped. `GET /v1/tasks` lists those that there are.",
        Code::WorkerNotFound => "It may have left. `GET /v1/workers` lists those that are there.",
        Code::KeyNotFound => "`GET /v1/keys` lists those that there are.",
        Code::ScheduleNotFound => "`GET /v1/schedules` lists those that there are.",
        Code::WebhookNotFound => "`GET /v1/webhooks` lists those that there are.",
        Code::HookNotFound => "`GET /v1/hooks` lists those that there are.",
        Code::DeliveryNotFound => {
            "It may be too long ago. `GET /v1/webhooks/{id}/deliveries` lists those that are kept."
        }
        Code::QueueNotFound => "`GET /v1/queues` lists those that there are.",
        Code::MethodNotAllowed => "`Allow` lists those that it has.",
        Code::RequestTimeout => "Send the whole body at once.",
        Code::TaskStateConflict => "`detail` says where the task stands; look at it again.",
        Code::AttemptOver => "Stop: what this attempt comes to does not count any more.",
        Code::KeyNotActive => "Make a new key.",
        Code::ScheduleNameTaken => "Take another name, or change the schedule that has it.",
        Code::WebhookDisabled => "Enable it first: `PATCH` it with `\"enabled\": true`.",
        Code::HookDisabled => "Its owner enables it: `PATCH` it with `\"enabled\": true`.",
        Code::PreconditionFailed => "Read it again, and decide anew.",
        Code::IdempotencyInFlight => "Ask again in a second.",
        Code::IdempotencyMismatch => "Take a new key for a new request.",
        Code::BodyTooLarge => "`detail` has the limit; split what you send.",
        Code::UnsupportedMediaType => "Send `Content-Type: application/json`.",
        Code::TooManyQueues => "Use one of those that there are.",
        Code::TooManyRequirements => {
            "Require what groups of workers have in common, not what differs from task to task."
        }
        Code::TooManyUrlWorkers => "Delete those that are needed no longer.",
        Code::TooManyFlowKeys => "Try again when the tasks of some keys have ended, or let keys share.",
        Code::TooManySchedules => "Delete those that are needed no longer.",
        Code::TooManyWebhooks => "Delete those that are needed no longer.",
        Code::TooManyHooks => "Delete those that are needed no longer.",
        Code::RateLimited => "Wait as many seconds as `Retry-After` says.",
        Code::Internal => "Try again; if it stays, report the `request_id`, which finds the cause in the logs.",
        Code::ScalingUnsupported => "`detail` says how this host scales.",
        Code::Overloaded => "Wait as many seconds as `Retry-After` says.",
        Code::DatabaseUnavailable => "Nothing is lost; try again in a few seconds.",
        Code::CoordinatorUnavailable => "Try again in a second.",
        Code::ShuttingDown => "Ask again: another process answers.",
        Code::Timeout => "What was asked for may still happen: look before you ask again.",
    }
}
