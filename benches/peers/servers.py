"""The servers that peers work on: a private PostgreSQL, and Redis for BullMQ. New and empty for every run."""

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# What `taskmaster up` runs its own PostgreSQL with. Read from there, so that it is the same for everybody.
SETTINGS = ROOT / "src/postgres/settings.rs"
SHARED_BUFFERS = "256MB"
START_SECONDS = 60
STOP_SECONDS = 60


class Failed(Exception):
    """What a run failed of."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(ready, seconds, what):
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.05)


def stop(process, first=signal.SIGTERM):
    """Ends a process, politely and then not."""
    if process.poll() is None:
        process.send_signal(first)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Postgres:
    """A private cluster. PostgreSQL does not run as root: then it runs as the user `postgres`."""

    def __init__(self, programs, directory, stock):
        self.programs, self.directory = Path(programs), directory
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        self.empty, self.data = directory / "empty", directory / "data"
        self.settings = stock_settings() if stock else self.tuned_settings()
        if self.user:
            shutil.chown(directory, "postgres", "postgres")
        initdb = [self.programs / "initdb", "--encoding=UTF8", "--locale=C", "--auth=trust", "--username=postgres"]
        wal_file = [] if stock else ["--wal-segsize", *read_settings(r'WAL_FILE_MIB: &str = "(\d+)"')]
        self.output([*initdb, *wal_file, "--pgdata", self.empty])

    def tuned_settings(self):
        settings = read_settings(r'\("(\w+)", "(.*)"\),')
        has_lz4 = "--with-lz4" in self.output([self.programs / "pg_config", "--configure"])
        return dict(settings) | {"shared_buffers": SHARED_BUFFERS, "wal_compression": "lz4" if has_lz4 else "on"}

    def version(self):
        return self.output([self.programs / "postgres", "--version"]).split()[2]

    def output(self, command):
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", **self.user)
        if done.returncode != 0:
            raise Failed(f"{command[0]}: {done.stderr.strip()}")
        return done.stdout

    def __enter__(self):
        self.output(["cp", "-a", self.empty, self.data])
        self.port = free_port()
        self.url = f"postgres://postgres@127.0.0.1:{self.port}/postgres"
        where = {"port": self.port, "unix_socket_directories": self.directory}
        arguments = [f"-c{name}={value}" for name, value in (self.settings | where).items()]
        self.log = open(self.directory / "postgres.log", "w")
        command = [self.programs / "postgres", "-D", self.data, *arguments]
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, cwd="/", **self.user)
        wait_until(self.is_ready, START_SECONDS, "PostgreSQL is ready")
        return self

    def is_ready(self):
        if self.process.poll() is not None:
            raise Failed(f"PostgreSQL ended: {Path(self.log.name).read_text()[-2000:]}")
        asked = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, timeout=10).returncode == 0

    def count(self, query):
        return int(self.output([self.programs / "psql", "-XAtq", "-d", self.url, "-c", query]))

    def __exit__(self, *_):
        # SIGINT: without waiting for clients.
        stop(self.process, signal.SIGINT)
        self.log.close()
        shutil.rmtree(self.data, ignore_errors=True)


def read_settings(pattern):
    found = re.findall(pattern, SETTINGS.read_text())
    if not found:
        raise Failed(f"no settings in {SETTINGS}")
    return found


def stock_settings():
    return {"shared_buffers": SHARED_BUFFERS, "listen_addresses": "127.0.0.1"}


class Redis:
    """As durable as it can be told to be."""

    APPENDFSYNC = "always"

    def __init__(self, directory):
        self.data = directory / "redis"

    def __enter__(self):
        self.data.mkdir()
        self.port = free_port()
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.data, "save": "", "appendonly": "yes",
                    "appendfsync": self.APPENDFSYNC, "maxmemory-policy": "noeviction"}
        arguments = [str(word) for name, value in settings.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen(["redis-server", *arguments], stdout=subprocess.DEVNULL)
        wait_until(self.is_ready, START_SECONDS, "Redis is ready")
        return self

    def is_ready(self):
        asked = subprocess.run(["redis-cli", "-p", str(self.port), "ping"], capture_output=True, text=True, timeout=10)
        return asked.stdout.strip() == "PONG"

    def __exit__(self, *_):
        stop(self.process)
        shutil.rmtree(self.data, ignore_errors=True)
