import { create, type DescMessage, fromJson, type JsonValue, type MessageShape, toJson } from "@bufbuild/protobuf";

import { authorized, type Token, within } from "./calls.js";
import { ANSWER_INVALID, CamserveError, failure, refusal } from "./errors.js";
import { InferRequestSchema, InferResponseSchema } from "./gen/camserve/v1/inference_pb.js";
import { UploadProgressSchema, UploadSchema } from "./gen/camserve/v1/uploads_pb.js";
import type { Source } from "./source.js";
import type { Attempt, Streams } from "./uploads.js";

const UNTYPED = "application/octet-stream";

/** Sends bytes as bodies of REST, because `fetch` streams no requests. Progress is told of piece by piece. */
export function restStreams(url: string, token: Token | undefined): Streams {
  return {
    async uploadImage(source, attempt) {
      const answer = await send(url, "POST", "/v1/uploads", token, source, 0, source.size, attempt, {
        "content-type": UNTYPED,
      });
      return parsed(UploadSchema, answer);
    },
    async inferUpload(source, ask, attempt) {
      const options = toJson(InferRequestSchema, { ...ask }, { useProtoFieldName: true }) as Record<string, JsonValue>;
      delete options["image"];
      const route = `/v1/infer?request=${encodeURIComponent(JSON.stringify(options))}`;
      const answer = await send(url, "POST", route, token, source, 0, source.size, attempt, { "content-type": UNTYPED });
      return parsed(InferResponseSchema, answer);
    },
    async appendUpload(source, { storageId, offset, end }, attempt) {
      const route = `/v1/uploads/${encodeURIComponent(storageId)}`;
      const answer = await send(url, "PATCH", route, token, source, offset, end, attempt, {
        "content-type": "application/offset+octet-stream",
        "tus-resumable": "1.0.0",
        "upload-offset": String(offset),
      });
      const reached = answer.headers.get("upload-offset");
      if (reached === null) throw new CamserveError(ANSWER_INVALID, "The answer does not say how far the upload is.");
      return create(UploadProgressSchema, { storageId, offset: BigInt(reached), sizeBytes: BigInt(source.size) });
    },
  };
}

async function send(
  url: string,
  method: string,
  route: string,
  token: Token | undefined,
  source: Source,
  start: number,
  end: number,
  attempt: Attempt,
  headers: Record<string, string>,
): Promise<Response> {
  const all = await authorized(attempt.headers, token);
  for (const [name, value] of Object.entries(headers)) all.set(name, value);
  const body = await source.read(start, end);
  const signal = within(attempt.timeoutS, attempt.signal);
  let answer: Response;
  try {
    answer = await fetch(url + route, { method, headers: all, body, signal, redirect: "error" });
  } catch (reason) {
    throw failure(reason, attempt.signal);
  }
  if (!answer.ok) throw await refusal(answer);
  attempt.sent(end - start);
  return answer;
}

async function parsed<S extends DescMessage>(schema: S, answer: Response): Promise<MessageShape<S>> {
  try {
    return fromJson(schema, (await answer.json()) as JsonValue, { ignoreUnknownFields: true });
  } catch (cause) {
    throw new CamserveError(ANSWER_INVALID, "The answer is not of the expected form.", { cause });
  }
}
