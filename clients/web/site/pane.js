/** One side: what is asked of an image, and the answer. */

import { CallView } from "./call_view.js";
import { copyOf, element, find, showFailure, takeFiles } from "./dom.js";
import { paint, readHeat } from "./heat.js";
import { infer, options } from "./infer.js";
import { Settings } from "./models.js";
import { readPicture, refusal } from "./picture.js";

/** @typedef {import("./models.js").Choice} Choice */
/** @typedef {import("./picture.js").Picture} Picture */

/** A side of the comparison, and all there is without one. */
export class Pane {
  /** @type {Picture | null} */
  #picture = null;
  /** @type {import("./heat.js").Heat | null} */
  #heat = null;
  /** @type {Choice | null} */
  #asked = null; // what the form said when the answer was asked for
  #running = new AbortController();
  #reading = 0;
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
    this.settings = new Settings(form, () => this.#compare());
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
    const input = find(own, "input", HTMLInputElement);
    takeFiles(this.root, input, ([file]) => {
      if (file) void this.#takeOwn(file, input.accept);
    });
  }

  /** @param {File} file @param {string} accept */
  async #takeOwn(file, accept) {
    this.#own = true;
    const why = refusal(file, accept);
    if (why) return this.refuse(file, why);
    const mine = this.expect(file);
    const picture = await readPicture(file);
    if (mine === this.#reading) await this.take(picture, true);
  }

  /**
   * Takes the last image and its answer away, as another one is being read.
   * @param {File} file
   */
  expect(file) {
    this.#running.abort();
    this.#picture = null;
    this.#withdraw();
    this.#fail();
    this.#name(file.name);
    this.#tell(`Reading ${file.name} …`);
    find(this.root, "form button", HTMLButtonElement).disabled = true;
    this.#reading += 1;
    return this.#reading;
  }

  /**
   * Takes the last image and its answer away, and says why there is no other.
   * @param {File} file
   * @param {string} why
   */
  refuse(file, why) {
    this.expect(file);
    this.#tell("");
    this.#fail(why);
  }

  /** Whether this side has an image of its own. */
  get own() {
    return this.#own;
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
    this.#name(picture.file.name);
    find(this.root, "form button", HTMLButtonElement).disabled = false;
    if (!this.root.hidden) await this.run();
  }

  /** Classifies the image that is there, if there is one, as the form says; what was running is given up. */
  async run() {
    if (this.#picture && find(this.root, "form", HTMLFormElement).reportValidity()) await this.#ask(this.settings.choice());
  }

  /** @param {Choice} choice @param {string} [target]  the class that is explained this once */
  async #ask(choice, target = choice.target) {
    const picture = this.#picture;
    if (!picture) return;
    this.#running.abort();
    this.#running = new AbortController();
    const { signal } = this.#running;
    this.#fail();
    this.#tell(`Classifying ${picture.file.name} …`);
    const request = {
      model: choice.model,
      model_version: choice.version,
      ...options({ ...choice, target }, picture.base),
      response: { heatmap: "inline" },
    };
    try {
      const answer = await infer(picture, request, signal, () => this.#tell("This image takes longer: it became a job …"));
      const heat = await readHeat(answer.heatmap, signal);
      signal.throwIfAborted();
      this.#asked = choice;
      this.#show(picture, answer, heat);
      this.#call.show({ kind: "infer", fileName: picture.file.name, request });
    } catch (failure) {
      if (signal.aborted) return;
      const away = find(this.root, "tbody", HTMLElement).contains(document.activeElement);
      this.#withdraw();
      if (away) find(this.root, "form button", HTMLButtonElement).focus();
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
    this.#reading += 1;
    this.#picture = null;
    this.#own = false;
    this.#withdraw();
    this.#fail();
    this.#name("");
    this.#tell("No image yet.");
    find(this.root, "form button", HTMLButtonElement).disabled = true;
  }

  /** Shows no answer: none may stand beside an image, or an error, that it is not for. */
  #withdraw() {
    this.#heat = null;
    this.#asked = null;
    this.#compare();
    this.#call.show(null);
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
    const body = find(this.root, "tbody", HTMLElement);
    const focused = /** @type {HTMLElement | null} */ (body.contains(document.activeElement) ? document.activeElement : null);
    body.replaceChildren(...classes.map((/** @type {any} */ each) => this.#row(each, heatmap?.target)));
    // Who pressed one of the buttons goes on from its successor.
    const button = [...body.querySelectorAll("button")].find((each) => each.dataset.id === focused?.dataset.id);
    if (focused) (button ?? find(this.root, "form button", HTMLButtonElement)).focus();
    const best = top ? `${top.label}, ${percent(top.prob)}` : "No class";
    this.#tell(`${best}, by ${answer.model} version ${answer.model_version} in ${timings.total} ms.`);
    this.#compare();
    this.repaint();
  }

  /** Says whether the form has changed since the answer was asked for. */
  #compare() {
    const changed = this.#asked && JSON.stringify(this.#asked) !== JSON.stringify(this.settings.choice());
    find(this.root, ".before", HTMLElement).textContent = changed
      ? "The settings have changed: what is shown is the answer to those before. Classify asks anew."
      : "";
  }

  /** @param {{id: string, label: string, prob: number}} score @param {string} [explained]  undefined without a heatmap */
  #row({ id, label, prob }, explained) {
    const button = element("button", { type: "button", hidden: explained === undefined }, "Explain");
    button.dataset.id = id;
    button.setAttribute("aria-label", `Explain ${label}`);
    button.setAttribute("aria-pressed", String(explained === id));
    button.addEventListener("click", () => {
      // Of the answer that is shown, whatever the form says by now.
      if (this.#asked) void this.#ask(this.#asked, id);
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
  #name(text) {
    find(this.root, ".file", HTMLElement).textContent = text;
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
export const percent = (prob) => (prob > 0 && prob < 0.0005 ? "< 0.1 %" : `${(100 * prob).toFixed(1)} %`);
