/** One side: what is asked of an image, and the answer. */

import { CallView } from "./call_view.js";
import { copyOf, element, find, showFailure, takeFiles } from "./dom.js";
import { paint, readHeat } from "./heat.js";
import { infer, options } from "./infer.js";
import { Settings } from "./models.js";
import { readPicture } from "./picture.js";

/** @typedef {import("./picture.js").Picture} Picture */

/** A side of the comparison, and all there is without one. */
export class Pane {
  /** @type {Picture | null} */
  #picture = null;
  /** @type {import("./heat.js").Heat | null} */
  #heat = null;
  #running = new AbortController();
  #own = false;
  #view;
  #answered;
  #call;

  /**
   * @param {string} name
   * @param {() => import("./heat.js").View} view
   * @param {() => void} answered  hears of every answer and refusal
   */
  constructor(name, view, answered) {
    this.#view = view;
    this.#answered = answered;
    this.root = find(copyOf("pane"), "article", HTMLElement);
    find(this.root, "h3", HTMLElement).textContent = name;
    this.root.setAttribute("aria-label", `Side ${name}`);
    const form = find(this.root, "form", HTMLFormElement);
    for (const field of form.querySelectorAll("div")) {
      const control = /** @type {HTMLSelectElement | HTMLInputElement} */ (find(field, "[name]", HTMLElement));
      control.id = `${name}-${control.name}`;
      find(field, "label", HTMLLabelElement).htmlFor = control.id;
    }
    this.settings = new Settings(form);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.run();
    });
    this.#call = new CallView(find(this.root, ".call", HTMLElement), view);
  }

  /** Lets this side have an image of its own. */
  offerOwnImage() {
    const own = find(this.root, ".own", HTMLElement);
    own.hidden = false;
    takeFiles(this.root, find(own, "input", HTMLInputElement), ([file]) => {
      if (file) void readPicture(file).then((picture) => this.take(picture, true));
    });
  }

  /**
   * Takes an image and classifies it; one for both sides leaves a side's own alone.
   * @param {Picture} picture
   * @param {boolean} [own]
   */
  async take(picture, own = false) {
    if (this.#own && !own) return;
    this.#own = own;
    this.#picture = picture;
    find(this.root, "form button", HTMLButtonElement).disabled = false;
    if (!this.root.hidden) await this.run();
  }

  /** Classifies the image that is there, if there is one; what was running is given up. */
  async run() {
    const picture = this.#picture;
    const form = find(this.root, "form", HTMLFormElement);
    if (!picture || !form.reportValidity()) return;
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this.#running;
    this.#fail();
    this.#tell(`Classifying ${picture.file.name} …`);
    const choice = this.settings.choice();
    const request = {
      model: choice.model,
      model_version: choice.version,
      ...options(choice, picture.base),
      response: { heatmap: "inline" },
    };
    try {
      const answer = await infer(picture, request, signal, () => this.#tell("This image takes longer: it became a job …"));
      const heat = await readHeat(answer.heatmap, signal);
      signal.throwIfAborted();
      this.#show(picture, answer, heat);
      this.#call.show({ kind: "infer", fileName: picture.file.name, request });
    } catch (failure) {
      if (signal.aborted) return;
      this.#tell("");
      this.#fail(failure);
    }
    this.#answered();
  }

  /** Draws again, in the colours of now. */
  repaint() {
    if (this.#picture) paint(find(this.root, "figure canvas", HTMLCanvasElement), this.#picture.base, this.#heat, this.#view());
    this.#call.refresh();
  }

  /** Forgets the image and the answer. */
  clear() {
    this.#running.abort();
    this.#picture = null;
    this.#heat = null;
    this.#own = false;
    this.#call.show(null);
    this.#fail();
    this.#tell("No image yet.");
    find(this.root, "form button", HTMLButtonElement).disabled = true;
    for (const selector of ["figure", "table"]) find(this.root, selector, HTMLElement).hidden = true;
    find(this.root, "tbody", HTMLElement).replaceChildren();
    paint(find(this.root, "figure canvas", HTMLCanvasElement), null, null, this.#view());
  }

  /** @param {Picture} picture @param {any} answer @param {import("./heat.js").Heat | null} heat */
  #show(picture, answer, heat) {
    this.#heat = heat;
    const { classes, heatmap, timings_ms: timings } = answer;
    const top = classes[0];
    const target = classes.find((/** @type {any} */ each) => each.id === heatmap?.target)?.label ?? heatmap?.target;
    const told = heatmap && `heatmap for ${target} by ${heatmap.method} at layer ${heatmap.layer}`;
    const flat = heatmap?.degenerate ? ", the same everywhere" : "";
    find(this.root, "figure", HTMLElement).hidden = !heat && !picture.base;
    find(this.root, "figcaption", HTMLElement).textContent = `${told ?? "No heatmap"}${flat}`;
    find(this.root, "figure canvas", HTMLCanvasElement).setAttribute("aria-label", `${picture.file.name}, ${told ?? "no heatmap"}`);
    find(this.root, "table", HTMLElement).hidden = false;
    find(this.root, "tbody", HTMLElement).replaceChildren(
      ...classes.map((/** @type {any} */ each) => this.#row(each, each.id === heatmap?.target)),
    );
    const best = top ? `${top.label}, ${percent(top.prob)}` : "No class";
    this.#tell(`${best}, by ${answer.model} version ${answer.model_version} in ${timings.total} ms.`);
    this.repaint();
  }

  /** @param {{id: string, label: string, prob: number}} score @param {boolean} explained */
  #row({ id, label, prob }, explained) {
    const button = element("button", { type: "button" }, "Explain");
    button.setAttribute("aria-label", `Explain ${label}`);
    button.setAttribute("aria-pressed", String(explained));
    button.addEventListener("click", () => {
      this.settings.explain(id);
      void this.run();
    });
    const meter = element("meter", { max: 1, value: prob });
    meter.setAttribute("aria-hidden", "true"); // the number beside it says the same
    return element(
      "tr",
      {},
      element("td", { title: id }, label),
      element("td", {}, meter, percent(prob)),
      element("td", {}, button),
    );
  }

  /** @param {string} text */
  #tell(text) {
    find(this.root, ".state", HTMLElement).textContent = text;
  }

  /** @param {unknown} [failure] */
  #fail(failure) {
    showFailure(find(this.root, ".failure", HTMLElement), failure);
  }
}

/** @param {number} prob */
export const percent = (prob) => `${(100 * prob).toFixed(1)} %`;
