/** A batch as a job: images are stored, the job is made, and the page watches it. */

import { ask, patiently, posting } from "./api.js";
import { CallView } from "./call_view.js";
import { find, showFailure, takeFiles } from "./dom.js";
import { options } from "./infer.js";
import { Items } from "./job_items.js";
import { readPicture } from "./picture.js";
import { watchJob } from "./watch.js";

const TTL_HOURS = 24;
const THUMBNAIL_PX = 256;
const LONGEST_ID = 128;

/** @typedef {import("./models.js").Choice} Choice */

/** The section of the page that watches one job at a time. */
export class Batch {
  #running = new AbortController();
  #jobId = "";
  #choice;
  #changed;
  #items;
  #call;

  /**
   * @param {() => Choice} choice
   * @param {() => import("./heat.js").View} view
   * @param {() => void} changed  hears when the limits may have changed
   */
  constructor(choice, view, changed) {
    this.#choice = choice;
    this.#changed = changed;
    this.#items = new Items(part("items"), view);
    this.#call = new CallView(part("call"), view);
    takeFiles(part("drop"), find(document, "#job-files", HTMLInputElement), (files) => void this.#start(files));
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

  /** @param {File[]} files */
  async #start(files) {
    const signal = this.#begin();
    const choice = this.#choice();
    const inputs = [];
    try {
      for (const [i, file] of files.entries()) {
        const id = `${i + 1} ${file.name}`.slice(0, LONGEST_ID);
        this.#tell(`Storing image ${i + 1} of ${files.length} …`);
        this.#items.add(id, "storing");
        const { base } = await readPicture(file, THUMBNAIL_PX);
        const stored = await patiently(() => ask("/v1/uploads", this.#upload(file, signal)), signal);
        this.#items.add(id, "stored", base);
        inputs.push({ id, image: { storage_id: stored.storage_id }, ...options(choice, base) });
      }
      const request = {
        model: choice.model,
        model_version: choice.version,
        inputs,
        response: { heatmap: "inline" },
        ttl_hours: TTL_HOURS,
      };
      const made = await patiently(() => ask("/v1/jobs", { ...posting(request), signal }), signal);
      this.#call.show({ kind: "job", files: files.map(({ name, type }) => ({ name, type })), request });
      await this.#watch(made.job_id, signal);
    } catch (failure) {
      this.#fail(failure, signal);
    }
  }

  /** @param {string} jobId */
  async #follow(jobId) {
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
    part("cancel").hidden = true;
    this.#items.end(status);
    this.#tell(`Job ${jobId} ${status}: ${summary.succeeded} succeeded, ${summary.failed} failed.`);
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
    part("cancel").hidden = true;
    showFailure(part("failure"), failure);
    this.#changed();
  }
}

/** @param {string} name */
const part = (name) => find(document, `#job-${name}`, HTMLElement);
