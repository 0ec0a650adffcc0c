"""What Schemathesis cannot know from the documents, and the few failures that are none, each with its reason."""

import datetime
import itertools
import json
import re

import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi.checks import RejectedPositiveData

# --- What it generates ---

# `uri` by itself would give any scheme. Nothing is ever sent there: the workers only pretend.
schemathesis.openapi.format("uri", st.integers(1, 65535).map(lambda port: f"http://127.0.0.1:{port}"))


def rfc3339(at):
    return at.isoformat() + "Z"


# The years that the API takes.
YEARS = st.datetimes(datetime.datetime(1970, 1, 2), datetime.datetime(9999, 12, 30))
schemathesis.openapi.format("date-time", YEARS.map(rfc3339))


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The gateway of this run wants API keys, which the document leaves to the installation."""
    for item in raw_schema["paths"].values():
        for operation in item.values():
            ways = operation.get("security", [])
            if len(ways) > 1:
                operation["security"] = [way for way in ways if way]


# The example of `Prefer` comes with every case of an operation: each would take its time.
WAITS_MAX = 10
waits = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    """Waits are asked for, but few, and no long ones."""
    if case.headers and re.match(r"wait=\d", str(case.headers.get("Prefer", ""))):
        case.headers["Prefer"] = "wait=1" if next(waits) <= WAITS_MAX else "wait=0"


# --- What is no failure ---

# What is right by the document and yet refused: the places and what is said there, of rules that JSON Schema has no words for.
RULES = [
    # A token is opaque: only the list itself makes one.
    r"page_token: (is not a token of this list|was made for other filters).*",
    # Of two numbers, which is larger.
    r".*/retry/initial_seconds: is longer than max_seconds.*",
    # Bytes, where the document counts characters; and all of a list together.
    r".*: must have at most \d+ bytes.*",
    r".*/argv: must have at most \d+ bytes together.*",
    # Texts of any length: a pattern for them takes minutes to make one of 128 KiB by.
    r".*: must not contain the character NUL.*",
    r".*/command: must not be empty",
    r".*base64: must be base64 .*",
    r".*/http/headers(/.*)?: must be visible ASCII characters.*",
    # The program, but not its arguments.
    r".*/argv/0: must name the program",
    # Names that are the same but for their case, and those that the worker sets itself.
    r".*/http/headers/.*: (is given twice|is set by the worker, and cannot be given)",
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
    # The clock.
    r"/expires_at: must lie in the future",
]
# What was asked before decides: nothing that one request could be checked by.
STATES = {"idempotency_mismatch", "too_many_queues", "too_many_requirements", "too_many_url_workers"}


def is_beyond_json_schema(response):
    try:
        problem = json.loads(response.content)
    except ValueError:
        return False
    errors = [f"{error['pointer']}: {error['detail']}" for error in problem.get("errors", [])]
    known = bool(errors) and all(any(re.fullmatch(rule, error, re.DOTALL) for rule in RULES) for error in errors)
    return known or problem.get("code") in STATES


@schemathesis.hook
def filter_failure(context, failure, case, response):
    return not (isinstance(failure, RejectedPositiveData) and is_beyond_json_schema(response))
