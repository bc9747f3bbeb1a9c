/** Makes calls of a running service as its standard input says; `python -m benchmarks.clients` measures it meanwhile. */
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { createClient as createStub } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { InferenceService } from "../src/gen/camserve/v1/inference_pb.js";
import { createClient, file } from "../src/node.js";

const AT_ONCE = 32;
const ASK = { model: "shapes", gradCam: { enabled: true }, response: { heatmap: "inline" } };

const [address, token, path] = ["CAM_ADDRESS", "CAM_TOKEN", "CAM_PICTURE"].map((name) => process.env[name] ?? "") as [
  string,
  string,
  string,
];
const picture = new Uint8Array(readFileSync(path));
const client = createClient(address, { token });
const baseUrl = `http://${address}`;
const sessionManager = new Http2SessionManager(baseUrl);
const stub = createStub(InferenceService, createGrpcTransport({ baseUrl, sessionManager }));

const CALLS: Record<string, () => Promise<unknown>> = {
  raw: () => {
    const headers = { authorization: `Bearer ${token}`, "idempotency-key": crypto.randomUUID() };
    const image = { source: { case: "bytes" as const, value: picture } };
    return stub.infer({ ...ASK, image }, { headers, timeoutMs: 60_000 });
  },
  client: () => client.infer(picture, ASK),
};

/** Makes `count` calls, 32 at once. */
async function repeat(call: () => Promise<unknown>, count: number): Promise<void> {
  let made = 0;
  const caller = async () => {
    while (made++ < count) await call();
  };
  await Promise.all(Array.from({ length: AT_ONCE }, caller));
}

for await (const line of createInterface({ input: process.stdin })) {
  const [work, argument] = line.split(/ (.*)/) as [string, string];
  if (work === "upload") {
    console.log((await client.upload(file(argument))).storageId);
  } else {
    await repeat(CALLS[work]!, Number(argument));
    console.log("done");
  }
}
client.close();
sessionManager.abort();
