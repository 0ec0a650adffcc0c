// Signs deliveries to incoming webhooks, one JSON document a line, with the reference libraries of those who send them.

import { randomBytes } from "node:crypto";
import { writeFileSync } from "node:fs";
import { sign } from "@octokit/webhooks-methods";
import { Webhook } from "standardwebhooks";
import Stripe from "stripe";

const body = JSON.stringify({ id: "evt_1", text: "été 🎉", nested: { list: [1, 2.5, null] } });
const shared = randomBytes(20).toString("hex");
const standard = `whsec_${randomBytes(24).toString("base64")}`;
const now = new Date();
const lines = [
  { verification: "github", secret: shared, headers: { "x-hub-signature-256": await sign(shared, body), "x-github-delivery": "1" } },
  {
    verification: "stripe",
    secret: shared,
    headers: { "stripe-signature": Stripe.webhooks.generateTestHeaderString({ payload: body, secret: shared }) },
  },
  {
    verification: "standard_webhooks",
    secret: standard,
    headers: {
      "webhook-id": "msg_1",
      "webhook-timestamp": String(Math.floor(now / 1000)),
      "webhook-signature": new Webhook(standard).sign("msg_1", now, body),
    },
  },
];
writeFileSync(process.argv[2], lines.map((line) => `${JSON.stringify({ ...line, body })}\n`).join(""));
