import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError } from "@connectrpc/connect";

import { CamserveError, failure, refusal } from "../src/errors.js";
import { Retries, SYSTEM_CLOCK } from "../src/retry.js";
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

for (const [text, least, most] of [
  ["7", 7, 7],
  [new Date(Date.now() + 3_600_000).toUTCString(), 3595, 3600],
  [new Date(Date.now() - 3_600_000).toUTCString(), 0, 0],
  ["Sunday, 06-Nov-94 08:49:37 GMT", 0, 0],
  ["Sun Nov  6 08:49:37 1994", 0, 0],
  ["4294967296", 4294967296, 4294967296],
  ["9".repeat(400), Infinity, Infinity],
] as const) {
  test(`the service says ${text.slice(0, 40)} over gRPC and REST`, async () => {
    const headers = { "retry-after": text };
    const refusals = [
      failure(new ConnectError("", Code.ResourceExhausted, headers)),
      await refusal(new Response("", { status: 429, headers })),
    ];
    for (const { code, retryAfterS = NaN } of refusals) {
      assert.equal(code, "rate.exceeded");
      assert.ok(retryAfterS >= least && retryAfterS <= most, String(retryAfterS));
    }
  });
}

for (const text of ["", "soon", "-5", "1.5", "1 Jan 2100"]) {
  test(`the service does not say when by "${text}"`, async () => {
    const headers = { "retry-after": text };
    assert.equal((await refusal(new Response("", { status: 503, headers }))).retryAfterS, undefined);
  });
}

test("a wait that is longer than what is left is not begun", async () => {
  const { retries, slept } = clocked();
  for (const retryAfterS of [60, 2 ** 32, Infinity]) {
    const refused = new CamserveError("quota.exceeded", "", { status: 429, retryAfterS });
    await assert.rejects(retries.run(refusing(1, refused).attempt, 60), (error) => error === refused);
  }
  assert.deepEqual(slept, []);
});

test("a wait that no timer takes is not cut to nothing", async () => {
  const leaving = new AbortController();
  setTimeout(() => leaving.abort(), 20);
  await assert.rejects(SYSTEM_CLOCK.sleep(2 ** 32, leaving.signal), { code: "client.closed" });
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
