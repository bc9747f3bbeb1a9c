import { CamserveError } from "./errors.js";

/** Bytes that can be read more than once, from any place. */
export interface Source {
  readonly size: number;
  read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>>;
  close?(): Promise<void>;
}

/** An image that the service fetches. */
export interface ImageUrl {
  url: string;
}

/** An image that was uploaded before. */
export interface StorageId {
  storageId: string;
}

/**
 * Where the bytes of an image are: a file of a page or of Node (`file()`), a `Blob`, or bytes in memory, which must not
 * change while they are in use.
 */
export type Bytes = Blob | Uint8Array | (() => Promise<Source>);

/** An image. */
export type Image = Bytes | ImageUrl | StorageId;

export function isReference(image: Image): image is ImageUrl | StorageId {
  return typeof image === "object" && ("url" in image || "storageId" in image);
}

/** Opens bytes for `use`, and closes them afterwards. */
export async function withSource<T>(bytes: Bytes, use: (source: Source) => Promise<T>): Promise<T> {
  const source = await open(bytes);
  try {
    return await use(source);
  } finally {
    await source.close?.();
  }
}

async function open(bytes: Bytes): Promise<Source> {
  if (typeof bytes === "function") return bytes();
  if (bytes instanceof Uint8Array) {
    return { size: bytes.length, read: async (start, end) => new Uint8Array(bytes.subarray(start, end)) };
  }
  return {
    size: bytes.size,
    read: async (start, end) => {
      try {
        return new Uint8Array(await bytes.slice(start, end).arrayBuffer());
      } catch (cause) {
        throw unreadable(cause);
      }
    },
  };
}

export function unreadable(cause: unknown): CamserveError {
  return new CamserveError("image.unreadable", "The image cannot be read.", { cause });
}
