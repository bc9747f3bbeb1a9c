import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client as Stub, createClient as createStub, type Transport } from "@connectrpc/connect";

import { inferBatch } from "./batches.js";
import { type Calls, calling, keyed, type Token } from "./calls.js";
import { ANSWER_INVALID, CamserveError, errorOf } from "./errors.js";
import { HealthService } from "./gen/camserve/v1/health_pb.js";
import {
  type BatchItem,
  type Heatmap,
  type ImageInput,
  ImageInputSchema,
  type InferBatchRequestSchema,
  InferenceService,
  InferRequestSchema,
  type InferResponse,
  InferResponseSchema,
} from "./gen/camserve/v1/inference_pb.js";
import { type Job, type JobItem, JobService } from "./gen/camserve/v1/jobs_pb.js";
import { LimitService } from "./gen/camserve/v1/limits_pb.js";
import { ModelService } from "./gen/camserve/v1/models_pb.js";
import { ObjectService } from "./gen/camserve/v1/objects_pb.js";
import { type Upload, UploadService } from "./gen/camserve/v1/uploads_pb.js";
import { WebhookService } from "./gen/camserve/v1/webhooks_pb.js";
import { heatmapData } from "./heatmaps.js";
import { jobResults, type WaitOptions, waitJob } from "./jobs.js";
import { Life } from "./life.js";
import { type Backoff, Retries } from "./retry.js";
import { type Bytes, type Image, isReference, type Source, withSource } from "./source.js";
import { type Streams, upload, type UploadOptions, uploadTimeoutS } from "./uploads.js";

// The largest image that is better off within a message than as a stream.
const INLINE_BYTES = 1 << 20;
// What is larger becomes a job anyway, and is worth an upload that survives broken connections.
const STREAMED_BYTES = 20_000_000;
const REMOVAL_MS = 5000;

/** How a client works. */
export interface ClientOptions {
  /** Is a JWT, or a function that gives one at every attempt. */
  token?: Token | undefined;
  /** Is how many seconds a call may take with all its attempts: 60 by default. */
  timeoutS?: number;
  /** Sets the pauses between attempts. */
  backoff?: Backoff;
}

/** How one classification is made. */
export interface InferOptions {
  /** Is 1 to 255 visible ASCII characters: the same call under the same key never runs twice. */
  idempotencyKey?: string;
  onProgress?: UploadOptions["onProgress"];
  signal?: AbortSignal;
}

/** How a client reaches the service. */
export interface Way {
  transport: Transport;
  /** Makes what streams bytes; over REST it signs in by itself. */
  streams: (calling: Transport) => Streams;
  close: () => void;
}

/** Calls one service. It is meant to be kept and shared. Every call that fails throws a CamserveError. */
export class Client {
  readonly inference: Stub<typeof InferenceService>;
  readonly jobs: Stub<typeof JobService>;
  readonly models: Stub<typeof ModelService>;
  readonly uploads: Stub<typeof UploadService>;
  readonly objects: Stub<typeof ObjectService>;
  readonly webhooks: Stub<typeof WebhookService>;
  readonly limits: Stub<typeof LimitService>;
  readonly health: Stub<typeof HealthService>;
  readonly #calls: Calls;
  readonly #streams: Streams;
  readonly #close: () => void;

  constructor(way: Way, { token, timeoutS = 60, backoff }: ClientOptions, retries = new Retries(backoff)) {
    this.#calls = { token, retries, timeoutS, life: new Life() };
    const transport = calling(way.transport, this.#calls);
    this.#streams = way.streams(transport);
    this.#close = way.close;
    this.inference = createStub(InferenceService, transport);
    this.jobs = createStub(JobService, transport);
    this.models = createStub(ModelService, transport);
    this.uploads = createStub(UploadService, transport);
    this.objects = createStub(ObjectService, transport);
    this.webhooks = createStub(WebhookService, transport);
    this.limits = createStub(LimitService, transport);
    this.health = createStub(HealthService, transport);
  }

  /**
   * Ends every connection and every call, also those that wait for another attempt: they fail with `client.closed`, and so
   * does what is called afterwards.
   */
  close(): void {
    this.#calls.life.close();
    this.#close();
  }

  /**
   * Classifies one image as `ask` says.
   *
   * A small image goes within the message, a larger one as a stream, one above 20 MB by an upload that survives broken
   * connections. What the service makes a job of is waited for: then `jobId` is present beside the answer.
   */
  async infer(
    image: Image,
    ask: Omit<MessageInitShape<typeof InferRequestSchema>, "image">,
    options: InferOptions = {},
  ): Promise<InferResponse> {
    return this.#calls.life.during(options.signal, (signal) => this.#inferred(image, ask, { ...options, signal }));
  }

  async #inferred(
    image: Image,
    ask: Omit<MessageInitShape<typeof InferRequestSchema>, "image">,
    options: InferOptions,
  ): Promise<InferResponse> {
    if (isReference(image)) return this.#done(await this.#infer(image, ask, options), options);
    return withSource(image, async (source) => {
      if (source.size <= STREAMED_BYTES) return this.#done(await this.#infer(source, ask, options), options);
      const { storageId } = await this.upload(async () => borrowed(source), options);
      try {
        return await this.#done(await this.#infer({ storageId }, ask, options), options);
      } finally {
        // One that stays goes by itself when its time is over. Under a key the same call names the same upload again.
        if (options.idempotencyKey === undefined) {
          await this.uploads.deleteUpload({ storageId }, { timeoutMs: REMOVAL_MS }).catch(() => undefined);
        }
      }
    });
  }

