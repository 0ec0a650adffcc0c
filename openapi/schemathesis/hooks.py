"""What Schemathesis cannot know from the documents, and the few failures that are none, each with its reason."""

import collections
import datetime
import itertools
import json
import re

import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi.checks import RejectedPositiveData, UseAfterFree

# --- What it generates ---

# `uri` by itself would give any scheme. Nothing is ever sent there: the workers only pretend.
schemathesis.openapi.format("uri", st.integers(1, 65535).map(lambda port: f"http://127.0.0.1:{port}"))


def rfc3339(at):
    return at.isoformat() + "Z"


# The years that the API takes.
YEARS = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(9999, 12, 30))
schemathesis.openapi.format("date-time", YEARS.map(rfc3339))


def cron_field(low, high):
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda two: f"{min(two)}-{max(two)}")
    return st.one_of(st.just("*"), number.map(str), span, st.integers(1, high).map(lambda step: f"*/{step}"))


# Days that every month has, so that the date comes.
CRON_FIELDS = [cron_field(0, 59), cron_field(0, 23), cron_field(1, 28), cron_field(1, 12), cron_field(0, 6)]
SECONDS_FIRST = [cron_field(0, 59), *CRON_FIELDS]
CRON = st.one_of(
    st.tuples(*CRON_FIELDS).map(" ".join),
    st.tuples(*SECONDS_FIRST).map(" ".join),
    st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "0 9 * * MON-FRI", "0 0 L * *"]),
)
schemathesis.openapi.format("cron", CRON)
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kolkata", "America/St_Johns"]))


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The gateway of this run wants API keys, which the document leaves to the installation."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            ways = operation.get("security", [])
            if len(ways) > 1:
                operation["security"] = [way for way in ways if way]


# --- What a request may cost ---

# The example of `Prefer` comes with every case of an operation: each would take its time.
WAITS_MAX = 10
waits = itertools.count(1)
# So does that of `Idempotency-Key`: but for the first, all would be refused. One of so many is left as it is.
REPEATED_KEYS = 20
keys = itertools.count(1)
# More would be workers of one process, which show nothing that a few do not.
WORKERS_MAX = 4
# Beyond the end of any log: a stream that begins there has its first event at once (`log.truncated`), whatever its filters are.
BEYOND_THE_LOG = 2**53 - 1
FILTERS = {"queue", "task_id", "worker_id", "schedule_id"}
# What was made last. Of several ids in a path Schemathesis finds each by itself, and none that go together.
made = collections.deque(maxlen=100)
pairs = itertools.count(1)


@schemathesis.hook
def after_call(context, case, response):
    made.extend(response.headers.get("location", []))


@schemathesis.hook
def before_call(context, case, kwargs):
    """Makes a request cost less, or reach further, where it is as right or as wrong as it was."""
    if case.headers and re.match(r"wait=\d", str(case.headers.get("Prefer", ""))):
        case.headers["Prefer"] = "wait=1" if next(waits) <= WAITS_MAX else "wait=0"
    if is_example(case, "Idempotency-Key") and (number := next(keys)) % REPEATED_KEYS:
        case.headers["Idempotency-Key"] += f"-{number}"
    if not case.meta.generation.mode.is_positive:
        return
    drop_wrong_headers(case)
    find_ids_that_go_together(case)
    operation = case.operation.definition.raw.get("operationId")
    if operation == "streamEvents":
        begin_where_events_are(case)
    if operation == "scaleWorkers" and isinstance(case.body, dict):
        case.body["workers"] = min(case.body["workers"], WORKERS_MAX)


def headers_of(case):
    """The headers that the document has for the operation, and what is given of each."""
    parameters = case.operation.definition.raw.get("parameters", [])
    return [(one, case.headers[one["name"]]) for one in parameters if one["name"] in (case.headers or {})]


def is_example(case, header):
    return any(one["name"] == header and one.get("example") == given for one, given in headers_of(case))


def drop_wrong_headers(case):
    """In its coverage phase Schemathesis makes headers of letters and digits. Where the pattern wants more, it has none that is right."""
    for one, given in headers_of(case):
        if not re.search(one["schema"].get("pattern", ""), str(given)):
            del case.headers[one["name"]]


