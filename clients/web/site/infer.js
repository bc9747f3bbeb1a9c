/** One image and its answer. */

import { ask, call } from "./api.js";
import { watchJob } from "./watch.js";

/** @typedef {import("./models.js").Choice} Choice */
/** @typedef {import("./picture.js").Picture} Picture */

/**
 * Returns what is asked of every image: the map as grey levels, which the page colours, at the size that it shows.
 * @param {Choice} choice
 * @param {HTMLCanvasElement | null} base
 */
export function options(choice, base) {
  if (!choice.explains) return { grad_cam: { enabled: false }, classify: { top_k: choice.topK } };
  return {
    grad_cam: {
      enabled: true,
      layer: choice.layer,
      method: choice.method,
      ...(choice.target && { target: choice.target }),
      colormap: "gray",
      ...(base && { resolution: { width: base.width, height: base.height } }),
    },
    classify: { top_k: choice.topK },
  };
}

/**
 * Returns the answer for an image; where the service makes a job of it, that of the job.
 * @param {Picture} picture
 * @param {object} request  an InferRequest without its image
 * @param {AbortSignal} signal
 * @param {() => void} onJob  hears that it will take longer
 * @returns {Promise<any>}
 */
export async function infer(picture, request, signal, onJob) {
  const form = new FormData();
  form.append("request", JSON.stringify(request));
  form.append("image", picture.file, picture.file.name);
  const answer = await (await call("/v1/infer", { method: "POST", body: form, signal })).json();
  if (!answer.job_id) return answer;
  onJob();
  for await (const event of watchJob(answer.job_id, signal)) {
    if (event.item?.error) throw new Error(event.item.error.message);
  }
  const job = await ask(`/v1/jobs/${answer.job_id}`, { signal });
  if (!job.result) throw new Error(`The job ${answer.job_id} ended as ${job.status}.`);
  return { ...job.result, model: job.model };
}
