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

  /** Counts the images that are not in the job. */
  get refused() {
    return [...this.#shown.values()].filter((each) => each.refused).length;
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
    this.#fill(shown, id, status);
  }

  /**
   * Says why an image is not in the job.
   * @param {string} id
   * @param {string} why
   */
  refuse(id, why) {
    const shown = this.#of(id);
    this.#lack(shown, id, "refused", why);
    shown.refused = true;
  }

  /**
   * Shows what became of an image.
   * @param {any} item  a JobItem
   * @param {AbortSignal} signal
   */
  async settle(item, signal) {
    const shown = this.#of(item.id);
    shown.settled = true;
    if (item.error) return this.#lack(shown, item.id, item.status, item.error.message);
    const { classes = [], heatmap } = item.result ?? {};
    const [top] = classes;
    const target = classes.find((/** @type {any} */ each) => each.id === heatmap?.target)?.label ?? heatmap?.target;
    const explained = heatmap && heatmap.target !== top?.id ? `explains ${target}` : "";
    this.#fill(shown, item.id, item.status, top?.label, top && percent(top.prob), explained);
    if (!heatmap || shown.heat) return;
    try {
      shown.heat = await readHeat(heatmap, signal);
    } catch (failure) {
      signal.throwIfAborted();
      shown.row.lastElementChild?.replaceChildren(failure instanceof Error ? failure.message : String(failure));
      return;
    }
    shown.canvas.setAttribute("aria-label", `Heatmap of ${item.id} for ${target}`);
    paint(shown.canvas, shown.base, shown.heat, this.#view());
  }

  /**
   * Says of every image that is not finished how its job ended.
   * @param {string} status
   */
  end(status) {
    for (const [id, shown] of this.#shown) if (!shown.settled && !shown.refused) this.#fill(shown, id, status);
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
    row.setAttribute("role", "row");
    const made = { row, canvas, base: null, heat: null, settled: false, refused: false };
    this.#shown.set(id, made);
    this.#body.append(row);
    return made;
  }

  /** @param {Shown} shown @param {string} id @param {string} status @param {string} [label] @param {string} [prob] @param {string} [explained] */
  #fill({ row, canvas }, id, status, label = "", prob = "", explained = "") {
    row.replaceChildren(
      heading(id),
      cell("status", status),
      cell("class", label),
      cell("probability", prob),
      cell("heat", canvas, ...(explained ? [element("span", { className: "explained" }, explained)] : [])),
    );
  }

  /** Fills the row of an image that has no class and no heatmap. @param {Shown} shown @param {string} id @param {string} status @param {string} why */
  #lack({ row }, id, status, why) {
    const reason = cell("why", why);
    reason.colSpan = 3;
    row.replaceChildren(heading(id), cell("status bad", status), reason);
  }
}

/** @param {string} className @param {...(Node | string)} children */
function cell(className, ...children) {
  const made = element("td", { className }, ...children);
  made.setAttribute("role", "cell");
  return made;
}

/** @param {string} id */
function heading(id) {
  const made = element("th", { className: "image", scope: "row" }, id);
  made.setAttribute("role", "rowheader");
  return made;
}
