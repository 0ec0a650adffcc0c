"""Counts what each function of benches/functions takes per call, under Valgrind, and compares it with what is committed.

Instructions, and no times: on a busy machine they are the same. Hash tables are seeded at random, which makes up to half a per
cent. Compilers differ, and a little the variants of memcpy and its like that a processor is given.
"""

import json
import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

COMMITTED = "benches/instructions.json"
# What a call is counted by: what it takes to start and to prepare is in both runs, and so are the first allocations.
FEW, MORE = 2, 12
# How much more than what is committed passes; another compiler generates other code from the same source.
SLACK = 0.10
SLACK_OTHER_RUSTC = 0.15


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done


def instructions(program, name, calls):
    valgrind = ["valgrind", "--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"]
    done = output(*valgrind, program, name, str(calls))
    return int(re.search(r"I +refs: +([\d,]+)", done.stderr)[1].replace(",", ""))


def per_call(program, name):
    return (instructions(program, name, MORE) - instructions(program, name, FEW)) // (MORE - FEW)


def compare(committed, counted, slack):
    """What is wrong, in words."""
    wrong = [f"{name} is not in {COMMITTED}" for name in counted.keys() - committed.keys()]
    wrong += [f"{name} is in {COMMITTED}, and no function" for name in committed.keys() - counted.keys()]
    for name, count in counted.items():
        change = count / committed.get(name, count) - 1
        print(f"{name:32} {count:12,} {change:+7.1%}")
        if change > slack:
            wrong.append(f"{name} takes {change:.1%} more than the {committed[name]:,} instructions that are committed")
    return sorted(wrong)


def main():
    program, *flags = sys.argv[1:]
    rustc = output("rustc", "--version").stdout.split()[1]
    names = output(program).stdout.split()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        counted = dict(zip(names, pool.map(lambda name: per_call(program, name), names)))
    if flags == ["--update"]:
        with open(COMMITTED, "w") as file:
            json.dump({"machine": platform.machine(), "rustc": rustc, "per_call": counted}, file, indent=2)
            file.write("\n")
        return
    with open(COMMITTED) as file:
        committed = json.load(file)
    if committed["machine"] != platform.machine():
        print(f"not compared: {COMMITTED} was counted on {committed['machine']}, and this is {platform.machine()}")
        return
    slack = SLACK if committed["rustc"] == rustc else SLACK_OTHER_RUSTC
    wrong = compare(committed["per_call"], counted, slack)
    if wrong:
        hint = f"{slack:.0%} more is let pass. If it is meant to be so: .ci/instructions --update, and commit {COMMITTED}."
        sys.exit("\n".join(["", *wrong, hint]))


main()
