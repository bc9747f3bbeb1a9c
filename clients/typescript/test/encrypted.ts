/** Calls a running service over TLS; `make test-clients` starts one. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { createClient } from "../src/node.js";

const ca = readFileSync(process.env["CAM_CA"] ?? "");
const token = process.env["CAM_TOKEN"];

for (const address of (process.env["CAM_ENCRYPTED"] ?? "").split(" ")) {
  test(`${address} is encrypted, and vouched for`, async (t) => {
    const client = createClient(address, { token, ca });
    t.after(() => client.close());
    assert.ok((await client.models.listModels({})).models.length > 0);
    const stranger = createClient(address, { token, timeoutS: 1, backoff: { firstS: 0.05, factor: 2, capS: 0.2 } });
    t.after(() => stranger.close());
    await assert.rejects(stranger.models.listModels({}), { code: "connection.failed" });
  });
}
