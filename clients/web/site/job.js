/** A batch as a job: images are stored, the job is made, and the page watches it. */

import { Refused, ask, call, patiently, posting } from "./api.js";
import { CallView } from "./call_view.js";
import { find, showFailure, takeFiles } from "./dom.js";
import { options } from "./infer.js";
import { Items } from "./job_items.js";
import { readPicture, refusal } from "./picture.js";
import { watchJob } from "./watch.js";

const TTL_HOURS = 24;
const THUMBNAIL_PX = 256;
const LONGEST_ID = 128;
const JOB_ID = /^job_[0-9A-Za-z]+$/;
// What is said of one image, and not of the caller or the service.
const OF_THE_IMAGE = new Set([400, 413, 415, 422]);

/** @typedef {import("./models.js").Choice} Choice */

/** The section of the page that watches one job at a time. */
export class Batch {
  #running = new AbortController();
  #jobId = "";
  #choice;
  #changed;
  #most;
  #items;
  #call;

  /**
   * @param {() => Choice} choice
   * @param {() => import("./heat.js").View} view
   * @param {() => void} changed  hears when the limits may have changed
   * @param {() => number} most  how many images a job may have
   */
  constructor(choice, view, changed, most) {
    this.#choice = choice;
    this.#changed = changed;
    this.#most = most;
    this.#items = new Items(part("items"), view);
    this.#call = new CallView(part("call"), view);
    const input = find(document, "#job-files", HTMLInputElement);
    takeFiles(part("drop"), input, (files) => void this.#start(files, input.accept));
    const form = find(document, "#job-form", HTMLFormElement);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#follow(find(form, "input", HTMLInputElement).value.trim());
    });
    part("cancel").addEventListener("click", () => void this.#cancel());
  }

  /** Draws again, in the colours of now. */
  repaint() {
    this.#items.repaint();
    this.#call.refresh();
  }

  /** Stops watching and forgets the job, which goes on without the page. */
  clear() {
    this.#begin();
    part("live").hidden = true;
    this.#call.show(null);
  }

  #begin() {
    this.#running.abort();
    this.#running = new AbortController();
    this.#jobId = "";
    this.#items.clear();
    this.#call.show(null);
    showFailure(part("failure"));
    part("live").hidden = false;
    part("cancel").hidden = true;
    find(document, "#job-progress", HTMLProgressElement).max = 1;
    this.#advance(0);
    return this.#running.signal;
  }

  /** @param {File[]} files @param {string} accept */
  async #start(files, accept) {
    const signal = this.#begin();
    const choice = this.#choice();
    /** @type {any[]} */
    const inputs = [];
    /** @type {File[]} */
    const taken = [];
    let owned = false; // by a job
    try {
      if (files.length > this.#most()) {
        throw new Error(`A batch has at most ${this.#most()} images, and these are ${files.length}. None was sent.`);
      }
      for (const [i, file] of files.entries()) {
        const id = `${i + 1} ${file.name}`.slice(0, LONGEST_ID);
        const why = refusal(file, accept);
        if (why) {
          this.#items.refuse(id, why);
          continue;
        }
        this.#tell(`Storing image ${i + 1} of ${files.length} …`);
        this.#items.add(id, "storing");
        const { base } = await readPicture(file, THUMBNAIL_PX);
        try {
          const stored = await patiently(() => ask("/v1/uploads", this.#upload(file, signal)), signal);
          this.#items.add(id, "stored", base);
          inputs.push({ id, image: { storage_id: stored.storage_id }, ...options(choice, base) });
          taken.push(file);
        } catch (failure) {
          if (!(failure instanceof Refused && OF_THE_IMAGE.has(failure.status))) throw failure;
          this.#items.refuse(id, failure.message);
        }
      }
      if (!inputs.length) throw new Error("None of these images was taken.");
      const request = {
        model: choice.model,
        model_version: choice.version,
        inputs,
        response: { heatmap: "inline" },
        ttl_hours: TTL_HOURS,
      };
      const made = await patiently(() => ask("/v1/jobs", { ...posting(request), signal }), signal);
      owned = true;
      this.#call.show({ kind: "job", files: taken.map(({ name, type }) => ({ name, type })), request });
      await this.#watch(made.job_id, signal);
    } catch (failure) {
      this.#fail(failure, signal);
      if (!owned) for (const { image } of inputs) void discard(image.storage_id);
    }
  }

  /** @param {string} jobId */
  async #follow(jobId) {
    if (!JOB_ID.test(jobId)) {
      showFailure(part("failure"), `“${jobId}” is no job id. Job ids look like job_ and letters and digits, as the service gave them.`);
      return;
    }
    const signal = this.#begin();
    try {
      await this.#watch(jobId, signal);
    } catch (failure) {
      this.#fail(failure, signal);
    }
  }

  /** @param {string} jobId @param {AbortSignal} signal */
  async #watch(jobId, signal) {
    this.#jobId = jobId;
    part("cancel").hidden = false;
    this.#tell(`Job ${jobId} waits …`);
    /** @type {any} */
    let summary = { items: 0, succeeded: 0, failed: 0 };
    let status = "";
    for await (const event of watchJob(jobId, signal)) {
      if (event.job) {
        status = event.job.status;
        summary = event.job.result_summary;
        find(document, "#job-progress", HTMLProgressElement).max = Math.max(1, summary.items);
      }
      if (event.item) await this.#items.settle(event.item, signal);
      summary = event.summary ?? summary;
      this.#advance(this.#items.settled);
      this.#tell(`Job ${jobId}: ${status || "queued"}, ${this.#items.settled} of ${summary.items} images finished.`);
    }
    this.#withholdCancel();
    this.#items.end(status);
    const refused = this.#items.refused ? `, ${this.#items.refused} refused` : "";
    this.#tell(`Job ${jobId} ${status}: ${summary.succeeded} succeeded, ${summary.failed} failed${refused}.`);
    this.#changed();
  }

  async #cancel() {
    try {
      await ask(`/v1/jobs/${encodeURIComponent(this.#jobId)}`, { method: "DELETE", signal: this.#running.signal });
    } catch (failure) {
      this.#fail(failure, this.#running.signal);
    }
  }

  /** @param {File} file @param {AbortSignal} signal @returns {RequestInit} */
  #upload(file, signal) {
    return {
      method: "POST",
      headers: { "Content-Type": file.type || "application/octet-stream" },
      body: file,
      signal,
    };
  }

  /** @param {number} finished */
  #advance(finished) {
    find(document, "#job-progress", HTMLProgressElement).value = finished;
  }

  /** @param {string} text */
  #tell(text) {
    part("state").textContent = text;
  }

  /** @param {unknown} failure @param {AbortSignal} signal */
  #fail(failure, signal) {
    if (signal.aborted) return;
    this.#withholdCancel();
    this.#tell(this.#jobId ? `Job ${this.#jobId} is not watched any more. “Watch” goes on.` : "No job was made.");
    find(document, "#job-form input", HTMLInputElement).value = this.#jobId;
    showFailure(part("failure"), failure);
    this.#changed();
  }

  /** Takes the button away, and leaves who had just pressed it at the words about the job. */
  #withholdCancel() {
    if (document.activeElement === part("cancel")) part("state").focus();
    part("cancel").hidden = true;
  }
}

/** Removes an image that no job uses; otherwise it goes when it expires. @param {string} storageId */
const discard = (storageId) => call(`/v1/uploads/${storageId}`, { method: "DELETE" }).catch(() => undefined);

/** @param {string} name */
const part = (name) => find(document, `#job-${name}`, HTMLElement);
