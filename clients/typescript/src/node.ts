/** The client of camserve for Node, over gRPC: at the service's own port or through the edge. */
import { Buffer } from "node:buffer";
import { open } from "node:fs/promises";

import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import { Client, type ClientOptions } from "./client.js";
import { grpcStreams } from "./grpc_streams.js";
import { type Source, unreadable } from "./source.js";

export * from "./index.js";

const SCHEMES: Record<string, [string, string]> = {
  "grpc:": ["http:", "50051"],
  "grpcs:": ["https:", "443"],
  "http:": ["http:", "80"],
  "https:": ["https:", "443"],
};

/** How a client works over gRPC. */
export interface NodeOptions extends ClientOptions {
  /** Is PEM of the authorities of encrypted connections: by default those of Node. */
  ca?: string | Uint8Array;
}

/**
 * Returns a client of the service at `address`, which connects when it is first used.
 *
 * That is its own port (`grpc://127.0.0.1:50051`, `grpcs://…`) or the edge (`http://127.0.0.1:8080`, `https://…`). Without
 * a scheme the connection is encrypted unless the host is this machine. Throws RangeError for anything else.
 */
export function createClient(address: string, { ca, ...options }: NodeOptions = {}): Client {
  const baseUrl = parseAddress(address);
  const sessionManager = new Http2SessionManager(baseUrl, {}, ca === undefined ? {} : { ca: Buffer.from(ca) });
  return new Client(
    {
      transport: createGrpcTransport({ baseUrl, sessionManager }),
      streams: grpcStreams,
      close: () => sessionManager.abort(),
    },
    options,
  );
}

/** An image in a file, which is never read into memory whole unless it is small. */
export function file(path: string): () => Promise<Source> {
  return async () => {
    try {
      const opened = await open(path);
      const { size } = await opened.stat();
      const read = async (start: number, end: number) => {
        const data = new Uint8Array(end - start);
        let filled = 0;
        while (filled < data.length) {
          const { bytesRead } = await opened.read(data, filled, data.length - filled, start + filled);
          if (bytesRead === 0) throw unreadable(new RangeError("the file has become shorter"));
          filled += bytesRead;
        }
        return data;
      };
      return { size, read, close: () => opened.close() };
    } catch (cause) {
      throw unreadable(cause);
    }
  };
}

/** Returns the address as `http://` or `https://` with host and port. */
export function parseAddress(address: string): string {
  const local = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?$/.test(address);
  const whole = address.includes("://") ? address : `${local ? "grpc" : "grpcs"}://${address}`;
  const parts = /^([a-z]+:)\/\/(\[[0-9a-f:.]+\]|[^/?#@:[\]]+)(?::(\d+))?\/*$/i.exec(whole);
  const scheme = SCHEMES[parts?.[1]?.toLowerCase() ?? ""];
  if (!parts || !scheme) {
    throw new RangeError("an address is grpc://, grpcs://, http:// or https:// with a host and, if need be, a port");
  }
  return `${scheme[0]}//${parts[2]}:${parts[3] ?? scheme[1]}`;
}
