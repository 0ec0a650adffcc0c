#!/usr/bin/env python3
"""A function that takes longer than a request should: the target of an HTTP task with "completion": "callback".

It answers 202 at once, works on, says from time to time how far it is, and in the end what came of it. That is all a serverless function
needs to be a worker. Only the standard library is used.

    python3 slow_function.py --port 9900
"""

import argparse
import http.server
import json
import threading
import time
import urllib.error
import urllib.request

DEADLINE_SECONDS = 10


def say(callback_url, **report):
    """Tells TaskMaster; whether the attempt is still wanted. Saying the same again is harmless, so whatever fails is said again."""
    request = urllib.request.Request(
        callback_url, json.dumps(report).encode(), {"Content-Type": "application/json"}, method="POST")
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 0):
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_SECONDS):
                return True
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                return False  # 410: the attempt is over
        except OSError:
            pass  # nobody there: a gateway that is started again
        time.sleep(pause)
    return False


def work(callback_url, words):
    """The work itself: counts letters, slowly."""
    letters = 0
    for done, word in enumerate(words, 1):
        letters += len(word)
        if not say(callback_url, status="RUNNING", percent=100 * done / len(words), message=f"{done} of {len(words)} words"):
            return
        time.sleep(0.1)
    if letters == 0:
        say(callback_url, status="FAILED", message="there was nothing to count", permanent=True)
    else:
        say(callback_url, status="COMPLETE", result={"letters": letters})


class Function(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        words = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode().split()
        callback_url = self.headers["TaskMaster-Callback-Url"]
        threading.Thread(target=work, args=(callback_url, words)).start()
        self.send_response(202)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=9900)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Function)
    print(f"listening on 127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
