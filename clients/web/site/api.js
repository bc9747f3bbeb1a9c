/** Calls of the REST surface of the service that this page came from. */

import { authorization } from "./session.js";

const PATIENCE_S = 60;

/** A call that was refused: `code` is one of the catalogue's, `status` the HTTP status. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {{code?: string, message?: string, details?: object, request_id?: string}} error
   * @param {number} retryAfterS  0 where the service does not say
   */
  constructor(status, error, retryAfterS) {
    const again = retryAfterS ? ` Try again in ${retryAfterS} s.` : "";
    const request = error.request_id ? ` (${error.code}, request ${error.request_id})` : "";
    super(`${error.message ?? `HTTP ${status}`}${told(error.details ?? {})}${again}${request}`);
    this.status = status;
    this.code = error.code ?? "";
    this.retryAfterS = retryAfterS;
  }
}

/** Writes what an error says beyond its sentence. @param {object} details */
function told(details) {
  const plain = Object.entries(details).filter(([, value]) => typeof value !== "object");
  return plain.length ? ` [${plain.map(([name, value]) => `${name}: ${value}`).join(", ")}]` : "";
}

/**
 * Returns the answer to a request, as `fetch` does; throws an Error that people understand where none comes.
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>}
 */
export async function reached(path, options) {
  try {
    // Without `omit` the browser itself would ask for a name and a password where the service refuses a client's.
    return await fetch(path, { ...options, cache: "no-store", credentials: "omit" });
  } catch (failure) {
    options.signal?.throwIfAborted();
    throw new Error("The service does not answer. Try again in a while.", { cause: failure });
  }
}

/**
 * Returns the answer to a call; throws Refused, or Error where no answer comes.
 * @param {string} path
 * @param {RequestInit} [options]
 * @returns {Promise<Response>}
 */
export async function call(path, options = {}) {
  const headers = new Headers(options.headers);
  headers.set("Authorization", await authorization());
  const answer = await reached(path, { ...options, headers });
  if (answer.ok) return answer;
  const { error } = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, error ?? {}, Number(answer.headers.get("Retry-After") ?? 0));
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
