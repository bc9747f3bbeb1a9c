import type { Calls } from "./calls.js";
import { CamserveError, CONNECTION_FAILED, failure } from "./errors.js";
import type { InferRequest, InferResponse } from "./gen/camserve/v1/inference_pb.js";
import type { Upload, UploadProgress, UploadService } from "./gen/camserve/v1/uploads_pb.js";
import type { Client as Stub } from "@connectrpc/connect";
import { md5 } from "./md5.js";
import type { Tries } from "./retry.js";
import type { Source } from "./source.js";

// Up to this a second attempt from the beginning costs no more than asking how far the first one came.
const WHOLE_BYTES = 4 << 20;
const PIECE_BYTES = 8 << 20;
// Longer than the minute for which the edge still counts a connection that died without a word.
const STALLED_S = 150;
// The slowest network that still counts as one.
const SLOWEST_BYTES_S = 64 << 10;

/** How far an upload has come: bytes on their way or there, and the id under which it can be resumed. */
export interface Progress {
  sentBytes: number;
  totalBytes: number;
  storageId?: string;
}

/** How one attempt at streaming bytes is made; `sent` is told of the bytes of the piece that are on their way. */
export interface Attempt {
  headers: Headers;
  signal: AbortSignal | undefined;
  timeoutS: number;
  sent: (bytes: number) => void;
}

/** What streams bytes, in single attempts: gRPC where that can stream from here, REST in browsers. */
export interface Streams {
  uploadImage(source: Source, attempt: Attempt): Promise<Upload>;
  inferUpload(source: Source, ask: InferRequest, attempt: Attempt): Promise<InferResponse>;
  appendUpload(
    source: Source,
    place: { storageId: string; offset: number; end: number },
    attempt: Attempt,
  ): Promise<UploadProgress>;
}

/** What a caller may say of an upload. */
export interface UploadOptions {
  onProgress?: (progress: Progress) => void;
  /** Is the `storageId` of an upload that was begun before. */
  resume?: string;
  /**
   * Is 1 to 255 visible ASCII characters: the same image under the same key is the same upload, which goes on where it was,
   * another one is refused. Above 4 MiB the image is read twice for that, for its MD5 first.
   */
  idempotencyKey?: string;
  signal?: AbortSignal;
}

export function uploadTimeoutS(calls: Calls, bytes: number): number {
  return calls.timeoutS + bytes / SLOWEST_BYTES_S;
}

/** Stores an image: in one call where that is cheap, piece by piece where a broken connection would cost too much. */
export async function upload(
  calls: Calls,
  streams: Streams,
  stub: Stub<typeof UploadService>,
  source: Source,
  headers: (method: keyof typeof UploadService.method) => Headers,
  { onProgress, resume, idempotencyKey, signal }: UploadOptions,
): Promise<Upload> {
  const totalBytes = source.size;
  if (resume === undefined && totalBytes <= WHOLE_BYTES) {
    const fixed = headers("uploadImage");
    const sent = (sentBytes: number) => onProgress?.({ sentBytes, totalBytes });
    return calls.retries.run(
      (tries) => streams.uploadImage(source, { headers: fixed, signal, timeoutS: tries.leftS, sent }),
      uploadTimeoutS(calls, totalBytes),
      signal,
    );
  }
  let begun: UploadProgress;
  if (resume === undefined) {
    // Another image of that size under the key is refused so, instead of being taken for the first.
    const contentMd5 = idempotencyKey === undefined ? undefined : await md5(source, signal);
    const request = { sizeBytes: BigInt(totalBytes), contentMd5 };
    begun = await stub.startUpload(request, { headers: headers("startUpload"), signal });
  } else {
    begun = await stub.getUploadProgress({ storageId: resume }, { signal });
  }
  if (Number(begun.sizeBytes) !== totalBytes) {
    throw new RangeError(`the upload is of ${begun.sizeBytes} bytes, the image has ${totalBytes}`);
  }
  const { storageId } = begun;
  const tell = (sentBytes: number) => onProgress?.({ sentBytes, totalBytes, storageId });
  let reached = begun;
  while (Number(reached.offset) < totalBytes) {
    reached = await nextPiece(calls, streams, stub, source, storageId, Number(reached.offset), tell, signal);
    tell(Number(reached.offset));
  }
  return reached.upload ?? stub.getUpload({ storageId }, { signal });
}

/** Returns once the upload has come further than `offset`. */
async function nextPiece(
  calls: Calls,
  streams: Streams,
  stub: Stub<typeof UploadService>,
  source: Source,
  storageId: string,
  offset: number,
  tell: (sentBytes: number) => void,
  signal: AbortSignal | undefined,
): Promise<UploadProgress> {
  const tries = calls.retries.started(STALLED_S, signal);
  const end = Math.min(offset + PIECE_BYTES, source.size);
  for (;;) {
    let error: CamserveError;
    try {
      return await streams.appendUpload(
        source,
        { storageId, offset, end },
        {
          headers: new Headers(),
          signal,
          // By which the service lets go of the piece, should the connection die unnoticed.
          timeoutS: uploadTimeoutS(calls, end - offset),
          sent: (bytes) => tell(offset + bytes),
        },
      );
    } catch (reason) {
      error = failure(reason, signal);
    }
    const conflict = error.code === "upload.offset_conflict";
    if (!conflict) await tries.pauseAfter(error);
    const reached = await progress(stub, storageId, tries, signal);
    if (Number(reached.offset) !== offset) return reached;
    if (conflict) {
      // Somebody else adds bytes just now, such as our own connection that died unnoticed.
      await tries.pauseAfter(new CamserveError(CONNECTION_FAILED, error.message, { status: error.status }));
    }
  }
}

/** Asks how far an upload has come, for as long as it may stand still and not only as long as a call. */
async function progress(
  stub: Stub<typeof UploadService>,
  storageId: string,
  tries: Tries,
  signal: AbortSignal | undefined,
): Promise<UploadProgress> {
  for (;;) {
    try {
      return await stub.getUploadProgress({ storageId }, { signal });
    } catch (reason) {
      await tries.pauseAfter(failure(reason, signal));
    }
  }
}
