import type { JsonObject } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";

import { type ErrorObject, ErrorObjectSchema } from "./gen/camserve/v1/errors_pb.js";
import { RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";

export const CONNECTION_FAILED = "connection.failed";
export const ANSWER_INVALID = "answer.invalid";
const IN_PROGRESS = "idempotency.in_progress";
// How dates of HTTP begin: what else `Date.parse` takes is none.
const DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun)/;
const MAY_PASS = new Set([429, 502, 503, 504]);

/** What an error says beside its code and message. */
export interface Facts {
  status?: number;
  requestId?: string | undefined;
  retryAfterS?: number | undefined;
  details?: JsonObject | undefined;
  cause?: unknown;
}

/** Says why a call failed, whoever refused: the service, the way to it, or this client. */
export class CamserveError extends Error {
  override readonly name = "CamserveError";
  /**
   * Is one of the catalogue (docs/errors.md), or of this client: `connection.failed` when the service cannot be reached
   * or the connection broke, `answer.invalid` when what answered is not the service.
   */
  readonly code: string;
  /** Is the HTTP status, over gRPC too; 0 where nothing answered. */
  readonly status: number;
  /** Finds the call in the service's log. */
  readonly requestId: string | undefined;
  /** Is how many seconds to wait before another attempt, where the service said so. */
  readonly retryAfterS: number | undefined;
  /** Holds facts about the error, such as a limit. */
  readonly details: JsonObject;

  constructor(code: string, message: string, facts: Facts = {}) {
    super(message, "cause" in facts ? { cause: facts.cause } : {});
    this.code = code;
    this.status = facts.status ?? 0;
    this.requestId = facts.requestId || undefined;
    this.retryAfterS = facts.retryAfterS;
    this.details = facts.details ?? {};
  }

  /** Is true when the same call may succeed later. */
  get retryable(): boolean {
    return this.code === CONNECTION_FAILED || this.code === IN_PROGRESS || MAY_PASS.has(this.status);
  }
}

// What an error is where it carries its canonical code only: made by the edge, by gRPC itself or by something between.
const BY_GRPC_CODE: Partial<Record<Code, [string, number]>> = {
  [Code.InvalidArgument]: ["param.invalid", 400],
  [Code.Unauthenticated]: ["auth.invalid_token", 401],
  [Code.PermissionDenied]: ["access.denied", 403],
  [Code.NotFound]: ["route.not_found", 404],
  [Code.Unimplemented]: ["route.not_found", 404],
  [Code.OutOfRange]: ["body.too_large", 413],
  [Code.DeadlineExceeded]: ["timeout.exceeded", 504],
  [Code.Unavailable]: [CONNECTION_FAILED, 503],
  [Code.Aborted]: [CONNECTION_FAILED, 0],
  [Code.Canceled]: [CONNECTION_FAILED, 0],
  [Code.Internal]: ["internal", 500],
};

const BY_STATUS: Record<number, string> = {
  401: "auth.invalid_token",
  403: "access.denied",
  404: "route.not_found",
  405: "method.not_allowed",
  413: "body.too_large",
  415: "media.unsupported",
  429: "rate.exceeded",
  502: "upstream.failed",
  503: "service.overloaded",
  504: "timeout.exceeded",
};

/** Returns the error that a message describes, such as that of an image of a batch. */
export function errorOf(described: ErrorObject, retryAfterS?: number): CamserveError {
  const { code, message, status, requestId, details } = described;
  return new CamserveError(code, message, { status, requestId, retryAfterS, details });
}

/** Returns the error of a call that failed; one that the caller ended has the reason of its signal as its cause. */
export function failure(reason: unknown, signal?: AbortSignal): CamserveError {
  const cause = signal?.aborted ? signal.reason : reason;
  if (cause instanceof CamserveError) return cause;
  if (cause instanceof DOMException && cause.name === "TimeoutError") {
    return new CamserveError("timeout.exceeded", "No answer came in time.", { status: 504, cause });
  }
  if (signal?.aborted) return new CamserveError("client.closed", "The caller left.", { status: 499, cause });
  const said = ConnectError.from(reason);
  const retryInfo = said.findDetails(RetryInfoSchema)[0]?.retryDelay;
  const retryAfterS =
    seconds(said.metadata.get("retry-after")) ??
    (retryInfo && Number(retryInfo.seconds) + retryInfo.nanos / 1e9);
  const described = said.findDetails(ErrorObjectSchema)[0];
  if (described) return errorOf(described, retryAfterS);
  let [code, status] = BY_GRPC_CODE[said.code] ?? [ANSWER_INVALID, 0];
  if (said.code === Code.ResourceExhausted) {
    // Without a time to come again it is gRPC's own word for a message above the limit.
    [code, status] = retryAfterS === undefined ? ["body.too_large", 413] : ["rate.exceeded", 429];
  } else if (said.code === Code.Unavailable && retryAfterS !== undefined) {
    // The edge says so; a connection says nothing of when.
    [code, status] = ["service.overloaded", 503];
  } else if ([Code.Unknown, Code.Internal].includes(said.code) && ofTheMachine(said.cause)) {
    // So fetch and Node tell of a connection that failed; what the service says has no cause.
    [code, status] = [CONNECTION_FAILED, 0];
  }
  const requestId = said.metadata.get("request-id") ?? undefined;
  return new CamserveError(code, said.rawMessage, { status, requestId, retryAfterS, cause: reason });
}

/** Returns the error of an HTTP answer whose status is not 2xx. */
export async function refusal(answer: Response): Promise<CamserveError> {
  const retryAfterS = seconds(answer.headers.get("retry-after"));
  const requestId = answer.headers.get("request-id") ?? undefined;
  const status = answer.status;
  const said: unknown = await answer.json().catch(() => undefined);
  const error = isObject(said) && isObject(said["error"]) ? said["error"] : {};
  if (typeof error["code"] === "string") {
    const details = isObject(error["details"]) ? (error["details"] as JsonObject) : undefined;
    return new CamserveError(error["code"], String(error["message"] ?? ""), { status, requestId, retryAfterS, details });
  }
  const code = BY_STATUS[status] ?? (status >= 500 ? "internal" : ANSWER_INVALID);
  return new CamserveError(code, `The answer was HTTP ${status}.`, { status, requestId, retryAfterS });
}

function ofTheMachine(cause: unknown): boolean {
  return cause instanceof TypeError || (cause instanceof Error && "code" in cause);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

/** Reads `Retry-After`, seconds or a date, which something between may say; undefined where it says nothing. */
function seconds(text: string | null): number | undefined {
  if (text === null) return undefined;
  if (/^\d+$/.test(text)) return Number(text);
  // Of the three forms that HTTP knows one does not name its zone.
  const date = DATE.test(text) ? Date.parse(text.endsWith(" GMT") ? text : `${text} GMT`) : NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, (date - Date.now()) / 1000);
}
