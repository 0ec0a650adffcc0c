"""Runs every `curl -s` command of the README's shell blocks against the gateway at the URL given: each must succeed."""

import re
import subprocess
import sys

README_GATEWAY = "http://127.0.0.1:8081"
TIMEOUT_SECONDS = 30


def commands(text):
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        for command in block.replace("\\\n", " ").splitlines():
            if command.startswith("curl -s "):
                yield command


def main():
    url = sys.argv[1]
    with open("README.md", encoding="utf-8") as readme:
        found = list(commands(readme.read()))
    if not found:
        sys.exit("the README has no requests: has its form changed?")
    for command in found:
        # A refusal is an answer to curl, unless it is told otherwise.
        line = command.replace(README_GATEWAY, url).replace("curl -s ", "curl -sS --fail-with-body ", 1)
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
        print(f"{'ok' if done.returncode == 0 else 'FAILED'}: {command}", flush=True)
        if done.returncode != 0:
            sys.exit(f"{done.stdout}\n{done.stderr}")


main()
