"""The peers, and how one of them is measured once: its program is started, and its word is checked."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from servers import Failed

HERE = Path(__file__).resolve().parent
NODE = HERE / "node/main.mjs"
BACKLOG = 20_000


@dataclass(frozen=True)
class Peer:
    name: str
    label: str
    package: str
    finished: str
    settings: str
    # Jobs of one insert, and inserts at once.
    batch: int
    connections: int
    # Counts what is not done, or what is, once all should be.
    left: str | None = None
    done: str | None = None
    on_node: bool = False
    by_default: bool = True


PEERS = [
    Peer("graphile-worker", "graphile_worker (Rust)", "graphile_worker", "deleted",
         "local queue 1,000 × 4, concurrency 32, completions batched for 1 ms", 2_000, 2,
         left="SELECT count(*) FROM graphile_worker._private_jobs"),
    Peer("apalis", "apalis-postgres (Rust)", "apalis-postgres", "kept",
         "3 workers, batches of 2,000, polled every 20 ms and notified", 2_000, 2,
         done="SELECT count(*) FROM apalis.jobs WHERE status = 'Done'"),
    Peer("awa", "awa (Rust)", "awa", "kept",
         "direct COPY, 2 partitions, 1,024 workers, no deadlines", 2_000, 2,
         done=(HERE / "src/awa_done.sql").read_text()),
    Peer("graphile-worker-node", "Graphile Worker (Node)", "graphile-worker", "deleted",
         "local queue 1,000, concurrency 32, completions batched for 1 ms", 2_000, 2,
         left="SELECT count(*) FROM graphile_worker._private_jobs", on_node=True),
    Peer("pg-boss", "pg-boss (Node)", "pg-boss", "kept",
         "2 loops that fetch and complete 2,000 at once", 2_000, 2,
         done="SELECT count(*) FROM pgboss.job WHERE state = 'completed'", on_node=True, by_default=False),
    Peer("bullmq", "BullMQ (Node, Redis)", "bullmq", "kept",
         "concurrency 256; Redis with appendonly, appendfsync always", 2_000, 2, on_node=True, by_default=False),
]


def measure(peer, what, tasks, args, postgres, redis_port):
    """One measurement. Gives back what the peer's program prints."""
    flags = {"tasks": tasks, "batch": peer.batch, "connections": peer.connections, "backlog": BACKLOG,
             "seconds": args.sustained}
    program = ["node", NODE] if peer.on_node else [rust_program()]
    command = [*program, peer.name, what, *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
    environment = os.environ | {"DATABASE_URL": postgres.url, "REDIS_PORT": str(redis_port)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/",
                              timeout=args.timeout + args.sustained)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"not done within {error.timeout:g} s: {tail(error.stderr)}") from None
    if done.returncode != 0:
        raise Failed(f"exit status {done.returncode}: {tail(done.stderr)}")
    figures = json.loads(done.stdout)
    check(peer, figures, figures.get("inserted", tasks), postgres)
    return figures


def check(peer, figures, tasks, postgres):
    """Every job was handled, and the database says so."""
    if figures["handled"] != tasks:
        raise Failed(f"{figures['handled']} of {tasks} jobs were handled")
    if peer.left and (left := postgres.count(peer.left)) != 0:
        raise Failed(f"{left} of {tasks} jobs are left in the database")
    if peer.done and (done := postgres.count(peer.done)) != tasks:
        raise Failed(f"{done} of {tasks} jobs are done in the database")


def rust_program():
    return Path(os.environ.get("PEERS_TARGET_DIR", HERE / "target")) / "release/taskmaster-peers"


def tail(stderr):
    text = stderr.decode(errors="replace") if isinstance(stderr, bytes) else stderr or ""
    return text.strip()[-1000:]


def versions():
    """Of every package, from the lock files."""
    versions = {}
    for block in (HERE / "Cargo.lock").read_text().split("[[package]]")[1:]:
        fields = dict(line.split(" = ", 1) for line in block.strip().splitlines()[:2])
        versions[json.loads(fields["name"])] = json.loads(fields["version"])
    for path, package in json.loads((HERE / "node/package-lock.json").read_text())["packages"].items():
        versions[path.removeprefix("node_modules/")] = package.get("version")
    return versions
