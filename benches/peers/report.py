"""What was measured, as a table for people, JSON for programs and a plot."""

import json
import math
import os
import platform
import subprocess
from statistics import median
from xml.sax.saxutils import escape

from servers import ROOT

BAR, GAP, LEFT, WIDTH = 22, 14, 210, 860


def summary(runs, tasks):
    """Medians of one peer's runs, a round each: insert/s, drain/s, both ways of doing all jobs, and the better of those."""
    rates = {
        "insert": [tasks / run["insert"] for run in of(runs, "drain") or of(runs, "both")],
        "drain": [tasks / (run["total"] - run["insert"]) for run in of(runs, "drain")],
        "insert, then drain": [tasks / run["total"] for run in of(runs, "drain")],
        "insert while draining": [tasks / run["total"] for run in of(runs, "both")],
    }
    figures = {name: median(values) for name, values in rates.items() if values}
    ways = [name for name in ("insert, then drain", "insert while draining") if name in figures]
    if ways:
        best = max(ways, key=figures.get)
        figures |= {"tasks/s": figures[best], "lowest": min(rates[best]), "highest": max(rates[best])}
    return figures | sustained(of(runs, "sustained")) | latency(of(runs, "latency"))


def of(runs, measure):
    return [run[measure] for run in runs if measure in run]


def sustained(runs):
    if not runs:
        return {}
    rates = [run.get("rates") or [run["samples"][-1] / run["seconds"], tenth(run, 0), tenth(run, 9)] for run in runs]
    return dict(zip(("sustained/s", "first tenth/s", "last tenth/s"), map(median, zip(*rates))))


def tenth(run, number):
    samples = [0, *run["samples"]]
    return (samples[number + 1] - samples[number]) / (run["seconds"] / 10)


def latency(runs):
    if not runs:
        return {}
    percentiles = [run.get("percentiles") or [percentile(run["latencies_ms"], share) for share in (0.5, 0.99)] for run in runs]
    return dict(zip(("p50 ms", "p99 ms"), map(median, zip(*percentiles))))


def percentile(values, share):
    return sorted(values)[max(0, math.ceil(len(values) * share) - 1)]


# A figure's name, and the head of its column.
COLUMNS = [("insert", "insert/s"), ("drain", "drain/s"), ("insert, then drain", "insert, then drain"),
           ("insert while draining", "insert while draining"), ("tasks/s", "**tasks/s**"), ("range", "lowest – highest"),
           ("ratio", "TaskMaster ÷ it"), ("sustained/s", "sustained/s"), ("first tenth/s", "its first tenth"),
           ("last tenth/s", "its last tenth"), ("p50 ms", "start p50 ms"), ("p99 ms", "start p99 ms")]


def table(result):
    shown = [(key, title) for key, title in COLUMNS if any(cell(peer, key, result) != "" for peer in result["peers"])]
    lines = ["| | finished jobs are | " + " | ".join(title for _, title in shown) + " |", "|---|---|" + "---:|" * len(shown)]
    for peer in result["peers"]:
        cells = [f"{peer['label']} {peer['version']}".strip(), peer["finished"], *(cell(peer, key, result) for key, _ in shown)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def cell(peer, key, result):
    figures = peer["figures"]
    if key == "range" and "lowest" in figures:
        return f"{figures['lowest']:,.0f} – {figures['highest']:,.0f}"
    if key == "ratio":
        ours = result["peers"][0]["figures"].get("tasks/s")
        return f"{ours / figures['tasks/s']:.2f}" if ours and "tasks/s" in figures else ""
    if key not in figures:
        return ""
    return f"{figures[key]:.1f}" if key.endswith("ms") else f"{figures[key]:,.0f}"


def page(result):
    machine = result["machine"]
    lines = [
        "# TaskMaster and its peers, measured",
        "",
        f"{result['date']}, commit {result['commit']}: {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory']}, {machine['system']}, PostgreSQL {result['postgres']}. "
        f"Its load when this began was {machine['load']:.2f}; others were using it if that is not the build's own.",
        "",
        f"`{result['command']}`: {result['tasks']:,} jobs, {result['rounds']} rounds, medians. "
        "What is measured, and how: [docs/benchmarks.md](../../../docs/benchmarks.md).",
        "",
        table(result),
        *[f"- {peer['label']}: {peer['settings']}; {peer['batch']:,} jobs an insert, {peer['connections']} inserts at once."
          for peer in result["peers"]],
        *[f"- **Failed:** {failure}" for failure in result["failures"]],
        "",
        "PostgreSQL's settings: " + ", ".join(f"`{name}={value}`" for name, value in result["settings"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def plot(result):
    """Bars: how many tasks a second, with the lowest and the highest of the rounds."""
    peers = [peer for peer in result["peers"] if "tasks/s" in peer["figures"]]
    most = max((peer["figures"]["highest"] for peer in peers), default=1)
    scale = (WIDTH - LEFT - 90) / most
    height = 70 + len(peers) * (BAR + GAP)
    title = f"Jobs a second: insert and drain of {result['tasks']:,}, median of {result['rounds']} rounds"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
             f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
             f'<text x="12" y="26" font-size="16">{escape(title)}</text>']
    for row, peer in enumerate(peers):
        parts += bar(peer, 46 + row * (BAR + GAP), scale, "#c2410c" if row == 0 else "#64748b")
    note = f"{result['machine']['cores']} cores, PostgreSQL {result['postgres']}, fsync on; lines from the lowest to the highest round"
    parts += [f'<text x="12" y="{height - 10}" fill="#555">{escape(note)}</text>', "</svg>"]
    return "\n".join(parts) + "\n"


def bar(peer, y, scale, colour):
    figures = peer["figures"]
    middle, low, high = (LEFT + figures[name] * scale for name in ("tasks/s", "lowest", "highest"))
    text = y + BAR * 0.7
    return [f'<text x="{LEFT - 8}" y="{text:.1f}" text-anchor="end">{escape(peer["label"])}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{middle - LEFT:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + BAR / 2}" y2="{y + BAR / 2}" stroke="black"/>',
            f'<text x="{max(middle, high) + 8:.1f}" y="{text:.1f}">{figures["tasks/s"]:,.0f}</text>']


def write(result, place):
    """PLACE.md, PLACE.json and PLACE.svg."""
    place.parent.mkdir(parents=True, exist_ok=True)
    place.with_suffix(".md").write_text(page(result))
    place.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    place.with_suffix(".svg").write_text(plot(result))


def machine():
    return {"cores": os.cpu_count(), "processor": first("/proc/cpuinfo", "model name") or platform.processor(),
            "memory": f"{int(first('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
            "system": f"{platform.system()} {platform.release()}", "load": os.getloadavg()[0]}


def first(path, name):
    with open(path) as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def commit():
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"
