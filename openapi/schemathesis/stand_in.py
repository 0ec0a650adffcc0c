"""A coordinator for one worker: takes its heartbeats and reports, gives it nothing, and prints where it is and its push secret.

Usage: stand_in.py PORT
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ADDRESS = f"http://127.0.0.1:{sys.argv[1]}"
told = set()


def heartbeat(beat):
    if beat["address"] not in told:
        told.add(beat["address"])
        print(beat["address"], beat["push_secret"], flush=True)
    home = {"coordinator_id": "01890a5d-3c1f-7d60-8f5e-2f1b6a9c0d4e", "address": ADDRESS}
    times = {"heartbeat_ms": 5000, "lease_ms": 15000}
    return {"known": True, "token": "t", "home": home, "coordinators": [ADDRESS], "stop": [], **times}


def recorded(reports):
    of = [{"task_id": report["task_id"], "claim": report["claim"]} for report in reports]
    return {"results": [{**claim, "status": 200, "code": "recorded"} for claim in of]}


class Contract(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, heartbeat(body) if self.path.endswith("/heartbeat") else recorded(body["reports"]))

    def do_DELETE(self):
        self.answer(204, None)

    def answer(self, status, body):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Contract).serve_forever()
