"""A TaskMaster worker that is only a URL: called once a task, it answers with what came of it. docs/workers.md says how to have it called."""
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SECRET = os.environ["PUSH_SECRET"]  # the push_secret that it was put with

def run(work):  # what this function is for: here, to shout what it is given. What it raises fails the attempt.
    return {"stdout": work["http"]["body"].upper()}

class Function(BaseHTTPRequestHandler):
    def do_POST(self):
        call = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            return self.answer(401, {})
        [task] = call["tasks"]
        claim = {"task_id": task["task_id"], "claim": task["claim"]}
        try:
            report = {"status": "COMPLETE", "result": run(task["work"])}
        except Exception as error:
            report = {"status": "FAILED", "error": {"code": "worker_error", "message": repr(error)[:1000]}}
        self.answer(200, {"results": [{**claim, "code": "accepted"}], "room": 0, "reports": [{**claim, **report}]})

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Function)
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
server.serve_forever()
