import assert from "node:assert/strict";
import { test } from "node:test";

import { Code, ConnectError, createRouterTransport, type HandlerContext } from "@connectrpc/connect";

import { Client, type ClientOptions } from "../src/client.js";
import { ErrorObjectSchema } from "../src/gen/camserve/v1/errors_pb.js";
import { HealthService } from "../src/gen/camserve/v1/health_pb.js";
import { InferenceService, StreamEvent_Kind } from "../src/gen/camserve/v1/inference_pb.js";
import { Job_Status, JobService } from "../src/gen/camserve/v1/jobs_pb.js";
import { LimitService } from "../src/gen/camserve/v1/limits_pb.js";
import { RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { parseAddress } from "../src/node.js";
import { restStreams } from "../src/rest_streams.js";
import { clocked } from "./clock.js";

/** A client of a service that refuses so many calls first, with the headers that this got and what the client slept. */
function against(refusals: number, options: ClientOptions = {}) {
  const came: Headers[] = [];
  const answer = (_: unknown, context: HandlerContext) => {
    came.push(context.requestHeader);
    if (came.length > refusals) return {};
    throw new ConnectError("full", Code.Unavailable, undefined, [
      { desc: ErrorObjectSchema, value: { code: "service.overloaded", message: "Full.", status: 503, requestId: "r1" } },
      { desc: RetryInfoSchema, value: { retryDelay: { seconds: 3n } } },
    ]);
  };
  const transport = createRouterTransport(({ service }) => {
    service(JobService, { createJob: answer });
    service(HealthService, { getHealth: answer });
  });
  const { retries, slept } = clocked();
  const way = { transport, streams: () => restStreams("", undefined), close: () => undefined };
  return { client: new Client(way, options, retries), came, slept };
}

test("every attempt has the same key, and waits as told", async () => {
  const { client, came, slept } = against(2, { token: async () => "abc\n" });
  await client.jobs.createJob({});
  const keys = came.map((headers) => headers.get("idempotency-key"));
  assert.equal(keys.length, 3);
  assert.match(keys[0] ?? "", /^[!-~]{16,}$/);
  assert.equal(new Set(keys).size, 1);
  assert.deepEqual(slept, [3.5, 4]);
  assert.equal(came[0]?.get("authorization"), "Bearer abc");
});

test("two calls have two keys, and reads have none", async () => {
  const { client, came } = against(0);
  await client.jobs.createJob({});
  await client.jobs.createJob({});
  await client.health.getHealth({});
  const keys = came.map((headers) => headers.get("idempotency-key"));
  assert.notEqual(keys[0], keys[1]);
  assert.equal(keys[2], null);
});

test("a key of the caller's own is sent, or refused here", async () => {
  const { client, came } = against(0);
  await client.jobs.createJob({}, { headers: { "idempotency-key": "mine" } });
  assert.equal(came[0]?.get("idempotency-key"), "mine");
  for (const key of ["", "a b", "x".repeat(256)]) {
    const call = client.jobs.createJob({}, { headers: { "idempotency-key": key } });
    await assert.rejects(call, { code: "idempotency.key_invalid", status: 400 });
  }
});

test("an error carries what the service said", async () => {
  const { client } = against(1000, { timeoutS: 3 });
  await assert.rejects(client.health.getHealth({}), {
    name: "CamserveError",
    code: "service.overloaded",
    status: 503,
    requestId: "r1",
    retryAfterS: 3,
  });
});

test("a broken batch sends again what has no answer, and a job is asked about where no stream comes through", async () => {
  const batches: string[][] = [];
  const statuses = [Job_Status.running, Job_Status.succeeded];
  const transport = createRouterTransport(({ service }) => {
    service(LimitService, { getLimits: () => ({ maxBatchSize: 3 }) });
    service(InferenceService, {
      async *inferBatch({ inputs }) {
        batches.push(inputs.map(({ id }) => id));
        for (const { id } of inputs) {
          yield { event: StreamEvent_Kind.item, item: { id } };
          if (batches.length === 1) throw new ConnectError("cut", Code.Unavailable);
        }
        yield { event: StreamEvent_Kind.done };
      },
    });
    service(JobService, {
      async *watchJob() {
        throw new ConnectError("cut", Code.Unavailable);
      },
      getJob: () => ({ status: statuses.shift() ?? Job_Status.failed }),
    });
  });
  const { retries, slept } = clocked();
  const way = { transport, streams: () => restStreams("", undefined), close: () => undefined };
  const client = new Client(way, {}, retries);
  const ids: string[] = [];
  const inputs = ["a", "b", "c", "d"].map((id) => ({ id }));
  for await (const { id } of client.inferBatch({ model: "shapes", inputs })) ids.push(id);
  assert.deepEqual(ids, ["a", "b", "c", "d"]);
  assert.deepEqual(batches, [["a", "b", "c"], ["b", "c"], ["d"]]);
  const told: Job_Status[] = [];
  const job = await client.waitJob("job_1", { onJob: ({ status }) => told.push(status) });
  assert.equal(job.status, Job_Status.succeeded);
  assert.deepEqual(told, [Job_Status.running, Job_Status.succeeded]);
  assert.deepEqual(slept, [0.5, 0.5, 1]);
});

test("only events of the job begin the pauses again", async () => {
  const draining = { event: StreamEvent_Kind.error, error: { code: "service.overloaded", message: "", status: 503 } };
  const status = { event: StreamEvent_Kind.status, job: { status: Job_Status.running } };
  for (const [events, expected] of [
    [[draining], [0.5, 1, 2]],
    [[status, draining], [0.5, 0.5, 0.5]],
  ] as const) {
    let asked = 0;
    const transport = createRouterTransport(({ service }) => {
      service(JobService, {
        watchJob: async function* () {
          yield* events;
        },
        getJob: () => ({ status: ++asked < expected.length ? Job_Status.running : Job_Status.succeeded }),
      });
    });
    const { retries, slept } = clocked();
    const way = { transport, streams: () => restStreams("", undefined), close: () => undefined };
    await new Client(way, {}, retries).waitJob("job_1");
    assert.deepEqual(slept, expected);
  }
});

test("an answer that says nothing is none", async () => {
  let modelVersion = "";
  const transport = createRouterTransport(({ service }) => {
    service(InferenceService, { infer: () => ({ modelVersion }) });
  });
  const client = new Client({ transport, streams: () => restStreams("", undefined), close: () => undefined }, {});
  await assert.rejects(client.infer(new Uint8Array(9), { model: "shapes" }), { code: "answer.invalid" });
  // No class was probable enough.
  modelVersion = "1";
  assert.deepEqual((await client.infer(new Uint8Array(9), { model: "shapes" })).classes, []);
});

test("addresses", () => {
  assert.equal(parseAddress("grpc://10.0.0.1"), "http://10.0.0.1:50051");
  assert.equal(parseAddress("grpcs://a.example"), "https://a.example:443");
  assert.equal(parseAddress("http://127.0.0.1:8080"), "http://127.0.0.1:8080");
  assert.equal(parseAddress("https://a.example/"), "https://a.example:443");
  assert.equal(parseAddress("localhost:50051"), "http://localhost:50051");
  assert.equal(parseAddress("[::1]:50051"), "http://[::1]:50051");
  assert.equal(parseAddress("a.example:50051"), "https://a.example:50051");
  for (const address of ["", "ftp://a", "http://a/v1", "http://u:p@a", "http://", "http://a?b"]) {
    assert.throws(() => parseAddress(address), RangeError, address);
  }
});
