/** Calls a running service; `make test-clients` starts one. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { after, test } from "node:test";

import { type ClientOptions, type Client } from "../src/client.js";
import { createClient as createWebClient } from "../src/index.js";
import { CamserveError, createClient, errorOf, file, Job_Status, type Progress } from "../src/node.js";
import { proxy } from "./proxy.js";

const EDGE = told("CAM_EDGE");
const GRPC = told("CAM_GRPC");
const PICTURES = told("CAM_PICTURES");
const PHOTO = file(join(PICTURES, "photo.jpg"));
const LARGE = file(join(PICTURES, "large.png"));
const SLIDE = file(join(PICTURES, "slide.tif"));
const SOON = { firstS: 0.05, factor: 2, capS: 0.2 };
const CAM = { model: "shapes", gradCam: { enabled: true } };

function told(name: string): string {
  const value = process.env[name];
  if (!value) throw new Error(`no ${name}: make test-clients sets it`);
  return value;
}

const opened: Client[] = [];
after(() => opened.forEach((client) => client.close()));

function connected(make: typeof createClient, address: string, options: ClientOptions = {}): Client {
  const client = make(address, { token: told("CAM_TOKEN"), ...options });
  opened.push(client);
  return client;
}

const WAYS: Record<string, Client> = {
  "gRPC": connected(createClient, `grpc://${GRPC}`),
  "gRPC through the edge": connected(createClient, EDGE),
  "gRPC-Web and REST": connected(createWebClient, EDGE),
};

function isPng(data: Uint8Array): boolean {
  return Buffer.from(data.subarray(1, 4)).toString() === "PNG";
}

for (const [way, client] of Object.entries(WAYS)) {
  test(`${way}: a small image and a streamed one`, async () => {
    const answer = await client.infer(PHOTO, CAM);
    assert.equal(answer.classes[0]?.id, "star");
    assert.ok(answer.heatmap && isPng(await client.heatmapData(answer.heatmap)));
    const inline = await client.infer(PHOTO, { ...CAM, response: { heatmap: "inline" } });
    assert.ok(inline.heatmap?.dataB64 && isPng(await client.heatmapData(inline.heatmap)));
    const shares: number[] = [];
    const streamed = await client.infer(LARGE, CAM, { onProgress: (p) => shares.push(p.sentBytes / p.totalBytes) });
    assert.equal(streamed.jobId, undefined);
    assert.equal(streamed.classes.length, 5);
    assert.equal(shares.at(-1), 1);
  });

  test(`${way}: a blob, bytes and an id`, async () => {
    const data = readFileSync(join(PICTURES, "photo.jpg"));
    const { storageId } = await client.upload(new Blob([data]));
    for (const image of [new Blob([data]), new Uint8Array(data), { storageId }]) {
      assert.equal((await client.infer(image, CAM)).classes[0]?.id, "star");
    }
  });

  test(`${way}: a batch tells of every image once`, async () => {
    const image = await client.input(PHOTO);
    const inputs = Array.from({ length: 70 }, (_, number) => ({ id: String(number), image }));
    const none = { id: "none", image: { source: { case: "bytes" as const, value: new Uint8Array(9) } } };
    const ask = { model: "shapes", inputs: [...inputs, none] };
    const seen = new Map<string, CamserveError | undefined>();
    for await (const item of client.inferBatch(ask)) {
      assert.ok(!seen.has(item.id));
      seen.set(item.id, item.error && errorOf(item.error));
    }
    assert.equal(seen.size, 71);
    assert.equal(seen.get("none")?.code, "image.invalid_format");
    assert.equal([...seen.values()].filter(Boolean).length, 1);
    for await (const item of client.inferBatch(ask)) {
      assert.ok(item.id);
      break; // Whoever has enough leaves.
    }
    const twice = client.inferBatch({ ...ask, inputs: [none, none] });
    await assert.rejects(twice.next(), { code: "batch.duplicate_id" });
  });

  test(`${way}: a job under a key is made once, and followed to its end`, async () => {
    const large = await client.input(LARGE);
    assert.equal(large.source.case, "storageId");
    const request = {
      model: "shapes",
      inputs: [
        { id: "a", image: await client.input(PHOTO) },
        { id: "b", image: large },
      ],
    };
    const key = { headers: { "idempotency-key": crypto.randomUUID() } };
    const { jobId } = await client.jobs.createJob(request, key);
    assert.equal((await client.jobs.createJob(request, key)).jobId, jobId);
    const statuses: Job_Status[] = [];
    const ended = await client.waitJob(jobId, { onJob: (job) => statuses.push(job.status) });
    assert.equal(ended.status, Job_Status.succeeded);
    assert.equal(statuses.at(-1), ended.status);
    const ids: string[] = [];
    for await (const item of client.jobResults(jobId)) ids.push(item.id);
    assert.deepEqual(ids, ["a", "b"]);
  });

  test(`${way}: refusals are one kind of error`, async () => {
    const refused: Record<string, () => Promise<unknown>> = {
      "model.not_found": () => client.infer(PHOTO, { model: "none" }),
      "media.unsupported": () => client.upload(new TextEncoder().encode("GIF89a, and then nothing")),
      "image.invalid_format": () => client.infer(new Uint8Array(9_000_000), CAM),
      "job.not_found": () => client.waitJob("job_0000000000000000000000"),
    };
    for (const [code, call] of Object.entries(refused)) {
      await assert.rejects(call, (error) => {
        assert.ok(error instanceof CamserveError);
        assert.equal(error.code, code, error.message);
        assert.ok(error.status >= 400 && error.requestId);
        return true;
      });
    }
    await assert.rejects(client.infer(file("/nowhere"), CAM), { code: "image.unreadable" });
  });

  test(`${way}: who leaves is let go`, async () => {
    await assert.rejects(client.infer(PHOTO, CAM, { signal: AbortSignal.abort() }), { code: "client.closed" });
    const leaving = new AbortController();
    const started = client.upload(SLIDE, { signal: leaving.signal, onProgress: () => leaving.abort() });
    await assert.rejects(started, { code: "client.closed" });
  });

  test(`${way}: an upload needs little memory`, async () => {
    await client.upload(PHOTO);
    const before = process.resourceUsage().maxRSS;
    const told: Progress[] = [];
    const stored = await client.upload(SLIDE, { onProgress: (p) => told.push(p) });
    const grown = (process.resourceUsage().maxRSS - before) * 1024;
    const sent = told.map((p) => p.sentBytes);
    assert.equal(sent.at(-1), Number(stored.sizeBytes));
    assert.deepEqual(
      sent,
      sent.toSorted((one, other) => one - other),
    );
    assert.ok(sent.length > 6);
    assert.ok(grown < Number(stored.sizeBytes), `the process grew by ${grown}`);
    await client.uploads.deleteUpload({ storageId: stored.storageId });
  });
}

test("a call under a key of one's own is answered again", async () => {
  const client = connected(createClient, EDGE);
  for (const image of [PHOTO, SLIDE]) {
    const options = { idempotencyKey: crypto.randomUUID() };
    const [first, again] = [await client.infer(image, CAM, options), await client.infer(image, CAM, options)];
    assert.equal(first.requestId, again.requestId);
    const source = await image();
    const other = await source.read(0, source.size);
    await source.close?.();
    other[other.length - 1]! ^= 1;
    await assert.rejects(client.infer(other, CAM, options), { code: "idempotency.key_reused", status: 422 });
  }
});

test("an image above 20 MB becomes a job that is waited for", async () => {
  const client = connected(createClient, EDGE);
  const answer = await client.infer(SLIDE, CAM);
  assert.ok(answer.jobId);
  assert.equal(answer.image?.width, 4100);
  assert.ok(answer.heatmap && isPng(await client.heatmapData(answer.heatmap)));
});

for (const [way, make] of Object.entries({ "gRPC": createClient, "REST": createWebClient })) {
  test(`${way}: an upload goes on where the connection broke`, async (t) => {
    const between = await proxy(new URL(EDGE).host);
    t.after(between.close);
    const client = connected(make, `http://127.0.0.1:${between.port}`, { backoff: SOON });
    let broken = false;
    const stored = await client.upload(SLIDE, {
      onProgress: ({ sentBytes }) => {
        if (!broken && sentBytes > 20 << 20) {
          broken = true;
          between.cut();
        }
      },
    });
    assert.ok(broken);
    const size = Number(stored.sizeBytes);
    assert.ok(between.sent() < size + (20 << 20), `${between.sent()} bytes were sent of ${size}`);
  });

  test(`${way}: who has no good token is told`, async () => {
    const client = connected(make, EDGE, { token: "none" });
    await assert.rejects(client.limits.getLimits({}), { code: "auth.invalid_token", status: 401 });
  });

  test(`${way}: a service that is not there is told`, async () => {
    const client = connected(make, "http://127.0.0.1:9", { timeoutS: 0.5, backoff: SOON });
    await assert.rejects(client.health.getHealth({}), { code: "connection.failed" });
  });
}
