"""Joins an installation as the worker `schemathesis`, through its gateway; prints the coordinator's address and the worker's token.

Usage: join.py GATEWAY_URL JOIN_TOKEN
"""

import json
import sys
import urllib.request

gateway, token = sys.argv[1:]
beat = {"address": "http://127.0.0.1:9", "slots": 1, "room": 0, "abilities": {}, "push_secret": "no-one-pushes-to-this"}
headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}
request = urllib.request.Request(f"{gateway}/v1/workers/schemathesis/heartbeat", json.dumps(beat).encode(), headers)
with urllib.request.urlopen(request, timeout=10) as response:
    answer = json.load(response)
print(answer["home"]["address"], answer["token"])
