//! The operations on queues, of the public API.

use crate::gateway::{Page, paths};
use crate::problem::Problem;
use crate::queue::{PurgeRequest, PurgeResponse, Queue, QueueList, QueueSettings};
use crate::schedule::PauseRequest;

/// List queues, by name: every one that has ever had a task, or of which something is set.
#[utoipa::path(
    get, path = paths::QUEUES, operation_id = "listQueues", tag = "queues",
    params(Page),
    responses(
        (status = 200, description = "A page", body = QueueList, headers(("Link" = String, description = "The next page, `rel=\"next\"`"))),
        (status = "4XX", description = "A parameter is wrong; `errors` names it", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn list_queues() {}

/// One queue: what is set of it, whether it is paused, and how many tasks it has.
#[utoipa::path(
    get, path = paths::QUEUE, operation_id = "getQueue", tag = "queues",
    params(
        ("queue" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "mail", description = "The queue's name"),
        ("If-None-Match" = Option<String>, Header, max_length = 1000, description = "The `ETag` of the answer the client has"),
    ),
    responses(
        (status = 200, description = "The queue", body = Queue, headers(
            ("ETag" = String, description = "The revision, and what the figures are: `If-Match` goes by the revision alone"))),
        (status = 304, description = "The client has this answer already"),
        (status = "4XX", description = "No such queue", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:read"]))
)]
pub fn get_queue() {}

/// Set the limits and defaults of a queue by a JSON merge patch (RFC 7396). The queue need not have had a task.
///
/// Limits hold for every task that is given to a worker once this is answered; what workers have by then counts, and goes on. Defaults are
/// for tasks that are created a second from now or later. `docs/queues.md` says what is promised.
#[utoipa::path(
    patch, path = paths::QUEUE, operation_id = "changeQueue", tag = "queues",
    params(
        ("queue" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "mail", description = "The queue's name"),
        ("If-Match" = Option<String>, Header, max_length = 1000, description = "Change it only if nobody has since: the `ETag` of an answer"),
    ),
    request_body = QueueSettings,
    responses(
        (status = 200, description = "The queue as it is now", body = Queue, headers(("ETag" = String, description = "Of the queue as it is now"))),
        (status = 412, description = "Somebody has changed it: `If-Match` does not hold", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was changed; `code` says why, `errors` where", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn change_queue() {}

/// Forget all that is set of a queue: it has no limits and no defaults, and is not paused. Its tasks stay.
#[utoipa::path(
    delete, path = paths::QUEUE, operation_id = "resetQueue", tag = "queues",
    params(
        ("queue" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "mail", description = "The queue's name"),
        ("If-Match" = Option<String>, Header, max_length = 1000, description = "Forget it only if nobody has changed it since: the `ETag` of an answer"),
    ),
    responses(
        (status = 204, description = "Nothing is set of it"),
        (status = 412, description = "Somebody has changed it: `If-Match` does not hold", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "No such queue", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn reset_queue() {}

/// Pause a queue: once this is answered none of its tasks is given to a worker. What workers have goes on. Pausing it again changes nothing.
#[utoipa::path(
    post, path = paths::QUEUE_PAUSE, operation_id = "pauseQueue", tag = "queues",
    params(("queue" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "mail", description = "The queue's name")),
    request_body = PauseRequest,
    responses(
        (status = 200, description = "The queue, paused", body = Queue),
        (status = "4XX", description = "Nothing was changed", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn pause_queue() {}

/// Let a paused queue go on.
#[utoipa::path(
    post, path = paths::QUEUE_RESUME, operation_id = "resumeQueue", tag = "queues",
    params(("queue" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "mail", description = "The queue's name")),
    responses(
        (status = 200, description = "The queue", body = Queue),
        (status = "4XX", description = "No such queue", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn resume_queue() {}

/// Cancel what is QUEUED in a queue, up to 10,000 tasks a call. What workers have goes on. Try dry_run first.
#[utoipa::path(
    post, path = paths::QUEUE_PURGE, operation_id = "purgeQueue", tag = "queues",
    params(("queue" = String, Path, min_length = 1, max_length = 64, pattern = "^[A-Za-z0-9._-]+$", example = "mail", description = "The queue's name")),
    request_body = PurgeRequest,
    responses(
        (status = 200, description = "What was cancelled, or would be", body = PurgeResponse),
        (status = 404, description = "There is none with this name", body = Problem, content_type = "application/problem+json"),
        (status = "4XX", description = "Nothing was cancelled", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", description = "Not now; what was cancelled before stays so", body = Problem, content_type = "application/problem+json"),
    ),
    security((), ("api_key" = ["tasks:write"]))
)]
pub fn purge_queue() {}
