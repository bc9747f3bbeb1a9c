import type { Client as Stub } from "@connectrpc/connect";

import type { Calls } from "./calls.js";
import { ANSWER_INVALID, CamserveError, CONNECTION_FAILED, errorOf, failure } from "./errors.js";
import { StreamEvent_Kind } from "./gen/camserve/v1/inference_pb.js";
import { type Job, Job_Status, type JobItem, type JobService } from "./gen/camserve/v1/jobs_pb.js";

const PAGE_ITEMS = 200;
const FINAL = [Job_Status.succeeded, Job_Status.failed, Job_Status.canceled, Job_Status.expired];

/** How a job is waited for. */
export interface WaitOptions {
  onJob?: (job: Job) => void;
  signal?: AbortSignal;
}

/** Returns a job once it has ended, followed by its stream of events, or by asking where none comes through. */
export async function waitJob(
  calls: Calls,
  stub: Stub<typeof JobService>,
  jobId: string,
  { onJob, signal }: WaitOptions,
): Promise<Job> {
  const tries = calls.retries.started(Infinity, signal);
  const options = { signal };
  for (;;) {
    let broken = new CamserveError(CONNECTION_FAILED, "The stream ended early.");
    try {
      for await (const event of stub.watchJob({ jobId }, options)) {
        if (event.error) throw errorOf(event.error);
        tries.restart();
        if (!event.job) continue;
        onJob?.(event.job);
        if (event.event === StreamEvent_Kind.done) return event.job;
      }
    } catch (reason) {
      broken = failure(reason, signal);
    }
    // An answer that is no stream may come from something between that lets none through.
    if (broken.code === ANSWER_INVALID) broken = new CamserveError(CONNECTION_FAILED, broken.message);
    await tries.pauseAfter(broken);
    const job = await stub.getJob({ jobId }, options);
    onJob?.(job);
    if (FINAL.includes(job.status)) return job;
  }
}

/** Yields every image of a job in the order of the request, finished or not. */
export async function* jobResults(
  stub: Stub<typeof JobService>,
  jobId: string,
  signal?: AbortSignal,
): AsyncGenerator<JobItem> {
  let cursor = "";
  do {
    const page = await stub.listJobResults({ jobId, cursor, limit: PAGE_ITEMS }, { signal });
    yield* page.items;
    cursor = page.page?.nextCursor ?? "";
  } while (cursor);
}
