import type { DescMethodStreaming, DescMessage, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";

import { Idle, milliseconds } from "./calls.js";
import { CamserveError, ANSWER_INVALID, failure } from "./errors.js";
import { InferenceService } from "./gen/camserve/v1/inference_pb.js";
import { UploadService } from "./gen/camserve/v1/uploads_pb.js";
import type { Source } from "./source.js";
import type { Attempt, Streams } from "./uploads.js";

const CHUNK_BYTES = 256 << 10;
// An attempt that moves no byte for so long is over, even if the connection does not say so.
const IDLE_S = 60;
const UNTYPED = "application/octet-stream";

/** Streams bytes as messages of gRPC. */
export function grpcStreams(transport: Transport): Streams {
  return {
    uploadImage: (source, attempt) =>
      send(transport, UploadService.method.uploadImage, source, 0, source.size, attempt, {
        sizeBytes: BigInt(source.size),
      }),
    inferUpload: (source, { $typeName, $unknown, image, ...ask }, attempt) =>
      send(transport, InferenceService.method.inferUpload, source, 0, source.size, attempt, {
        ...ask,
        sizeBytes: BigInt(source.size),
      }),
    appendUpload: (source, { storageId, offset, end }, attempt) =>
      send(transport, UploadService.method.appendUpload, source, offset, end, attempt, {
        storageId,
        offset: BigInt(offset),
      }),
  };
}

async function send<I extends DescMessage, O extends DescMessage>(
  transport: Transport,
  method: DescMethodStreaming<I, O>,
  source: Source,
  start: number,
  end: number,
  attempt: Attempt,
  first: object,
): Promise<MessageShape<O>> {
  const idle = new Idle(IDLE_S, attempt.signal);
  let unread: unknown;
  async function* messages() {
    let options: object = { ...first };
    let contentType = UNTYPED;
    for (let offset = start; offset < end || offset === start; ) {
      const until = Math.min(offset + CHUNK_BYTES, end);
      let data: Uint8Array;
      try {
        data = await source.read(offset, until);
      } catch (reason) {
        unread = reason;
        throw reason;
      }
      yield { ...options, body: { contentType, data } } as unknown as MessageInitShape<I>;
      // Only now has the one before been taken.
      idle.moved();
      attempt.sent(until - start);
      if (until === end) return;
      [options, contentType, offset] = [{}, "", until];
    }
  }
  try {
    const timeoutMs = milliseconds(attempt.timeoutS);
    const opened = await transport.stream(method, idle.signal, timeoutMs, attempt.headers, messages());
    let answer: MessageShape<O> | undefined;
    // To the end, where the status comes.
    for await (const message of opened.message) answer = message;
    if (answer === undefined) throw new CamserveError(ANSWER_INVALID, "The call ended without an answer.");
    return answer;
  } catch (reason) {
    if (unread !== undefined) throw unread;
    throw failure(reason, idle.signal);
  } finally {
    idle.stop();
  }
}
