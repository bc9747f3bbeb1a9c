import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { test } from "node:test";

import { verifyWebhook } from "../src/webhooks.js";

const SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const OTHER = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const BODY = JSON.stringify({
  event: "job.succeeded",
  job_id: "job_1",
  status: "succeeded",
  items_succeeded: 9,
  items_failed: 1,
  results_url: "https://a.example/",
  metadata: { order: 7, name: "ü" },
});
const NOW = 1_800_000_000;

function sign(secret: string, id: string, at: number, body: string): string {
  const key = Buffer.from(secret.slice(6), "base64");
  return `v1,${createHmac("sha256", key).update(`${id}.${at}.${body}`).digest("base64")}`;
}

function headers(signature: string, at = NOW) {
  return { "webhook-id": "evt_1", "webhook-timestamp": String(at), "webhook-signature": signature };
}

test("a signature of any secret fits", async () => {
  const both = `${sign(OTHER, "evt_1", NOW, BODY)} ${sign(SECRET, "evt_1", NOW, BODY)}`;
  for (const secrets of [SECRET, OTHER, [OTHER, SECRET]]) {
    const event = await verifyWebhook(new Headers(headers(both)), new TextEncoder().encode(BODY), secrets, NOW);
    assert.deepEqual([event.id, event.jobId, event.itemsSucceeded], ["evt_1", "job_1", 9]);
    assert.deepEqual(event.metadata, { order: 7, name: "ü" });
  }
});

test("a forged event is refused", async () => {
  const good = sign(SECRET, "evt_1", NOW, BODY);
  const refused = { code: "signature.invalid", status: 403 };
  await assert.rejects(verifyWebhook(headers(good), `${BODY} `, SECRET, NOW), refused);
  await assert.rejects(verifyWebhook(headers(sign(OTHER, "evt_1", NOW, BODY)), BODY, SECRET, NOW), refused);
  await assert.rejects(verifyWebhook(headers(sign(SECRET, "evt_2", NOW, BODY)), BODY, SECRET, NOW), refused);
  await assert.rejects(verifyWebhook(headers(good, NOW + 1), BODY, SECRET, NOW), refused);
  await assert.rejects(verifyWebhook(headers("v1,~ v1, v1"), BODY, SECRET, NOW), refused);
  await assert.rejects(verifyWebhook({}, BODY, SECRET, NOW), refused);
});

test("an old event is refused", async () => {
  for (const age of [-301, 301]) {
    const signed = headers(sign(SECRET, "evt_1", NOW + age, BODY), NOW + age);
    await assert.rejects(verifyWebhook(signed, BODY, SECRET, NOW), { code: "signature.expired" });
    assert.equal((await verifyWebhook(signed, BODY, SECRET, NOW + age)).id, "evt_1");
  }
});

test("a secret that is none is told", async () => {
  for (const none of ["", "whsec_", "whsec_abc", SECRET.slice(6)]) {
    await assert.rejects(verifyWebhook({}, BODY, none), RangeError);
  }
});
