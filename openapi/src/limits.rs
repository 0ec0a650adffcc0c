//! Every bound of the contracts, with its unit. Requests beyond one are refused with a problem that names it.

/// Largest body of a request for one task, and of any other request without a limit of its own.
pub const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Largest body of `POST /v1/tasks/batch`.
pub const BATCH_BODY_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Tasks of one batch.
pub const BATCH_TASKS_MAX: usize = 10_000;
/// Field errors listed in one problem document; further ones are counted, not listed.
pub const PROBLEM_ERRORS_MAX: usize = 100;

/// Length of a problem's `detail`, and of its `instance`.
pub const PROBLEM_DETAIL_CHARS_MAX: usize = 2_000;
/// Length of the place that a field error names.
pub const POINTER_CHARS_MAX: usize = 500;

/// Length of a shell command line: what Linux lets one argument have, its final NUL aside.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024 - 1;
/// Number of arguments of `argv`.
pub const ARGV_MAX: usize = 1_000;
/// Length of a target URL.
pub const URL_BYTES_MAX: usize = 8 * 1024;
/// Headers of an HTTP task.
pub const HEADERS_MAX: usize = 100;
/// Length of one header value.
pub const HEADER_VALUE_BYTES_MAX: usize = 8 * 1024;
/// Entries of each list of an HTTP task's `response`.
pub const RESPONSE_STATUSES_MAX: usize = 20;
/// Length of `traceparent`: what version 00 of W3C Trace Context has.
pub const TRACEPARENT_CHARS: usize = 55;
/// Length of `tracestate`: what is kept at least (W3C Trace Context, 3.3.1.5), and here at most.
pub const TRACESTATE_CHARS_MAX: usize = 512;
/// Length of a queue's name.
pub const QUEUE_NAME_CHARS_MAX: usize = 64;
/// Queues of one installation.
pub const QUEUES_MAX: usize = 1_000;
/// Labels that one task requires of its worker.
pub const REQUIRES_MAX: usize = 8;
/// Combinations of a queue, a kind of work and required labels of one installation. Those without labels do not count.
pub const REQUIREMENTS_MAX: usize = 1_000;
/// Kinds of tasks that nobody can run, in the figures.
pub const UNSERVED_MAX: usize = 100;
/// Length of a task's flow key.
pub const FLOW_KEY_CHARS_MAX: usize = 128;
/// Flow keys of one queue that have tasks at once, in queues with limits by key.
pub const FLOW_KEYS_MAX: usize = 1_000;
/// Tasks of one queue, or of one of its flow keys, at once.
pub const CONCURRENCY_MAX: i64 = 100_000;
/// Tasks of a rate.
pub const RATE_COUNT_MAX: i64 = 1_000_000;
/// Longest period of a rate: a day.
pub const RATE_SECONDS_MAX: i64 = 86_400;
/// Tasks that one purge may cancel.
pub const PURGE_MAX: i64 = 10_000;
/// Tags of one task.
pub const TAGS_MAX: usize = 20;
/// Length of a tag.
pub const TAG_CHARS_MAX: usize = 100;
/// Highest priority; 0 is the lowest and the default.
pub const PRIORITY_MAX: i64 = 9;
/// Attempts a task may ask for.
pub const ATTEMPTS_MAX: i64 = 100;
/// Attempts of a task that does not say.
pub const ATTEMPTS_DEFAULT: i64 = 3;
/// Longest time-out of one attempt: a day.
pub const TIMEOUT_SECONDS_MAX: i64 = 86_400;
/// Time-out of one attempt of a task that does not say.
pub const TIMEOUT_SECONDS_DEFAULT: i64 = 300;
/// Longest delay between two attempts: a week.
pub const RETRY_SECONDS_MAX: f64 = 604_800.0;
/// Longest `delay_seconds`: ten years.
pub const DELAY_SECONDS_MAX: f64 = 315_576_000.0;

