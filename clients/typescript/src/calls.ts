import { type DescMethod, getOption } from "@bufbuild/protobuf";
import type { Transport } from "@connectrpc/connect";

import { CamserveError, CONNECTION_FAILED, failure } from "./errors.js";
import { policy } from "./gen/camserve/options/v1/policy_pb.js";
import type { Life } from "./life.js";
import type { Retries } from "./retry.js";

const KEY = "idempotency-key";
// Three heartbeats of a stream.
const IDLE_S = 45;
// What a timer takes.
const MOST_MS = 2 ** 31 - 1;

/** A JWT, or a function that gives one at every attempt. */
export type Token = string | (() => string | Promise<string>);

/** What every attempt of a client has in common; `timeoutS` is the time of a call with all its attempts. */
export interface Calls {
  token: Token | undefined;
  retries: Retries;
  timeoutS: number;
  life: Life;
}

/**
 * Returns a transport that signs calls in, makes unary ones again where that may help, under one key, and whose failures are
 * CamserveError.
 *
 * All unary calls may be repeated: those that create have a key, the others do the same when sent twice. A stream is a
 * single attempt, and broken when nothing comes for 45 s.
 */
export function calling(inner: Transport, calls: Calls): Transport {
  return {
    async unary(method, signal, timeoutMs, header, input, contextValues) {
      const fixed = keyed(method, header);
      const timeoutS = timeoutMs === undefined ? calls.timeoutS : timeoutMs / 1000;
      return calls.life.during(signal, (alive) =>
        calls.retries.run(
          async (tries) => {
            const headers = await authorized(fixed, calls.token);
            // The call may be over by now: no connection is made for that.
            alive.throwIfAborted();
            return inner.unary(method, alive, milliseconds(tries.leftS), headers, input, contextValues);
          },
          timeoutS,
          alive,
        ),
      );
    },
    async stream(method, signal, timeoutMs, header, input, contextValues) {
      const call = calls.life.begin(signal);
      // Bytes that go out are watched by what sends them.
      const idle = method.methodKind === "server_streaming" ? new Idle(IDLE_S, call.signal) : undefined;
      const alive = idle?.signal ?? call.signal;
      const over = () => {
        idle?.stop();
        call.end();
      };
      try {
        const headers = await authorized(keyed(method, header), calls.token);
        alive.throwIfAborted();
        const opened = await inner.stream(method, alive, timeoutMs, headers, input, contextValues);
        return { ...opened, message: told(opened.message, alive, () => idle?.moved(), over) };
      } catch (reason) {
        over();
        throw failure(reason, alive);
      }
    },
  };
}

async function* told<T>(messages: AsyncIterable<T>, alive: AbortSignal, moved: () => void, over: () => void) {
  try {
    for await (const message of messages) {
      moved();
      yield message;
    }
  } catch (reason) {
    throw failure(reason, alive);
  } finally {
    over();
  }
}

/** Returns headers with a token. Files that tokens are read from end in a newline, which no header takes. */
export async function authorized(header: Headers, token: Token | undefined): Promise<Headers> {
  const headers = new Headers(header);
  const given = typeof token === "function" ? await token() : token;
  if (given) headers.set("authorization", `Bearer ${given.trim()}`);
  return headers;
}

/** Returns headers with a key, for the methods that take one, which their policy in the protos says. */
export function keyed(method: DescMethod, header?: HeadersInit): Headers {
  const headers = new Headers(header);
  const key = headers.get(KEY);
  if (key !== null && !/^[!-~]{1,255}$/.test(key)) {
    // Said here: what no header can carry would never come to the service.
    throw new CamserveError("idempotency.key_invalid", "A key is 1 to 255 visible ASCII characters.", { status: 400 });
  }
  if (key === null && takesKey(method)) headers.set(KEY, crypto.randomUUID());
  return headers;
}

// An option is decoded each time that it is asked for.
const TAKING = new WeakMap<DescMethod, boolean>();

function takesKey(method: DescMethod): boolean {
  let takes = TAKING.get(method);
  if (takes === undefined) {
    takes = Boolean(getOption(method, policy).idempotency?.operation);
    TAKING.set(method, takes);
  }
  return takes;
}

/** Returns seconds, which may be endless, as timers take them. */
export function milliseconds(seconds: number): number {
  return Math.ceil(Math.min(seconds * 1000, MOST_MS));
}

/** Returns a signal that also ends a call which takes longer than that. */
export function within(seconds: number, signal?: AbortSignal): AbortSignal {
  const late = AbortSignal.timeout(milliseconds(seconds));
  return signal ? AbortSignal.any([signal, late]) : late;
}

/** Ends a call when nothing moved for a while. */
export class Idle {
  readonly #ended = new AbortController();
  readonly #leave: () => void;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly afterS: number,
    private readonly outer?: AbortSignal,
  ) {
    this.#leave = () => this.#ended.abort(outer?.reason);
    if (outer?.aborted) this.#leave();
    else outer?.addEventListener("abort", this.#leave, { once: true });
    this.moved();
  }

  get signal(): AbortSignal {
    return this.#ended.signal;
  }

  moved(): void {
    clearTimeout(this.#timer);
    const silent = new CamserveError(CONNECTION_FAILED, `Nothing moved for ${this.afterS} s.`);
    this.#timer = setTimeout(() => this.#ended.abort(silent), this.afterS * 1000);
  }

  /** Watches no longer: the call is over. */
  stop(): void {
    clearTimeout(this.#timer);
    this.outer?.removeEventListener("abort", this.#leave);
  }
}
