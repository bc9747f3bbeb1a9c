/** The table of a job's images. */

import { element } from "./dom.js";
import { paint, readHeat } from "./heat.js";
import { percent } from "./pane.js";

/**
 * @typedef {{
 *   row: HTMLTableRowElement, canvas: HTMLCanvasElement, base: HTMLCanvasElement | null,
 *   heat: import("./heat.js").Heat | null, settled: boolean, refused: boolean,
 * }} Shown
 */

/** One row for each image, in the order in which they were first told of. */
export class Items {
  /** @type {Map<string, Shown>} */
  #shown = new Map();
  #body;
  #view;

  /**
   * @param {HTMLElement} body
   * @param {() => import("./heat.js").View} view
   */
  constructor(body, view) {
    this.#body = body;
    this.#view = view;
  }

  /** Counts the images that are finished. */
  get settled() {
    return [...this.#shown.values()].filter((each) => each.settled).length;
  }

  /**
   * Says how far an image is, and what it looks like.
   * @param {string} id
   * @param {string} status
   * @param {HTMLCanvasElement | null} [base]
   */
  add(id, status, base = null) {
    const shown = this.#of(id);
    if (base) {
      shown.base = base;
      paint(shown.canvas, base, null, this.#view());
    }
    this.#fill(shown, id, status, "", "");
  }

  /**
   * Says why an image is not in the job.
   * @param {string} id
   * @param {string} why
   * @param {HTMLCanvasElement | null} base
   */
  refuse(id, why, base) {
    this.add(id, "refused", base);
    const shown = this.#of(id);
    this.#fill(shown, id, "refused", why, "");
    shown.refused = true;
  }

  /**
   * Shows what became of an image.
   * @param {any} item  a JobItem
   * @param {AbortSignal} signal
   */
  async settle(item, signal) {
    const shown = this.#of(item.id);
    const top = item.result?.classes[0];
    shown.settled = true;
    this.#fill(shown, item.id, item.status, top?.label ?? item.error?.message ?? "", top ? percent(top.prob) : "");
    if (!item.result?.heatmap || shown.heat) return;
    try {
      shown.heat = await readHeat(item.result.heatmap, signal);
    } catch (failure) {
      signal.throwIfAborted();
      shown.row.lastElementChild?.replaceChildren(failure instanceof Error ? failure.message : String(failure));
      return;
    }
    shown.canvas.setAttribute("aria-label", `Heatmap of ${item.id} for ${item.result.heatmap.target}`);
    paint(shown.canvas, shown.base, shown.heat, this.#view());
  }

  /**
   * Says of every image that is not finished how its job ended.
   * @param {string} status
   */
  end(status) {
    for (const [id, shown] of this.#shown) if (!shown.settled && !shown.refused) this.#fill(shown, id, status, "", "");
  }

  /** Draws again, in the colours of now. */
  repaint() {
    for (const { canvas, base, heat } of this.#shown.values()) if (base || heat) paint(canvas, base, heat, this.#view());
  }

  /** Takes all rows away. */
  clear() {
    this.#shown.clear();
    this.#body.replaceChildren();
  }

  /** @param {string} id @returns {Shown} */
  #of(id) {
    const known = this.#shown.get(id);
    if (known) return known;
    const canvas = element("canvas", { width: 1, height: 1 });
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", id);
    const row = element("tr");
    const made = { row, canvas, base: null, heat: null, settled: false, refused: false };
    this.#shown.set(id, made);
    this.#body.append(row);
    return made;
  }

  /** @param {Shown} shown @param {...string} texts */
  #fill({ row, canvas }, ...texts) {
    row.replaceChildren(...texts.map((text) => element("td", {}, text)), element("td", {}, canvas));
  }
}