/// Items of a page when the request does not say.
pub const PAGE_SIZE_DEFAULT: i64 = 50;
/// Items of a page at most; a larger `page_size` is lowered to it.
pub const PAGE_SIZE_MAX: i64 = 500;
/// Tasks one bulk cancel or retry may change.
pub const BULK_TASKS_MAX: i64 = 10_000;
/// Longest `Prefer: wait=N`.
pub const WAIT_SECONDS_MAX: u64 = 60;
/// Workers that `POST /v1/workers/scale` may ask for.
pub const SCALE_WORKERS_MAX: i64 = 200;

/// Length of an `Idempotency-Key`, without its quotes.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// Length of `Prefer`, `If-Match` and `If-None-Match`.
pub const REQUEST_HEADER_CHARS_MAX: usize = 1_000;
/// Length of a page token.
pub const PAGE_TOKEN_CHARS_MAX: usize = 500;
/// Length of `types` of `GET /v1/events`.
pub const EVENT_TYPES_CHARS_MAX: usize = 500;

/// Length of an API key's name.
pub const KEY_NAME_CHARS_MAX: usize = 100;
/// Longest `expires_in_seconds` of an API key: ten years.
pub const KEY_SECONDS_MAX: i64 = 315_576_000;
/// Longest overlap of an API key's old and new secret: 30 days.
pub const KEY_OVERLAP_SECONDS_MAX: i64 = 2_592_000;
/// Overlap of an API key's old and new secret when the request does not say: a day.
pub const KEY_OVERLAP_SECONDS_DEFAULT: i64 = 86_400;

/// Length of a schedule's name.
pub const SCHEDULE_NAME_CHARS_MAX: usize = 100;
/// Length of a cron expression.
pub const CRON_CHARS_MAX: usize = 200;
/// Longest interval of a schedule: 366 days.
pub const EVERY_SECONDS_MAX: i64 = 31_622_400;
/// Longest jitter of a schedule: a day.
pub const JITTER_SECONDS_MAX: i64 = 86_400;
/// Shortest window in which a schedule catches up: what is not later than this always runs.
pub const CATCH_UP_SECONDS_MIN: i64 = 60;
/// Longest window in which a schedule catches up: a week.
pub const CATCH_UP_SECONDS_MAX: i64 = 604_800;
/// Window in which a schedule catches up when it does not say: a day.
pub const CATCH_UP_SECONDS_DEFAULT: i64 = 86_400;
/// Failed runs in a row after which a schedule may ask to be paused.
pub const PAUSE_AFTER_FAILURES_MAX: i64 = 100;
/// Length of the reason of a pause.
pub const PAUSE_REASON_CHARS_MAX: usize = 500;
/// Occurrences of one preview.
pub const PREVIEW_MAX: i64 = 100;
/// Occurrences of a preview when the request does not say.
pub const PREVIEW_DEFAULT: i64 = 10;
/// Occurrences that one backfill may run.
pub const BACKFILL_MAX: usize = 10_000;
/// Webhooks of one installation.
pub const WEBHOOKS_MAX: i64 = 200;
/// Length of a webhook's description.
pub const WEBHOOK_DESCRIPTION_CHARS_MAX: usize = 200;
/// Queues that a webhook names.
pub const WEBHOOK_QUEUES_MAX: usize = 100;
/// Headers of a webhook, and of a callback.
pub const WEBHOOK_HEADERS_MAX: usize = 20;
/// Attempts of a delivery that does not say.
pub const WEBHOOK_ATTEMPTS_DEFAULT: i64 = 10;
/// Time-out of one attempt of a delivery that does not say.
pub const WEBHOOK_TIMEOUT_SECONDS_DEFAULT: i64 = 20;
/// Longest time-out of one attempt of a delivery.
pub const WEBHOOK_TIMEOUT_SECONDS_MAX: i64 = 30;
/// Deliveries of one webhook that may wait; it is disabled when there are more.
pub const WEBHOOK_WAITING_MAX: i64 = 100_000;
/// A webhook is disabled when every attempt has failed for so many days.
pub const WEBHOOK_FAILING_DAYS: i64 = 5;
/// Deliveries that one call may replay.
pub const REPLAY_MAX: i64 = 10_000;

