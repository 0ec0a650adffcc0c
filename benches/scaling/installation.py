"""Gateways, coordinators and workers as processes of their own, on a PostgreSQL that runs."""

import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "benches/peers"))
from servers import Failed, free_port, stop, wait_until  # noqa: E402

PROGRAM = os.environ.get("TASKMASTER", str(ROOT / "target/release/taskmaster"))
TOKEN = "a-join-token-of-the-benchmark"
TICKS = os.sysconf("SC_CLK_TCK")
START_SECONDS = 60
# All processes together stay below PostgreSQL's 100 connections.
CONNECTIONS_MAX = 80


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return json.load(answer)


def is_ready(url):
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=5):
            return True
    except OSError:
        return False


class Installation:
    """Everything, started and ready."""

    def __init__(self, postgres, parts, workers, slots, simulate):
        self.postgres, self.processes = postgres, {"gateways": [], "coordinators": [], "workers": []}
        self.environment = os.environ | {
            "DATABASE_URL": postgres.url, "TASKMASTER_JOIN_TOKEN": TOKEN, "TASKMASTER_LOG": "warn",
            "TASKMASTER_DATABASE_POOL_MAX": str(max(2, min(20, CONNECTIONS_MAX // (2 * parts)))),
        }
        self.log = tempfile.TemporaryFile()
        subprocess.run([PROGRAM, "migrate"], env=self.environment, check=True, stdout=self.log, stderr=self.log)
        self.gateways = [self.serve("gateway") for _ in range(parts)]
        coordinators = [self.serve("coordinator") for _ in range(parts)]
        for url in self.gateways + coordinators:
            wait_until(lambda: is_ready(url), START_SECONDS, f"{url} is ready")
        for number in range(workers):
            turned = coordinators[number % parts:] + coordinators[:number % parts]
            self.start("worker", "--simulate", simulate, "--allow-commands", "--listen", "127.0.0.1:0",
                       "--slots", str(slots), "--coordinator-url", ",".join(turned))
        listed = lambda: len(get(f"{self.gateways[0]}/v1/workers")["workers"]) == workers
        wait_until(listed, START_SECONDS, f"{workers} workers are listed")

    def start(self, kind, *arguments):
        command = [PROGRAM, kind, *arguments]
        self.processes[f"{kind}s"].append(
            subprocess.Popen(command, env=self.environment, stdout=self.log, stderr=self.log))

    def serve(self, kind):
        address = f"127.0.0.1:{free_port()}"
        self.start(kind, "--listen", address)
        return f"http://{address}"

    def complete(self):
        return get(f"{self.gateways[0]}/v1/stats")["tasks"]["complete"]

    def cpu(self):
        """CPU seconds so far, by kind of process."""
        used = {kind: sum(cpu_of(process.pid) for process in some) for kind, some in self.processes.items()}
        first = self.postgres.process.pid
        # The first process has those of its children that have ended.
        return used | {"PostgreSQL": cpu_of(first, ended=True) + sum(cpu_of(pid) for pid in children_of(first))}

    def cpu_since(self, before):
        """CPU seconds since then, by kind of process."""
        return {kind: seconds - before[kind] for kind, seconds in self.cpu().items()}

    def resident_mib(self):
        """Memory of the largest process of each kind."""
        return {kind: max(resident_mib_of(process.pid) for process in some) for kind, some in self.processes.items()}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for kind in ("workers", "gateways", "coordinators"):
            for process in self.processes[kind]:
                stop(process)
        self.log.close()


def stat_of(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_of(pid, ended=False):
    stat = stat_of(pid)
    return sum(int(field) for field in stat[11:15 if ended else 13]) / TICKS if stat else 0.0


def resident_mib_of(pid):
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def children_of(parent):
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (stat := stat_of(pid)) and int(stat[1]) == parent]


def newest_programs():
    found = [path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()]
    if not found:
        raise Failed("PostgreSQL's programs are not in /usr/lib/postgresql: name their directory with --postgres")
    return max(found, key=lambda path: int(path.parent.name))
