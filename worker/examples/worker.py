"""A TaskMaster worker in plain Python, written from docs/workers.md; --help lists its options."""
import argparse, base64, json, os, secrets, signal, subprocess, threading, time, urllib.request, uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
options = argparse.ArgumentParser()
options.add_argument("--coordinator", default="http://127.0.0.1:8080")
options.add_argument("--join-token", default=os.environ.get("TASKMASTER_JOIN_TOKEN", ""), metavar="SECRET")
options.add_argument("--port", type=int, default=0)
options.add_argument("--label", action="append", default=[], metavar="NAME=VALUE")
options.add_argument("--allow-commands", action="store_true")
options = options.parse_args()
SLOTS, QUEUE, BATCH, OUTPUT_BYTES = 5, 100, 100, 65536
me, push_secret, token = str(uuid.uuid4()), secrets.token_hex(32), options.join_token
coordinators, lease_until, draining = [], 0.0, False
changed = threading.Condition()  # guards the state below; notified when it changes. A key is (task_id, claim).
waiting, running, unsent, over = {}, {}, {}, {}  # key: (due, task); key: start; key: (report, start, end); key: None
http = urllib.request.OpenerDirector()  # follows no redirects, and takes every status for an answer
for handler in (urllib.request.HTTPHandler, urllib.request.HTTPSHandler): http.add_handler(handler())

def call(method, path, body):  # asks home, then the others; None when nobody answers. A refused token: join again
    global token
    for address in dict.fromkeys([*coordinators, options.coordinator]):
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
        request = urllib.request.Request(address + path, json.dumps(body).encode(), headers, method=method)
        try: answer = http.open(request, timeout=5); content = json.loads(answer.read() or b"{}")
        except Exception: continue  # nobody there, or the answer was lost: the next one
        if answer.status < 300: return content
        if answer.status == 401: token = options.join_token

def heartbeat():  # says what is held; hears what to hand back, and how long tasks may be started from the sending on
    global token, coordinators, lease_until, draining
    with changed: now, held = time.monotonic(), [{"task_id": i, "claim": n} for i, n in {*waiting, *running, *unsent}]
    answer = call("POST", f"/v1/workers/{me}/heartbeat", {
        "address": f"http://127.0.0.1:{server.server_port}", "slots": SLOTS, "room": room(), "held": held,
        "push_secret": push_secret, "draining": draining, "abilities": {"commands": options.allow_commands},
        "labels": dict(label.split("=", 1) for label in options.label)})
    if answer is None: return 1
    with changed:
        token, coordinators = answer["token"], [answer["home"]["address"], *answer["coordinators"]]
        lease_until, draining = now + answer["lease_ms"] / 1000, draining or answer.get("drain", False)
        stop = list(waiting) if draining else [(claim["task_id"], claim["claim"]) for claim in answer["stop"]]
        for key in stop:  # what runs is left to end by itself
            if waiting.pop(key, None): unsent[key] = ({"status": "RELEASED"}, None, None)
        changed.notify_all()
    return answer["heartbeat_ms"] / 1000

def room(): return 0 if draining else max(0, SLOTS + QUEUE - len(waiting) - len(running))
def submit(key, task):
    if any(key in known for known in (waiting, running, unsent, over)): return "already_held"
    if draining or time.monotonic() > lease_until: return "draining"
    if "http" not in task["work"] and not options.allow_commands: return "unsupported"
    if room() == 0: return "no_room"
    waiting[key] = (time.monotonic() + task.get("start_in_ms", 0) / 1000, task)
    return "accepted"
def release(key, _):
    if waiting.pop(key, None): return over.update({key: None}) or "released"
    return "running" if key in running or key in unsent else "unknown"

