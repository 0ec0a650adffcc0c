"""CPU time of PostgreSQL by statement, from what `log_statement_stats` writes: getrusage of the process around each message."""

import re

SETTINGS = {"log_statement_stats": "on", "log_min_error_statement": "log"}
# Each step, and what only its statements have in them.
STEPS = {
    "create": ("insert into tasks",),
    "claim": ("for update skip locked) due",),
    "start and outcome": ("insert into task_history",),
    "events: numbered, logged, counted": ("event_inbox where id >=", "taskmaster_advance_events"),
}
REST = "sweeps, looks, heartbeats, figures"
MESSAGE = re.compile(
    r"LOG:  \w+ (?:MESSAGE )?STATISTICS\n.*?!\s+([\d.]+) s user, ([\d.]+) s system.*?\n[^\n]*STATEMENT:  (.*?)(?=\n\d{4}-\d\d-\d\d |\Z)",
    re.DOTALL)


def seconds_by_step(log):
    """CPU seconds of each step's statements in a server's log."""
    used = dict.fromkeys([*STEPS, REST], 0.0)
    for user, system, statement in MESSAGE.findall(log):
        step = next((step for step, parts in STEPS.items() if any(part in statement for part in parts)), REST)
        used[step] += float(user) + float(system)
    return used
