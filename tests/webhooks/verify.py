"""Verifies captured deliveries, one JSON document a line, with the reference library of Python."""

import json
import sys

from standardwebhooks.webhooks import Webhook, WebhookVerificationError


def headers(message):
    return {f"webhook-{name}": message[name] for name in ("id", "timestamp", "signature")}


def main(path):
    with open(path, encoding="utf-8") as file:
        messages = [json.loads(line) for line in file]
    assert messages, "nothing was captured"
    for message in messages:
        webhook = Webhook(message["secret"])
        event = webhook.verify(message["body"], headers(message))
        assert event["specversion"] == "1.0", event
        try:
            webhook.verify(message["body"] + " ", headers(message))
        except WebhookVerificationError:
            continue
        raise AssertionError("a changed body was verified")
    print(f"{len(messages)} deliveries verified in Python")


main(sys.argv[1])