class Contract(BaseHTTPRequestHandler):
    protocol_version, log_message = "HTTP/1.1", lambda *_: None
    def do_GET(self): self.answer(200, {"ready": True, "waiting_for": []})
    def do_POST(self):
        act, body = release if "release" in self.path else submit, self.rfile.read(int(self.headers["Content-Length"] or 0))
        right = secrets.compare_digest(self.headers.get("Authorization", "").encode(), f"Bearer {push_secret}".encode())
        if not right: return self.answer(401, {"code": "unauthorized"})
        try: body = json.loads(body); tasks = body["tasks"]; keys = [(task["task_id"], task["claim"]) for task in tasks]
        except (ValueError, TypeError, KeyError): return self.answer(422, {"code": "invalid_body"})
        if act is submit and body["worker_id"] != me: return self.answer(422, {"code": "validation_failed"})
        with changed:
            results = [{"task_id": k[0], "claim": k[1], "code": act(k, task)} for k, task in zip(keys, tasks)]
            changed.notify_all()
        self.answer(200, {"results": results, "room": room()})
    def answer(self, status, body):
        head, data = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: ", json.dumps(body)
        self.wfile.write(f"{head}{len(data)}\r\n\r\n{data}".encode())

def run_http(work, task):
    body = base64.b64decode(work["body_base64"]) if "body_base64" in work else work.get("body", "").encode() or None
    headers = {"TaskMaster-Task-Id": task["task_id"], "TaskMaster-Attempt": str(task["attempt"])}
    request = urllib.request.Request(work["url"], body, work.get("headers", {}) | headers, method=work["method"])
    answer = http.open(request, timeout=task["timeout_ms"] / 1000)
    result = {"http_status": answer.status, "body": answer.read(OUTPUT_BYTES).decode(errors="replace")}
    return result, None if 200 <= answer.status < 300 else "http_status"
def run_command(argv, task):
    environment, seconds = {"PATH": os.defpath}, task["timeout_ms"] / 1000  # and none of this worker's own secrets
    end = subprocess.run(argv, input=b"", capture_output=True, timeout=seconds, env=environment)
    result = {name: getattr(end, name)[:OUTPUT_BYTES].decode(errors="replace") for name in ("stdout", "stderr")}
    return {"exit_code": end.returncode, **result}, "exit_status" if end.returncode else None
def run(work, task):
    try: result, code = run_http(work["http"], task) if "http" in work else \
        run_command(work.get("argv") or ["/bin/sh", "-c", work["command"]], task)
    except Exception as e: result, code = {"stderr": repr(e)}, "timeout" if "Timeout" in repr(e) else "worker_error"
    error = {"error": {"code": code, "message": f"the attempt failed: {code}"}} if code else {}
    return {"status": "FAILED" if code else "COMPLETE", "result": result, **error}

def slot():  # runs one task after the other: the first one that is due, while the lease lasts
    while not draining:
        with changed:
            now = time.monotonic()
            due, key = min(((waiting[key][0], key) for key in waiting), default=(now + 1, None))
            if not due <= now < lease_until: changed.wait(due - now if 0 < due - now < 1 else 1); continue
            task, running[key], unsent[key] = waiting.pop(key)[1], now, ({"status": "STARTED"}, now, None)
            changed.notify_all()
        report = run(task["work"], task)
        with changed:  # takes the place of a STARTED that has not been sent
            unsent[key] = (report, running.pop(key), time.monotonic())
            changed.notify_all()

def send_reports():  # says what is to be said, in batches, again and again until it is answered
    while True:
        with changed: batch = changed.wait_for(lambda: list(unsent.items())[:BATCH])
        ms_ago = lambda at: None if at is None else int((time.monotonic() - at) * 1000)
        reports = [{"task_id": key[0], "claim": key[1], "started_ms_ago": ms_ago(start), "ended_ms_ago": ms_ago(end),
                    **report} for key, (report, start, end) in batch]
        answer = call("POST", "/v1/task-status", {"worker_id": me, "reports": reports}) or {"results": []}
        final = {key for (key, _), result in zip(batch, answer["results"]) if result["code"] != "not_recorded"}
        with changed: done = [key for key, said in batch if key in final and unsent[key] is said and unsent.pop(key)]
        over.update({key: None for key in done if key not in running})
        for key in list(over)[:-10000]: del over[key]  # remembered long enough for any repeated submission
        if len(final) < len(batch): time.sleep(0.5)

server = ThreadingHTTPServer(("127.0.0.1", options.port), Contract)
signal.signal(signal.SIGTERM, lambda *_: globals().update(draining=True))
for part in [server.serve_forever, send_reports] + [slot] * SLOTS: threading.Thread(target=part, daemon=True).start()
while not draining or waiting or running or unsent: time.sleep(min(heartbeat(), 1))  # so a drain is noticed soon
call("DELETE", f"/v1/workers/{me}", None)