  /** Stores an image, to be used any number of times as `{ storageId }`; above 4 MiB in pieces that survive. */
  async upload(image: Bytes, options: UploadOptions = {}): Promise<Upload> {
    return this.#calls.life.during(options.signal, (signal) =>
      withSource(image, (source) =>
        upload(
          this.#calls,
          this.#streams,
          this.uploads,
          source,
          (method) => keyed(UploadService.method[method], keyHeader(options.idempotencyKey)),
          { ...options, signal },
        ),
      ),
    );
  }

  /** Returns an image as batches and jobs take it: within the message up to 1 MiB, uploaded above. */
  async input(image: Image, signal?: AbortSignal): Promise<ImageInput> {
    if (isReference(image)) return create(ImageInputSchema, referenced(image));
    return withSource(image, async (source) => {
      if (source.size <= INLINE_BYTES) {
        return create(ImageInputSchema, { source: { case: "bytes", value: await source.read(0, source.size) } });
      }
      const { storageId } = await this.upload(async () => borrowed(source), { signal });
      return create(ImageInputSchema, referenced({ storageId }));
    });
  }

  /**
   * Yields each image of a batch as it is finished, in any order; one that fails is an item with an error.
   *
   * There may be any number of inputs: they are sent in requests of up to 64. After a broken stream those without an
   * answer are sent again: that may be charged twice, and changes nothing else.
   */
  async *inferBatch(
    ask: MessageInitShape<typeof InferBatchRequestSchema>,
    signal?: AbortSignal,
  ): AsyncGenerator<BatchItem> {
    const call = this.#calls.life.begin(signal);
    try {
      const { maxBatchSize } = await this.limits.getLimits({}, { signal: call.signal });
      yield* inferBatch(this.#calls, this.inference, ask, maxBatchSize, call.signal);
    } finally {
      call.end();
    }
  }

  /** Returns a job once it has ended, one way or another. Waits without end, unless `signal` says otherwise. */
  async waitJob(jobId: string, options: WaitOptions = {}): Promise<Job> {
    return this.#calls.life.during(options.signal, (signal) =>
      waitJob(this.#calls, this.jobs, jobId, { ...options, signal }),
    );
  }

  /** Yields every image of a job in the order of the request, finished or not. */
  jobResults(jobId: string, signal?: AbortSignal): AsyncGenerator<JobItem> {
    return jobResults(this.jobs, jobId, signal);
  }

  /** Returns the file of a heatmap, PNG or NPY as its `format` says, from the answer or by its link. */
  async heatmapData(heatmap: Heatmap, signal?: AbortSignal): Promise<Uint8Array<ArrayBuffer>> {
    return this.#calls.life.during(signal, (alive) => heatmapData(this.#calls, this.objects, heatmap, alive));
  }

  async #infer(
    image: Source | Exclude<Image, Bytes>,
    ask: Omit<MessageInitShape<typeof InferRequestSchema>, "image">,
    { idempotencyKey, onProgress, signal }: InferOptions,
  ): Promise<InferResponse> {
    const request = create(InferRequestSchema, ask as MessageInitShape<typeof InferRequestSchema>);
    const fixed = keyed(InferenceService.method.infer, keyHeader(idempotencyKey));
    if ("read" in image && image.size > INLINE_BYTES) {
      const sent = (sentBytes: number) => onProgress?.({ sentBytes, totalBytes: image.size });
      return this.#calls.retries.run(
        (tries) =>
          this.#streams.inferUpload(image, request, { headers: fixed, signal, timeoutS: tries.leftS, sent }),
        uploadTimeoutS(this.#calls, image.size),
        signal,
      );
    }
    const held =
      "read" in image
        ? { source: { case: "bytes" as const, value: await image.read(0, image.size) } }
        : referenced(image);
    request.image = create(ImageInputSchema, held);
    return this.inference.infer(request, { headers: fixed, signal });
  }

  /** Waits for the job that a call became, and returns the answer as the call would have. */
  async #done(answer: InferResponse, { signal }: InferOptions): Promise<InferResponse> {
    if (answer.jobId === undefined) {
      // Without classes alone it may be that none is probable enough.
      if (answer.classes.length > 0 || answer.modelVersion) return answer;
      throw new CamserveError(ANSWER_INVALID, "The answer is empty.");
    }
    const job = await this.waitJob(answer.jobId, { signal });
    for await (const item of this.jobResults(answer.jobId, signal)) {
      if (item.error) throw errorOf(item.error);
      if (item.result) {
        const { $typeName, $unknown, ...result } = item.result;
        const { jobId, requestId } = answer;
        return create(InferResponseSchema, { ...result, requestId, model: job.model, jobId });
      }
    }
    throw new CamserveError(ANSWER_INVALID, "The job has ended and has no result.");
  }
}

function referenced(image: Exclude<Image, Bytes>): MessageInitShape<typeof ImageInputSchema> {
  return "url" in image
    ? { source: { case: "url", value: image.url } }
    : { source: { case: "storageId", value: image.storageId } };
}

function keyHeader(key: string | undefined): Record<string, string> {
  return key === undefined ? {} : { "idempotency-key": key };
}

/** The same source for another call, which shall not close it. */
function borrowed(source: Source): Source {
  return { size: source.size, read: (start, end) => source.read(start, end) };
}
