/** The box that shows a call in one of three languages. */

import { copyOf, element, find } from "./dom.js";
import { LANGUAGES, snippet } from "./snippets.js";

/** @typedef {import("./snippets.js").Language} Language */
/** @typedef {import("./snippets.js").InferCall | import("./snippets.js").JobCall} Call */

let boxes = 0;

/** Shows the last call of a pane or of the batch; empty until there is one. */
export class CallView {
  /** @type {Call | null} */
  #call = null;
  /** @type {Language} */
  #language = "curl";
  #place;
  #view;

  /**
   * @param {HTMLElement} place
   * @param {() => import("./heat.js").View} view
   */
  constructor(place, view) {
    this.#place = place;
    this.#view = view;
  }

  /**
   * Shows a call; null takes the box away.
   * @param {Call | null} call
   */
  show(call) {
    this.#call = call;
    if (!call) this.#place.replaceChildren();
    else if (!this.#place.firstElementChild) this.#build();
    this.refresh();
  }

  /** Writes the call again, as when the colours have changed. */
  refresh() {
    if (!this.#call) return;
    const { note, code } = snippet(this.#language, this.#call, this.#view(), new URL(location.href));
    find(this.#place, "code", HTMLElement).textContent = code;
    find(this.#place, ".note", HTMLElement).textContent = note;
    find(this.#place, "span[role=status]", HTMLElement).textContent = "";
  }

  #build() {
    boxes += 1;
    const box = copyOf("call");
    find(box, ".tabs", HTMLElement).append(
      ...LANGUAGES.map((language) => {
        const radio = element("input", { type: "radio", name: `call-${boxes}`, checked: language === this.#language });
        radio.addEventListener("change", () => {
          this.#language = language;
          this.refresh();
        });
        return element("label", {}, radio, language);
      }),
    );
    find(box, "button", HTMLButtonElement).addEventListener("click", () => void this.#copy());
    this.#place.replaceChildren(box);
  }

  async #copy() {
    const code = find(this.#place, "code", HTMLElement);
    const told = find(this.#place, "span[role=status]", HTMLElement);
    try {
      await navigator.clipboard.writeText(code.textContent ?? "");
      told.textContent = "Copied.";
    } catch {
      // There is no clipboard for pages that came without TLS from another machine.
      getSelection()?.selectAllChildren(code);
      told.textContent = "Selected: copy it with the keyboard.";
    }
  }
}
