/**
 * The client of camserve for browsers, and for everything else that has `fetch`.
 *
 * It speaks gRPC-Web to the edge, and REST where bytes of images are streamed, which `fetch` does not do over gRPC-Web.
 */
import { createGrpcWebTransport } from "@connectrpc/connect-web";

import { Client, type ClientOptions } from "./client.js";
import { restStreams } from "./rest_streams.js";

export { Client, type ClientOptions, type InferOptions } from "./client.js";
export type { Token } from "./calls.js";
export { CamserveError, errorOf } from "./errors.js";
export type { Backoff } from "./retry.js";
export type { Bytes, Image, ImageUrl, Source, StorageId } from "./source.js";
export type { Progress, UploadOptions } from "./uploads.js";
export type { WaitOptions } from "./jobs.js";
export { verifyWebhook, type WebhookEvent, type WebhookHeaders } from "./webhooks.js";
export * from "./gen/camserve/v1/health_pb.js";
export * from "./gen/camserve/v1/inference_pb.js";
export * from "./gen/camserve/v1/jobs_pb.js";
export * from "./gen/camserve/v1/limits_pb.js";
export * from "./gen/camserve/v1/models_pb.js";
export * from "./gen/camserve/v1/objects_pb.js";
export * from "./gen/camserve/v1/uploads_pb.js";
export * from "./gen/camserve/v1/webhooks_pb.js";

/** Returns a client of the edge at `url` (`https://…`). A page of another origin must be among its allowed ones. */
export function createClient(url: string, options: ClientOptions = {}): Client {
  const base = new URL(url);
  if (!["http:", "https:"].includes(base.protocol) || base.search || base.hash || base.username) {
    throw new RangeError("an address is http:// or https:// with a host and, if need be, a port");
  }
  const baseUrl = base.href.replace(/\/+$/, "");
  return new Client(
    {
      transport: createGrpcWebTransport({ baseUrl, useBinaryFormat: true }),
      streams: () => restStreams(baseUrl, options.token),
      // The connections are the browser's; what is under way ends with its signal.
      close: () => undefined,
    },
    options,
  );
}
