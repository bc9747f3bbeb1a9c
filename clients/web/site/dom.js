/** Elements: made, found, and filled without ever parsing a caller's text as HTML. */

/**
 * Returns a new element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Partial<HTMLElementTagNameMap[T]>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/**
 * Returns the first element that a selector finds; throws where there is none or one of another kind.
 * @template {HTMLElement} T
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => T} kind
 * @returns {T}
 */
export function find(root, selector, kind) {
  const found = root.querySelector(selector);
  if (!(found instanceof kind)) throw new TypeError(`the page has no ${selector}`);
  return found;
}

/**
 * Returns a copy of what a template holds.
 * @param {string} id
 * @returns {DocumentFragment}
 */
export function copyOf(id) {
  return /** @type {DocumentFragment} */ (find(document, `#${id}`, HTMLTemplateElement).content.cloneNode(true));
}

/**
 * Makes `values` the options of a select and keeps what was chosen where it is still there.
 * @param {HTMLSelectElement} select
 * @param {Array<[value: string, text: string, disabled?: boolean]>} values
 */
export function setOptions(select, values) {
  const chosen = select.value;
  select.replaceChildren(
    ...values.map(([value, text, disabled = false]) => element("option", { value, disabled }, text)),
  );
  if (values.some(([value, , disabled]) => value === chosen && !disabled)) select.value = chosen;
}

/**
 * Shows a failure, or takes it away where there is none.
 * @param {HTMLElement} place
 * @param {unknown} [failure]
 */
export function showFailure(place, failure) {
  place.hidden = failure === undefined;
  place.textContent = failure === undefined ? "" : failure instanceof Error ? failure.message : String(failure);
}

/**
 * Hands over the files that are dropped on a place or chosen in its input.
 * @param {HTMLElement} place
 * @param {HTMLInputElement} input
 * @param {(files: File[]) => void} take
 */
export function takeFiles(place, input, take) {
  const hand = (/** @type {FileList | null | undefined} */ files) => {
    if (files?.length) take([...files]);
  };
  input.addEventListener("change", () => {
    hand(input.files);
    input.value = ""; // so that the same file may be chosen again
  });
  for (const event of ["dragenter", "dragover"]) {
    place.addEventListener(event, (dragged) => {
      dragged.preventDefault();
      place.classList.add("over");
    });
  }
  for (const event of ["dragleave", "drop"]) place.addEventListener(event, () => place.classList.remove("over"));
  place.addEventListener("drop", (dropped) => {
    dropped.preventDefault();
    hand(dropped.dataTransfer?.files);
  });
}
