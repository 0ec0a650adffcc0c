// Verifies captured deliveries, one JSON document a line, with the reference library of JavaScript.

import assert from "node:assert";
import { readFileSync } from "node:fs";
import { Webhook } from "standardwebhooks";

const messages = readFileSync(process.argv[2], "utf8").trim().split("\n").map((line) => JSON.parse(line));
for (const { secret, id, timestamp, signature, body } of messages) {
    const webhook = new Webhook(secret);
    const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature };
    assert.equal(webhook.verify(body, headers).specversion, "1.0");
    assert.throws(() => webhook.verify(`${body} `, headers));
}
assert(messages.length > 0, "nothing was captured");
console.log(`${messages.length} deliveries verified in JavaScript`);