/// Incoming webhooks of one installation.
pub const HOOKS_MAX: i64 = 1_000;
/// Length of an incoming webhook's name.
pub const HOOK_NAME_CHARS_MAX: usize = 100;
/// Length of an incoming webhook's secret.
pub const HOOK_SECRET_CHARS: std::ops::RangeInclusive<usize> = 16..=200;
/// Headers that an incoming webhook passes on.
pub const HOOK_HEADERS_MAX: usize = 20;
/// Length of the id that a sender gives its delivery; of a longer one its digest stands for it.
pub const HOOK_DELIVERY_ID_CHARS_MAX: usize = 255;
/// How far the time of a signature may be off: what Stripe and Standard Webhooks recommend.
pub const HOOK_TOLERANCE_SECONDS: u64 = 300;
/// For so many days the same delivery makes no second task: longer than GitHub (3) and Stripe (3) send one again.
pub const HOOK_DELIVERY_KEPT_DAYS: u64 = 7;
/// Deliveries of one incoming webhook that are listed: of its sender, and of whoever was not verified.
pub const HOOK_DELIVERIES_KEPT: i64 = 100;
/// See [`HOOK_DELIVERIES_KEPT`].
pub const HOOK_STRANGERS_KEPT: i64 = 20;

/// Workers of one installation that are only a URL.
pub const URL_WORKERS_MAX: i64 = 1_000;
/// Length of a worker's id.
pub const WORKER_ID_CHARS_MAX: usize = 128;
/// Length of the origin at which a worker or a coordinator is reached.
pub const ADDRESS_CHARS_MAX: usize = 200;
/// Queues that a worker names as those it serves.
pub const SERVED_QUEUES_MAX: usize = 100;
/// Length of a `push_secret`, at least and at most.
pub const PUSH_SECRET_CHARS: std::ops::RangeInclusive<usize> = 16..=128;
/// Length of a label's name.
pub const LABEL_NAME_CHARS_MAX: usize = 100;
/// Length of a label's text.
pub const LABEL_CHARS_MAX: usize = 200;
/// Slots of one worker.
pub const SLOTS_MAX: i64 = 1_000;
/// Tasks one worker may hold, running and queued together.
pub const HELD_TASKS_MAX: usize = 10_000;
/// Labels of one worker.
pub const LABELS_MAX: usize = 20;
/// Items of one status report, and of one submission to a worker.
pub const REPORTS_MAX: usize = 2_000;
/// Body of the messages between coordinator and worker.
pub const INTERNAL_BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Largest whole number: every reader of JSON keeps it exactly (RFC 8259, 6).
pub const INTEGER_MAX: i64 = 9_007_199_254_740_991;
/// Longest duration and delay in a message between processes, in milliseconds: ten years.
pub const MILLISECONDS_MAX: i64 = 315_576_000_000;
/// Longest `retry_after_ms` of a report: a week.
pub const RETRY_AFTER_MS_MAX: u64 = 604_800_000;
/// Length of an id: a UUID with its hyphens (RFC 9562).
pub const UUID_CHARS: usize = 36;
/// Length of a time (RFC 3339).
pub const TIME_CHARS_MAX: usize = 64;
/// Length of a request's id.
pub const REQUEST_ID_CHARS_MAX: usize = 128;
/// Largest `Retry-After`: a day, in seconds.
pub const RETRY_AFTER_SECONDS_MAX: i64 = 86_400;
/// Length of `RateLimit` and `RateLimit-Policy`.
pub const RATE_LIMIT_HEADER_CHARS_MAX: usize = 100;
/// Length of a header's name.
pub const HEADER_NAME_CHARS_MAX: usize = 256;

/// Output kept of each of stdout, stderr and an HTTP answer's body; the rest is dropped and `…_truncated` says so.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// The same as base64.
pub const OUTPUT_BASE64_CHARS_MAX: usize = OUTPUT_BYTES_MAX.div_ceil(3) * 4;
/// Headers kept of an HTTP target's answer.
pub const RESULT_HEADERS_MAX: usize = 50;
/// Length of an error's message.
pub const ERROR_MESSAGE_CHARS_MAX: usize = 1_000;