def find_ids_that_go_together(case):
    if len(case.path_parameters or {}) < 2:
        return
    parts = re.split(r"{(\w+)}", case.path)[:-1]
    texts, names = parts[::2], parts[1::2]
    pattern = "".join(f"{re.escape(text)}(?P<{name}>[^/]+)" for text, name in zip(texts, names))
    found = next(filter(None, (re.fullmatch(pattern, path) for path in reversed(made))), None)
    if found and next(pairs) % 2:
        case.path_parameters.update(found.groupdict())


def begin_where_events_are(case):
    """A stream is read up to its first event; without one it would be read until its time is over."""
    begin = BEYOND_THE_LOG if FILTERS & case.query.keys() else 0
    if "Last-Event-ID" in case.headers:
        case.headers["Last-Event-ID"] = str(begin)
    else:
        case.query["after"] = begin


# --- What is no failure ---

# What is right by the document and yet refused: the places and what is said there, of rules that JSON Schema has no words for.
RULES = [
    # A token is opaque: only the list itself makes one.
    r"page_token: (is not a token of this list|was made for other filters).*",
    # Of two values, which is larger.
    r".*/retry/initial_seconds: is longer than max_seconds.*",
    r"/ends_at: must not lie before starts_at",
    r"/to: must lie after from",
    # Bytes, where the document counts characters; and all of a list together.
    r".*: must have at most \d+ bytes.*",
    r".*/argv: must have at most \d+ bytes together.*",
    # Texts of any length: a pattern for them takes minutes to make one of 128 KiB by.
    r".*: must not contain the character NUL.*",
    r".*/command: must not be empty",
    r".*base64: must be base64 .*",
    r".*/headers(/.*)?: must be visible ASCII characters.*",
    # Names that are the same but for their case, and those that are set by whoever sends them.
    r".*/headers/.*: (is given twice|is set (by the worker|here), and cannot be given)",
    # Names in a list that is one text.
    r"types: .* is not a kind of event; there are: .*",
    # Which states can be left depends on the operation.
    r"/filter/status: must be one of .*",
    # Its own id, which every worker makes up.
    r"/worker_id: this is worker .*; the one it was meant for has gone",
    # What an incoming webhook may have depends on how it verifies, and on what it passes on.
    r"/secret: (is made here, and cannot be given|must be whsec_ .*)",
    r"/(secret|delivery_id)_header: (is not looked at by this kind of verification|is not the name of a header .*|is set by the worker.*)",
    r"/pass_headers/\d+: (has a secret, and is not passed on|is given twice|is set by the worker, and cannot be given)",
    r"/task/http/(body|body_base64): is what the sender sends.*",
    r"/task/http/(method|headers): must be .*",
    # Ranges that end before they begin, and those that meet.
    r".*/http/response/(success|retry|final)/\d+: (must be a status .*|has a status that .*)",
    # What `format` names, and no validator knows.
    r".*/cron: .*",
    r".*/time_zone: .*",
    # What `completion` is, which another field goes with.
    r".*/http/heartbeat_timeout_seconds: goes with completion callback only",
    # The clock.
    r"/expires_at: must lie in the future",
    r"/to: must not lie in the future",
    r"/(ends_at|every_seconds): leaves no occurrence that is still to come",
    # How many occurrences there are.
    r"/to: there are more than \d+ occurrences in the range; take a shorter one",
]
# What is changed is looked at together with what it leaves.
RULES_OF_CHANGES = [
    r".*: cannot be given together with .*",
    r".*: give exactly one of .*",
    r".*: missing field .*",
]
# What was asked before decides: nothing that one request could be checked by.
STATES = {
    "idempotency_mismatch", "precondition_failed", "too_many_flow_keys", "too_many_hooks", "too_many_queues", "too_many_requirements",
    "too_many_schedules", "too_many_url_workers", "too_many_webhooks",
}


def is_beyond_json_schema(case, response):
    try:
        problem = json.loads(response.content)
    except ValueError:
        return False
    rules = RULES + RULES_OF_CHANGES if case.method == "PATCH" else RULES
    errors = [f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", [])]
    known = bool(errors) and all(any(re.fullmatch(rule, error, re.DOTALL) for rule in rules) for error in errors)
    return known or problem.get("code") in STATES


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, UseAfterFree):
        # Queues exist by being used: what is deleted is what was set of them.
        return not case.path.startswith("/v1/queues/{queue}")
    return not (isinstance(failure, RejectedPositiveData) and is_beyond_json_schema(case, response))
