import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";

import { Code, ConnectError, createRouterTransport } from "@connectrpc/connect";

import { Client } from "../src/client.js";
import { type StartUploadRequest, UploadService } from "../src/gen/camserve/v1/uploads_pb.js";
import { grpcStreams } from "../src/grpc_streams.js";
import { md5 } from "../src/md5.js";
import { clocked } from "./clock.js";

// Too large to be sent whole.
const IN_PIECES = new Uint8Array((4 << 20) + 1);

/** A client of a service that takes uploads after it was away for so many calls, with what they began with. */
function against(refusals: number) {
  const started: StartUploadRequest[] = [];
  let left = refusals;
  let offset = 0n;
  const away = () => {
    if (left-- > 0) throw new ConnectError("away", Code.Unavailable);
  };
  const transport = createRouterTransport(({ service }) => {
    service(UploadService, {
      startUpload: (request) => {
        started.push(request);
        offset = 0n;
        return { storageId: "img_1", sizeBytes: request.sizeBytes ?? 0n };
      },
      async appendUpload(messages) {
        away();
        for await (const { body } of messages) offset += BigInt(body?.data.length ?? 0);
        return { storageId: "img_1", offset, upload: { storageId: "img_1", sizeBytes: offset } };
      },
      getUploadProgress: () => {
        away();
        return { storageId: "img_1", offset };
      },
    });
  });
  const { retries, slept } = clocked();
  const client = new Client({ transport, streams: grpcStreams, close: () => undefined }, {}, retries);
  return { client, started, awayS: () => slept.reduce((one, other) => one + other, 0) };
}

test("an upload survives a service that is away for longer than a call may take", async () => {
  const { client, awayS } = against(14);
  const stored = await client.upload(IN_PIECES);
  assert.equal(Number(stored.sizeBytes), IN_PIECES.length);
  assert.ok(awayS() > 60, String(awayS()));
});

test("an upload that does not move fails", async () => {
  const { client, awayS } = against(Infinity);
  await assert.rejects(client.upload(IN_PIECES), { code: "connection.failed" });
  assert.ok(awayS() > 75 && awayS() < 250, String(awayS()));
});

test("a key of the caller's own names the content of an upload", async () => {
  const { client, started } = against(0);
  await client.upload(IN_PIECES);
  await client.upload(IN_PIECES, { idempotencyKey: "mine" });
  const digest = createHash("md5").update(IN_PIECES).digest("base64");
  assert.deepEqual(
    started.map(({ contentMd5 }) => contentMd5),
    [undefined, digest],
  );
});

for (const size of [0, 1, 55, 56, 63, 64, 65, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, (3 << 20) + 57]) {
  test(`the MD5 of ${size} bytes`, async () => {
    const data = Uint8Array.from({ length: size }, (_, place) => (place * 167) ^ (place >> 8));
    const source = { size, read: async (start: number, end: number) => data.slice(start, end) };
    assert.equal(await md5(source), createHash("md5").update(data).digest("base64"));
  });
}
