import assert from "node:assert/strict";
import { test } from "node:test";

import { CamserveError } from "../src/errors.js";
import { Retries } from "../src/retry.js";
import { clocked, refusing } from "./clock.js";

const busy = new CamserveError("service.overloaded", "", { status: 503 });

test("pauses double from half a second to half a minute", async () => {
  const { retries, slept } = clocked();
  await retries.run(refusing(9, busy).attempt);
  assert.deepEqual(slept, [0.5, 1, 2, 4, 8, 16, 30, 30, 30]);
});

test("jitter is full", async () => {
  const { retries, slept } = clocked(Math.random);
  await retries.run(refusing(400, busy).attempt);
  const long = slept.slice(6);
  assert.ok(Math.min(...long) < 2);
  assert.ok(Math.max(...long) > 28 && Math.max(...long) <= 30);
});

test("what the service says comes before the random time", async () => {
  const { retries, slept } = clocked();
  await retries.run(refusing(2, new CamserveError("rate.exceeded", "", { status: 429, retryAfterS: 7 })).attempt, 60);
  assert.deepEqual(slept, [7.5, 8]);
});

test("no attempt begins after the deadline", async () => {
  const { retries, slept } = clocked();
  const counted = refusing(99, busy);
  await assert.rejects(retries.run(counted.attempt, 5), (error) => error === busy);
  assert.deepEqual([slept, counted.made], [[0.5, 1, 2], 4]);
});

for (const [code, status] of [
  ["model.not_found", 404],
  ["idempotency.key_reused", 422],
  ["job.already_completed", 409],
  ["answer.invalid", 0],
  ["internal", 500],
] as const) {
  test(`${code} is not tried again`, async () => {
    const counted = refusing(1, new CamserveError(code, "", { status }));
    await assert.rejects(clocked().retries.run(counted.attempt, 60));
    assert.equal(counted.made, 1);
  });
}

for (const [code, status] of [
  ["connection.failed", 0],
  ["idempotency.in_progress", 409],
  ["upstream.failed", 502],
  ["store.unavailable", 503],
  ["timeout.exceeded", 504],
] as const) {
  test(`${code} is tried again`, async () => {
    const counted = refusing(1, new CamserveError(code, "", { status }));
    await clocked().retries.run(counted.attempt, 60);
    assert.equal(counted.made, 2);
  });
}

test("progress begins the pauses and the time again", async () => {
  const { retries, slept } = clocked();
  const tries = retries.started(4);
  for (let round = 0; round < 2; round += 1) {
    await tries.pauseAfter(busy);
    await tries.pauseAfter(busy);
    tries.restart();
  }
  assert.deepEqual(slept, [0.5, 1, 0.5, 1]);
});

test("a caller who leaves is not kept", async () => {
  const leaving = new AbortController();
  const retries = new Retries({ firstS: 3600, factor: 1, capS: 3600 });
  const running = retries.run(
    async () => {
      setTimeout(() => leaving.abort(), 10);
      throw busy;
    },
    undefined,
    leaving.signal,
  );
  await assert.rejects(running, { code: "client.closed", status: 499 });
});
