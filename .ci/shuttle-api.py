"""The part of Shuttle's API that its runtime needs to start: answers every GET with the project's secrets (JSON, second argument)."""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

SECRETS = {"type": "secrets", "state": "ready", "config": None, "output": json.loads(sys.argv[2])}


class Api(BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps(SECRETS).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("127.0.0.1", int(sys.argv[1])), Api).serve_forever()
