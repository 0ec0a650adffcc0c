#!/usr/bin/env python3
"""Measures TaskMaster and its peers in turn: A, B, C, A, B, C, …, each run on a PostgreSQL of its own.

`benches/peers/run` builds everything and starts this. What is measured, and how: docs/benchmarks.md.
"""

import argparse
import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

import ours
import peers
import report
from servers import Postgres, Redis

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description="Measures TaskMaster and its peers in turn.")
    names = ", ".join([ours.NAME, *(peer.name for peer in peers.PEERS)])
    parser.add_argument("--tasks", type=int, default=100_000, help="jobs of a run (100,000)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each peer (3)")
    parser.add_argument("--sustained", type=float, default=0, metavar="SECONDS",
                        help="also insert and work for so long, with a bounded backlog")
    parser.add_argument("--latency", type=int, default=300, metavar="JOBS",
                        help="jobs of the run at low load, 50 a second (300); 0: no such run")
    parser.add_argument("--only", metavar="NAMES", help=f"these and no others, of: {names}")
    parser.add_argument("--with", dest="also", metavar="NAMES", default="", help="pg-boss, bullmq as well")
    parser.add_argument("--all", action="store_true", help="all peers")
    parser.add_argument("--stock", action="store_true", help="PostgreSQL's own settings, with more shared_buffers only")
    parser.add_argument("--workers", type=int, default=1, help="TaskMaster's workers (1)")
    parser.add_argument("--slots", type=int, default=5, help="slots of each of them (5)")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="the longest that a run may take (300)")
    parser.add_argument("--postgres", metavar="DIRECTORY", default=newest_postgres(), help="PostgreSQL's programs")
    parser.add_argument("--directory", metavar="DIRECTORY", help="where databases are put for a while; on a disk")
    parser.add_argument("--out", type=Path, default=HERE / "results/latest", metavar="PATH",
                        help="PATH.md, PATH.json and PATH.svg are written (results/latest)")
    args = parser.parse_args()
    args.names = chosen(args, parser)
    return args


def newest_postgres():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if found:
        return str(found[-1])
    on_path = shutil.which("postgres")
    return on_path and str(Path(on_path).parent)


def chosen(args, parser):
    known = [ours.NAME, *(peer.name for peer in peers.PEERS)]
    usual = [ours.NAME, *(peer.name for peer in peers.PEERS if peer.by_default or args.all)]
    wanted = args.only.split(",") if args.only else usual + [name for name in args.also.split(",") if name]
    if unknown := set(wanted) - set(known):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(known)}")
    if not args.postgres:
        parser.error("PostgreSQL's programs were not found: --postgres DIRECTORY")
    return [name for name in known if name in wanted]


def main():
    # As Ctrl-C does: what was started is ended.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = arguments()
    result = description(args)
    directory = Path(tempfile.mkdtemp(prefix="taskmaster-peers-", dir=args.directory))
    try:
        postgres = Postgres(args.postgres, directory, args.stock)
        result |= {"postgres": postgres.version(), "settings": postgres.settings}
        rounds(args, postgres, directory, result)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(report.table(result))
    if result["failures"]:
        sys.exit("\n".join(["Failed:", *result["failures"]]))


def description(args):
    known = {peer.name: peer for peer in peers.PEERS}
    versions = peers.versions()
    described = []
    for name in args.names:
        if name == ours.NAME:
            one = {"label": ours.LABEL, "version": "", "finished": "kept", "batch": ours.BATCH, "connections": ours.CONNECTIONS,
                   "settings": f"everything over HTTP; {args.workers} × {args.slots} slots that do nothing"}
        else:
            peer = known[name]
            one = {"label": peer.label, "version": versions[peer.package], "finished": peer.finished, "batch": peer.batch,
                   "connections": peer.connections, "settings": peer.settings}
        described.append({"name": name, **one, "runs": [], "figures": {}})
    return {"date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "commit": report.commit(),
            "command": command(), "machine": report.machine(), "tasks": args.tasks,
            "rounds": args.rounds, "peers": described, "failures": []}


def command():
    built = os.environ.get("TASKMASTER")
    return shlex.join([*([f"TASKMASTER={built}"] if built else []), "benches/peers/run", *sys.argv[1:]])


def rounds(args, postgres, directory, result):
    """What was measured so far is written after every round."""
    for number in range(1, args.rounds + 1):
        for peer in result["peers"]:
            peer["runs"].append(measure_all(number, peer["name"], args, postgres, directory, result["failures"]))
            peer["figures"] = report.summary(peer["runs"], args.tasks)
        report.write(result, args.out)


def measure_all(number, name, args, postgres, directory, failures):
    run = {}
    for what, tasks in measures(name, args):
        print(f"round {number}: {name}, {what} …", end=" ", flush=True)
        try:
            run[what] = measure(name, what, tasks, args, postgres, directory) | {"seconds": args.sustained}
            print(brief(run[what], tasks), flush=True)
        except Exception as failure:
            # One peer's failure does not cost the others' figures; the command fails at its end.
            print(f"FAILED: {failure}", flush=True)
            failures.append(f"round {number}: {name}, {what}: {failure}")
    return run


def measures(name, args):
    throughput = ["both"] if name == ours.NAME else ["drain", "both"]
    yield from ((what, args.tasks) for what in throughput)
    if args.latency:
        yield "latency", args.latency
    if args.sustained:
        yield "sustained", 0


def measure(name, what, tasks, args, postgres, directory):
    with contextlib.ExitStack() as servers:
        servers.enter_context(postgres)
        if name == ours.NAME:
            return ours.measure(what, tasks, args, postgres, directory)
        redis = servers.enter_context(Redis(directory)) if name == "bullmq" else None
        peer = next(peer for peer in peers.PEERS if peer.name == name)
        return peers.measure(peer, what, tasks, args, postgres, redis and redis.port)


def brief(figures, tasks):
    if "total" in figures:
        return f"{tasks / figures['total']:,.0f} a second"
    if "rates" in figures:
        return f"{figures['rates'][0]:,.0f} a second"
    if "percentiles" in figures:
        return f"p50 {figures['percentiles'][0]:.1f} ms"
    if "samples" in figures:
        return f"{figures['samples'][-1] / figures['seconds']:,.0f} a second"
    return f"p50 {report.percentile(figures['latencies_ms'], 0.5):.1f} ms"


if __name__ == "__main__":
    main()
