"""TaskMaster, measured through its public API, on the PostgreSQL that the peers get.

All figures are `taskmaster bench`'s own.
"""

import http.client
import json
import os
import subprocess
from pathlib import Path

from peers import tail
from servers import ROOT, Failed, free_port, stop, wait_until

NAME = "taskmaster"
LABEL = "TaskMaster"
QUEUE = "bench"
BATCH = 1_000
CONNECTIONS = 4
START_SECONDS = 60


class Up:
    """`taskmaster up` on a PostgreSQL that runs; its worker does nothing."""

    def __init__(self, args, postgres, directory):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = directory / "taskmaster.log"
        self.command = [program(), "up", "--database-url", postgres.url, "--port", str(self.port), "--log", "warn",
                        "--data-dir", str(directory / "taskmaster"), "--simulate", "0",
                        "--workers", str(args.workers), "--slots", str(args.slots)]

    def __enter__(self):
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
        wait_until(self.is_ready, START_SECONDS, "TaskMaster is ready")
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise Failed(f"taskmaster ended: {self.log.read_text()[-1000:]}")
        try:
            return self.request("/readyz")[0] == 200
        except OSError:
            return False

    def request(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def get(self, path):
        status, body = self.request(path)
        if status != 200:
            raise Failed(f"GET {path}: {status} {body[:500]}")
        return json.loads(body)

    def complete(self):
        queues = {queue["queue"]: queue["tasks"] for queue in self.get("/v1/stats")["queues"]}
        return queues[QUEUE]["complete"] if QUEUE in queues else 0

    def __exit__(self, *_):
        stop(self.process)


def program():
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    return os.environ.get("TASKMASTER", str(Path(target) / "release/taskmaster"))


def measure(what, tasks, args, postgres, directory):
    """One measurement, with the names of figures that the peers' programs use."""
    with Up(args, postgres, directory) as up:
        figures = {"both": throughput, "sustained": sustained, "latency": latency}[what](up, tasks, args)
        complete = up.complete()
        if complete != figures["handled"]:
            raise Failed(f"{complete} of {figures['handled']} tasks are COMPLETE")
    return figures


def throughput(up, tasks, args):
    """Creating and running at once."""
    figures = bench(up, args, "throughput", "--tasks", tasks, "--batch", BATCH, "--connections", CONNECTIONS)
    return {"handled": tasks, "insert": figures["created"]["seconds"], "total": figures["recorded"]["seconds"]}


def sustained(up, _, args):
    """Creating as fast as the tasks are done, for some seconds."""
    figures = bench(up, args, "sustained", "--seconds", round(args.sustained), "--batch", BATCH, "--connections",
                    CONNECTIONS)
    return {"handled": up.complete(), "rates": [figures[name]["per_second"] for name in ("recorded", "first", "last")]}


def latency(up, tasks, args):
    """One task at a time: from before its request until the start that was recorded, all by this machine's clock."""
    figures = bench(up, args, "latency", "--tasks", tasks)
    return {"handled": tasks, "percentiles": [figures["start"]["p50_ms"], figures["start"]["p99_ms"]]}


def bench(up, args, *what):
    command = [program(), "bench", *map(str, what), "--url", up.url, "--json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout + args.sustained)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done within {error.timeout:g} s: {tail(error.stderr)}") from None
    if done.returncode != 0:
        raise Failed(f"exit status {done.returncode}: {tail(done.stderr)}")
    return json.loads(done.stdout)
