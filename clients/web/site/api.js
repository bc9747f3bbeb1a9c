/** Calls of the REST surface of the service that this page came from. */

import { authorization } from "./session.js";

const PATIENCE_S = 60;

/** A call that was refused: `code` is one of the catalogue's, `status` the HTTP status. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, message?: string, request_id?: string}} error
   * @param {number} retryAfterS  0 where the service does not say
   */
  constructor(status, error, retryAfterS) {
    const again = retryAfterS ? ` Try again in ${retryAfterS} s.` : "";
    const request = error.request_id ? ` (${error.code}, request ${error.request_id})` : "";
    super(`${error.message ?? `HTTP ${status}`}${again}${request}`);
    this.status = status;
    this.code = error.code ?? "";
    this.retryAfterS = retryAfterS;
  }
}

/**
 * Returns the answer to a call; throws Refused, or TypeError where no answer comes.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  headers.set("Authorization", await authorization());
  const answer = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, told.error ?? {}, Number(answer.headers.get("Retry-After") ?? 0));
}

/**
 * Returns the JSON of the answer to a call.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<any>}
 */
export async function ask(path, options) {
  return (await call(path, options)).json();
}

/**
 * Returns the options of a POST of JSON.
 * @param {unknown} body
 * @returns {RequestInit}
 */
export function posting(body) {
  return { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
}

/**
 * Does something again after the pause that the service asks for, while it says that there are too many calls.
 * @template T
 * @param {() => Promise<T>} attempt
 * @param {AbortSignal} signal
 * @returns {Promise<T>}
 */
export async function patiently(attempt, signal) {
  for (let waitedS = 0; ; ) {
    try {
      return await attempt();
    } catch (failure) {
      if (!(failure instanceof Refused) || failure.status !== 429 || !failure.retryAfterS) throw failure;
      waitedS += failure.retryAfterS;
      if (waitedS > PATIENCE_S) throw failure;
      await pause(failure.retryAfterS * 1000, signal);
    }
  }
}

/**
 * Waits; throws what the signal was aborted with.
 * @param {number} ms
 * @param {AbortSignal} signal
 */
export async function pause(ms, signal) {
  await new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve(undefined)), { once: true });
  });
  signal.throwIfAborted();
}

/**
 * Yields the objects of a stream of NDJSON as they come.
 * @param {string} path
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* lines(path, signal) {
  const answer = await call(path, { headers: { Accept: "application/x-ndjson" }, signal });
  if (!answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      const parts = (rest + (value ?? "")).split("\n");
      rest = parts.pop() ?? "";
      for (const line of parts) if (line.trim()) yield JSON.parse(line);
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
