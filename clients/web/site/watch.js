/** A job as it goes on, followed through broken connections. */

import { Refused, lines, pause } from "./api.js";

const TRIES = 6;
const FIRST_PAUSE_MS = 500;

/**
 * Yields the events of a job up to `done`; an image that is finished may be told of again after a broken connection.
 * Throws Refused, the job's own error, or what broke the connection once six tries in a row brought nothing.
 * @param {string} jobId
 * @param {AbortSignal} signal
 * @returns {AsyncGenerator<any>}
 */
export async function* watchJob(jobId, signal) {
  for (let failed = 0; ; ) {
    let broken = new Error("The connection ended before the job did.");
    try {
      for await (const event of lines(`/v1/jobs/${encodeURIComponent(jobId)}/events`, signal)) {
        failed = 0;
        if (event.event === "error") throw new Refused(event.error.status, event.error, 0);
        yield event;
        if (event.event === "done") return;
      }
    } catch (failure) {
      signal.throwIfAborted();
      if (failure instanceof Refused && failure.status < 500 && failure.status !== 429) throw failure;
      broken = /** @type {Error} */ (failure);
    }
    failed += 1;
    if (failed === TRIES) throw broken;
    await pause(Math.random() * FIRST_PAUSE_MS * 2 ** failed, signal);
  }
}
