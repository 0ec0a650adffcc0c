"""Tasks that do nothing, created in batches over HTTP."""

import http.client
import json
import sys
import threading
import time

from servers import Failed

# Without progress for so long, a run has failed.
STALL_SECONDS = 60


def create(gateways, tasks, batch, connections, rate=None):
    """Creates tasks over some connections to each gateway in turn, so many a second or as fast as possible; gives back a function
    that waits for all of it."""
    batches, failed, made = iter([min(batch, tasks - at) for at in range(0, tasks, batch)]), [], [0]
    bodies = {size: json.dumps({"tasks": [{"command": "true"}] * size}) for size in {batch, tasks % batch or batch}}
    turn, began = threading.Lock(), time.monotonic()

    def client(number):
        try:
            open_to = [http.client.HTTPConnection(url.removeprefix("http://"), timeout=60) for url in gateways]
            for at in range(number, sys.maxsize):
                with turn:
                    size = next(batches, None)
                    if size and rate:
                        made[0] += size
                        time.sleep(max(0, began + (made[0] - size) / rate - time.monotonic()))
                if size is None:
                    return
                connection = open_to[at % len(open_to)]
                connection.request("POST", "/v1/tasks/batch", bodies[size], {"Content-Type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                if answer.status != 201:
                    raise Failed(f"a batch was answered with {answer.status}: {text[:500]!r}")
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=client, args=[number], daemon=True) for number in range(connections)]
    for thread in threads:
        thread.start()

    def finish():
        for thread in threads:
            thread.join()
        if failed:
            raise failed[0]

    return finish


def run(installation, tasks, batch, connections, rate=None):
    """Creates tasks and waits until each is recorded; gives back seconds."""
    goal, began = installation.complete() + tasks, time.monotonic()
    finish = create(installation.gateways, tasks, batch, connections, rate)
    known, moved = 0, began
    while (complete := installation.complete()) < goal:
        if complete != known:
            known, moved = complete, time.monotonic()
        if time.monotonic() - moved > STALL_SECONDS:
            finish()
            raise Failed(f"{goal - complete} tasks are not recorded")
        time.sleep(0.1)
    took = time.monotonic() - began
    finish()
    return took
