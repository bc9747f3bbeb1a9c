import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import type { Client as Stub } from "@connectrpc/connect";

import type { Calls } from "./calls.js";
import { CamserveError, CONNECTION_FAILED, errorOf, failure } from "./errors.js";
import {
  type BatchInput,
  BatchInputSchema,
  type BatchItem,
  type InferBatchRequest,
  InferBatchRequestSchema,
  type InferenceService,
  StreamEvent_Kind,
} from "./gen/camserve/v1/inference_pb.js";

// What one request of a batch carries: the service takes more, and begins with the first sooner.
const REQUEST_BYTES = 12_000_000;
const REQUEST_IMAGES = 64;

/** Yields each image of a batch as it is finished, each once; `maxBatchSize` is what the tenant may send at once. */
export async function* inferBatch(
  calls: Calls,
  stub: Stub<typeof InferenceService>,
  init: MessageInitShape<typeof InferBatchRequestSchema>,
  maxBatchSize: number,
  signal?: AbortSignal,
): AsyncGenerator<BatchItem> {
  const ask = create(InferBatchRequestSchema, init);
  if (new Set(ask.inputs.map((input) => input.id)).size < ask.inputs.length) {
    // Said here: the service gets inputs by and by.
    throw new CamserveError("batch.duplicate_id", "Two inputs of a batch have the same id.", { status: 400 });
  }
  for (const group of groups(ask.inputs, Math.max(1, Math.min(REQUEST_IMAGES, maxBatchSize)))) {
    yield* answers(calls, stub, ask, group, signal);
  }
}

/**
 * Yields the outcome of every input.
 *
 * After a broken stream those without one are sent again: a batch takes no key and leaves nothing behind, so to classify
 * an image twice harms nobody but the quota.
 */
async function* answers(
  calls: Calls,
  stub: Stub<typeof InferenceService>,
  ask: InferBatchRequest,
  inputs: BatchInput[],
  signal?: AbortSignal,
): AsyncGenerator<BatchItem> {
  const waiting = new Map(inputs.map((input) => [input.id, input]));
  const tries = calls.retries.started(calls.timeoutS, signal);
  while (waiting.size > 0) {
    let broken = new CamserveError(CONNECTION_FAILED, "The stream ended early.");
    const events = stub.inferBatch({ ...ask, inputs: [...waiting.values()] }, { signal });
    const messages = events[Symbol.asyncIterator]();
    try {
      for (;;) {
        const next = await messages.next().catch((reason: unknown) => {
          throw failure(reason, signal);
        });
        if (next.done || next.value.event === StreamEvent_Kind.done) break;
        if (next.value.error) throw errorOf(next.value.error);
        if (next.value.item && waiting.delete(next.value.item.id)) {
          tries.restart();
          yield next.value.item;
        }
      }
    } catch (reason) {
      if (!(reason instanceof CamserveError)) throw reason;
      broken = reason;
    } finally {
      await messages.return?.();
    }
    if (waiting.size > 0) await tries.pauseAfter(broken);
  }
}

/** Splits inputs into as many as one request takes, by their number and by their bytes. */
function* groups(inputs: BatchInput[], most: number): Generator<BatchInput[]> {
  let group: BatchInput[] = [];
  let bytes = 0;
  for (const input of inputs) {
    const held = input.image?.source;
    const size = held?.case === "bytes" ? held.value.length : toBinary(BatchInputSchema, input).length;
    if (group.length === most || (group.length > 0 && bytes + size > REQUEST_BYTES)) {
      yield group;
      [group, bytes] = [[], 0];
    }
    group.push(input);
    bytes += size;
  }
  if (group.length > 0) yield group;
}
