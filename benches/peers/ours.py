"""TaskMaster, measured through its public API, on the PostgreSQL that the peers get.

The figures of `throughput` are `taskmaster bench`'s own. It has no sustained run and no run at low load,
so those two are made here, with the same requests.
"""

import http.client
import json
import os
import re
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path

from peers import BACKLOG, tail
from servers import ROOT, Failed, free_port, stop, wait_until

NAME = "taskmaster"
LABEL = "TaskMaster"
QUEUE = "bench"
TASK = {"command": "true", "queue": QUEUE}
BATCH = 1_000
CONNECTIONS = 4
LATENCY_EVERY = 0.02
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
            return self.request("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def request(self, method, path, body=None, connection=None):
        connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()

    def get(self, path):
        status, body = self.request("GET", path)
        if status != 200:
            raise Failed(f"GET {path}: {status} {body[:500]}")
        return json.loads(body)

    def create(self, tasks, connection):
        status, body = self.request("POST", "/v1/tasks/batch", json.dumps({"tasks": tasks}), connection)
        if status // 100 != 2:
            raise Failed(f"a batch was refused: {status} {body[:500]}")

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
    command = [program(), "bench", "--url", up.url, "--tasks", str(tasks), "--batch", str(BATCH),
               "--connections", str(CONNECTIONS)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done within {error.timeout:g} s: {tail(error.stderr)}") from None
    if done.returncode != 0:
        raise Failed(f"exit status {done.returncode}: {tail(done.stderr)}")
    took = {name: tasks / float(rate) for name, rate in re.findall(r"^(created|recorded)\s+([\d.]+)", done.stdout, re.M)}
    return {"handled": tasks, "insert": took["created"], "total": took["recorded"]}


def sustained(up, _, args):
    """Creating for some seconds, as fast as the tasks are done: at most so many wait."""
    run = Sustained(up, args.sustained)
    producers = [threading.Thread(target=run.produce) for _ in range(CONNECTIONS)]
    for producer in producers:
        producer.start()
    samples = run.sample()
    for producer in producers:
        producer.join()
    if run.error:
        raise run.error
    wait_until(lambda: up.complete() >= run.created, args.timeout, f"all {run.created} tasks are COMPLETE")
    return {"handled": run.created, "inserted": run.created, "samples": samples}


class Sustained:
    LOOK_EVERY = 0.05

    def __init__(self, up, seconds):
        self.up, self.seconds, self.began = up, seconds, time.monotonic()
        self.created = self.complete = 0
        self.error, self.lock = None, threading.Lock()

    def elapsed(self):
        return time.monotonic() - self.began

    def produce(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.up.port, timeout=60)
        tasks = [TASK] * BATCH
        try:
            while self.elapsed() < self.seconds and not self.error:
                if self.may_create():
                    self.up.create(tasks, connection)
                else:
                    time.sleep(self.LOOK_EVERY / 10)
        except Exception as error:
            self.error = error

    def may_create(self):
        with self.lock:
            if self.created - self.complete + BATCH > BACKLOG:
                return False
            self.created += BATCH
            return True

    def sample(self):
        """How many tasks were complete after each tenth of the time."""
        samples = []
        while len(samples) < 10 and not self.error:
            self.complete = self.up.complete()
            if self.elapsed() >= self.seconds * (len(samples) + 1) / 10:
                samples.append(self.complete)
            time.sleep(self.LOOK_EVERY)
        return samples


def latency(up, tasks, args):
    """One task at a time: from before its request until the start that was recorded, all by this machine's clock."""
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=60)
    sent = {}
    for _ in range(tasks):
        before = time.time()
        _, body = up.request("POST", "/v1/tasks", json.dumps(TASK), connection)
        sent[json.loads(body)["id"]] = before
        time.sleep(LATENCY_EVERY)
    wait_until(lambda: up.complete() >= tasks, args.timeout, f"all {tasks} tasks are COMPLETE")
    return {"handled": tasks, "latencies_ms": [(started - sent[task]) * 1000 for task, started in starts(up)]}


def starts(up):
    token = ""
    while True:
        page = up.get(f"/v1/tasks?queue={QUEUE}&page_size=500&page_token={token}")
        for task in page["tasks"]:
            yield task["id"], datetime.fromisoformat(task["started_at"]).timestamp()
        token = page["next_page_token"]
        if not token:
            return
