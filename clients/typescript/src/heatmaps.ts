import type { Client as Stub } from "@connectrpc/connect";

import { type Calls, milliseconds, within } from "./calls.js";
import { ANSWER_INVALID, CamserveError, failure, refusal } from "./errors.js";
import type { Heatmap } from "./gen/camserve/v1/inference_pb.js";
import type { ObjectService } from "./gen/camserve/v1/objects_pb.js";

const OBJECT = /\/v1\/objects\/(obj_[0-9A-Za-z]{16,40})$/;

/** Returns the file of a heatmap; throws `signature.expired` when its link has ended. */
export async function heatmapData(
  calls: Calls,
  stub: Stub<typeof ObjectService>,
  heatmap: Heatmap,
  signal?: AbortSignal,
): Promise<Uint8Array<ArrayBuffer>> {
  if (heatmap.dataB64 !== undefined) return heatmap.dataB64 as Uint8Array<ArrayBuffer>;
  if (!heatmap.url || !URL.canParse(heatmap.url)) throw new CamserveError(ANSWER_INVALID, "The heatmap has no data.");
  const link = new URL(heatmap.url);
  const objectId = OBJECT.exec(link.pathname)?.[1];
  const token = link.searchParams.get("token");
  return calls.retries.run(
    async (tries) => {
      if (objectId === undefined || token === null) return read(heatmap.url ?? "", tries.leftS, signal);
      // Over the connection that there is: nothing says that the link's own address can be reached.
      const parts: Uint8Array<ArrayBuffer>[] = [];
      const timeoutMs = milliseconds(tries.leftS);
      for await (const part of stub.download({ objectId, token }, { timeoutMs, signal })) {
        parts.push(part.data as Uint8Array<ArrayBuffer>);
      }
      return new Uint8Array(await new Blob(parts).arrayBuffer());
    },
    calls.timeoutS,
    signal,
  );
}

/** Reads from the object store itself, which is another server and hears nothing of the caller's token. */
async function read(url: string, leftS: number, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
  let answer: Response;
  try {
    answer = await fetch(url, { signal: within(leftS, signal), redirect: "error" });
    if (answer.ok) return new Uint8Array(await answer.arrayBuffer());
  } catch (reason) {
    throw failure(reason, signal);
  }
  throw await refusal(answer);
}
