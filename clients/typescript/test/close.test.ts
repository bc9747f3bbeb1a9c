import assert from "node:assert/strict";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { test } from "node:test";

import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";

import { Client } from "../src/client.js";
import { HealthService } from "../src/gen/camserve/v1/health_pb.js";
import { InferenceService } from "../src/gen/camserve/v1/inference_pb.js";
import { JobService } from "../src/gen/camserve/v1/jobs_pb.js";
import { LimitService } from "../src/gen/camserve/v1/limits_pb.js";
import { UploadService } from "../src/gen/camserve/v1/uploads_pb.js";
import { createClient as createWebClient } from "../src/index.js";
import { createClient } from "../src/node.js";
import { restStreams } from "../src/rest_streams.js";
import { DEFAULT_BACKOFF, Retries, SYSTEM_CLOCK } from "../src/retry.js";

const CLOSED = { code: "client.closed", message: "The client is closed." };
const CALLS: Record<string, (client: Client) => Promise<unknown>> = {
  unary: (client) => client.health.getHealth({}),
  job: (client) => client.waitJob("job_1"),
  batch: (client) => client.inferBatch({ inputs: [{ id: "a" }] }).next(),
  upload: (client) => client.upload(new Uint8Array(5 << 20)),
  infer: (client) => client.infer(new Uint8Array(9), { model: "shapes" }),
  streamed: (client) => client.infer(new Uint8Array(2 << 20), { model: "shapes" }),
};

for (const [name, call] of Object.entries(CALLS)) {
  test(`closing ends what waits for another attempt: ${name}`, async () => {
    const refused = () => {
      throw new ConnectError("full", Code.Unavailable);
    };
    const transport = createRouterTransport(({ service }) => {
      service(HealthService, { getHealth: refused });
      service(LimitService, { getLimits: () => ({ maxBatchSize: 3 }) });
      service(InferenceService, { infer: refused, inferBatch: refused });
      service(JobService, { watchJob: refused });
      service(UploadService, { startUpload: ({ sizeBytes }) => ({ storageId: "img_1", sizeBytes: sizeBytes ?? 0n }) });
    });
    const sleep = (_: number, signal?: AbortSignal) => {
      client.close();
      return SYSTEM_CLOCK.sleep(3600, signal);
    };
    const retries = new Retries(DEFAULT_BACKOFF, { ...SYSTEM_CLOCK, sleep });
    // Nobody listens there.
    const way = { transport, streams: () => restStreams("http://127.0.0.1:9", undefined), close: () => undefined };
    const client: Client = new Client(way, {}, retries);
    await assert.rejects(call(client), CLOSED);
    await assert.rejects(call(client), CLOSED);
  });
}

for (const [way, make] of Object.entries({ "gRPC": createClient, "gRPC-Web and REST": createWebClient })) {
  for (const name of ["unary", "infer", "streamed", "job"]) {
    test(`${way}: closing ends a call under way, and no other is made: ${name}`, async (t) => {
      const open: Socket[] = [];
      const silent = createServer((socket) => {
        open.push(socket.on("error", () => undefined));
        socket.once("data", () => client.close());
      });
      await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
      t.after(() => {
        open.forEach((socket) => socket.destroy());
        silent.close();
      });
      const client = make(`http://127.0.0.1:${(silent.address() as AddressInfo).port}`);
      await assert.rejects(CALLS[name]!(client), CLOSED);
      for (const call of Object.values(CALLS)) await assert.rejects(call(client), CLOSED);
      assert.equal(open.length, 1);
    });
  }
}
