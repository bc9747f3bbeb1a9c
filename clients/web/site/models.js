/** The models that can be asked, and the form in which one of them and its heatmap are chosen. */

import { ask } from "./api.js";
import { METHODS } from "./choices.js";
import { find, setOptions } from "./dom.js";

const STABLE = "stable";

/**
 * `target` is a class id, "" for the most probable class; `explains` says whether there are heatmaps at all.
 * @typedef {{
 *   model: string, version: string, explains: boolean, layer: string, method: string, target: string, topK: number,
 * }} Choice
 */
/** @typedef {{models: any[], full: Map<string, Promise<any>>}} Catalogue */

/**
 * Returns what there is, without labels.
 * @returns {Promise<Catalogue>}
 */
export async function catalogue() {
  const models = /** @type {any[]} */ ((await ask("/v1/models")).models);
  // Those that can answer first: the first one is what the page begins with.
  models.sort((one, other) => Number(answers(other)) - Number(answers(one)));
  return { models, full: new Map() };
}

/** @param {any} model */
const answers = (model) => model.versions.some((/** @type {any} */ version) => version.state === "ready");

/** A pane's form: its choices follow the model and the version. */
export class Settings {
  /** @type {Catalogue} */
  #catalogue = { models: [], full: new Map() };
  #filling = 0;
  #explains = true;

  /**
   * @param {HTMLFormElement} form
   * @param {() => void} changed  hears of every change of the choice
   */
  constructor(form, changed) {
    this.#form = form;
    this.#changed = changed;
    form.addEventListener("input", changed);
    this.#select("model").addEventListener("change", () => void this.#fillVersions());
    this.#select("version").addEventListener("change", () => void this.#fillRest());
  }

  #form;
  #changed;

  /**
   * Offers what a catalogue has.
   * @param {Catalogue} found
   */
  async offer(found) {
    this.#catalogue = found;
    setOptions(this.#select("model"), found.models.map(({ model }) => [model, model]));
    setOptions(this.#select("method"), METHODS.map((method) => [method, method]));
    await this.#fillVersions();
  }

  /**
   * Returns what is chosen.
   * @returns {Choice}
   */
  choice() {
    const [model, version, layer, method, target] = ["model", "version", "layer", "method", "target"].map(
      (name) => this.#select(name).value,
    );
    const topK = find(this.#form, "[name=top_k]", HTMLInputElement).valueAsNumber;
    return /** @type {Choice} */ ({ model, version, explains: this.#explains, layer, method, target, topK });
  }

  /** @param {string} name */
  #select(name) {
    return find(this.#form, `[name=${name}]`, HTMLSelectElement);
  }

  async #fillVersions() {
    const model = this.#catalogue.models.find((each) => each.model === this.#select("model").value);
    const versions = /** @type {any[]} */ (model?.versions ?? []);
    const aliases = versions.flatMap((each) =>
      each.aliases.map((/** @type {string} */ alias) => [alias, `${alias} (now ${each.version})`, each.state !== "ready"]),
    );
    aliases.sort((one, other) => Number(other[0] === STABLE) - Number(one[0] === STABLE));
    const pinned = versions.map(({ version, state }) => [
      version,
      state === "ready" ? version : `${version} (${state})`,
      state === "unavailable" || state === "retired",
    ]);
    setOptions(this.#select("version"), /** @type {Array<[string, string, boolean]>} */ ([...aliases, ...pinned]));
    await this.#fillRest();
  }

  async #fillRest() {
    const { models, full } = this.#catalogue;
    const name = this.#select("model").value;
    const chosen = this.#select("version").value;
    const isChosen = (/** @type {any} */ each) => each.version === chosen || each.aliases.includes(chosen);
    const version = models.find(({ model }) => model === name)?.versions.find(isChosen);
    const auto = version?.default_layer ? `auto (${version.default_layer})` : "auto";
    const layers = /** @type {string[]} */ (version?.layers ?? []);
    this.#explains = version?.state !== "ready" || layers.length > 0;
    for (const each of ["layer", "method", "target"]) this.#select(each).disabled = !this.#explains;
    setOptions(this.#select("layer"), [
      ["auto", this.#explains ? auto : "none: it has no heatmaps"],
      ...layers.map((layer) => /** @type {[string, string]} */ ([layer, layer])),
    ]);
    this.#changed();

    this.#filling += 1;
    const mine = this.#filling;
    const told = full.get(name) ?? ask(`/v1/models/${encodeURIComponent(name)}?view=full`);
    full.set(name, told);
    const labels = /** @type {Array<{id: string, label: string}>} */ (
      (await told.catch(() => full.delete(name)))?.versions?.find(isChosen)?.labels ?? []
    );
    if (mine !== this.#filling) return;
    const classes = labels.map(({ id, label }) => /** @type {[string, string]} */ ([id, id === label ? id : `${label} (${id})`]));
    setOptions(this.#select("target"), [["", "most probable"], ...classes]);
    this.#changed();
  }
}
