/** Puts the parts of the page together. */

import { COLORMAPS } from "./choices.js";
import { find, setOptions, showFailure, takeFiles } from "./dom.js";
import { paintScale } from "./heat.js";
import { Batch } from "./job.js";
import { showLimits } from "./limits.js";
import { catalogue } from "./models.js";
import { Pane } from "./pane.js";
import { readPicture, refusal } from "./picture.js";
import { expiresAt, renews, signOut, signedIn, useClient, useToken } from "./session.js";
import { moment } from "./time.js";

const LONGEST_TIMER_MS = 2 ** 31 - 1;

const place = (/** @type {string} */ id) => find(document, `#${id}`, HTMLElement);
const opacity = find(document, "#opacity", HTMLInputElement);
const colormap = find(document, "#colormap", HTMLSelectElement);
const imageInput = find(document, "#file", HTMLInputElement);
const compare = find(document, "#compare", HTMLInputElement);

const view = () => ({ opacity: opacity.valueAsNumber / 100, colormap: colormap.value });
const panes = ["A", "B"].map((name) => new Pane(name, view, () => void refreshLimits()));
const [first, second] = /** @type {[Pane, Pane]} */ (panes);
let mostImages = Infinity;
const batch = new Batch(() => first.settings.choice(), view, () => void refreshLimits(), () => mostImages);
/** @type {import("./picture.js").Picture | null} */
let picture = null;
let reading = 0;
/** @type {number | undefined} */
let expiry;

second.root.hidden = true;
second.offerOwnImage();
place("panes").append(first.root, second.root);
setOptions(colormap, Object.keys(COLORMAPS).map((name) => [name, name]));

function repaint() {
  place("opacity-shown").textContent = `${opacity.value} %`;
  paintScale(find(document, "#scale", HTMLCanvasElement), colormap.value);
  for (const each of [...panes, batch]) each.repaint();
}
opacity.addEventListener("input", repaint);
colormap.addEventListener("change", repaint);
repaint();

/** @param {File[]} files */
async function takeImage([file]) {
  if (!file) return;
  reading += 1;
  const mine = reading;
  picture = null;
  const why = refusal(file, imageInput.accept);
  for (const pane of panes.filter(({ own }) => !own)) {
    if (why) pane.refuse(file, why);
    else pane.expect(file);
  }
  if (why) return;
  const taken = await readPicture(file);
  // Another has been chosen since, or whose it was has signed out.
  if (mine !== reading) return;
  picture = taken;
  await Promise.all(panes.map((pane) => pane.take(taken)));
}
takeFiles(place("drop"), imageInput, (files) => void takeImage(files));
document.addEventListener("paste", (event) => {
  if (signedIn() && event.clipboardData?.files.length) void takeImage([...event.clipboardData.files]);
});
// An image that misses its place must not replace the page, and with it the session.
for (const event of ["dragover", "drop"]) document.addEventListener(event, (dragged) => dragged.preventDefault());

compare.addEventListener("change", () => {
  second.root.hidden = !compare.checked;
  place("panes").classList.toggle("two", compare.checked);
  if (!compare.checked) second.clear(); // with the image of its own
  else if (picture) void second.take(picture);
});

async function refreshLimits() {
  if (!signedIn()) return;
  showFailure(place("limits-failure"));
  try {
    await showLimits(place("limits"));
  } catch (failure) {
    if (signedIn()) showFailure(place("limits-failure"), failure);
  }
}
place("limits-refresh").addEventListener("click", () => void refreshLimits());

/** Says when the token has expired, unless that is long hence or a new one comes by itself. */
function watchExpiry() {
  const inMs = expiresAt() - Date.now();
  if (renews() || inMs > LONGEST_TIMER_MS) return "";
  expiry = setTimeout(() => {
    place("session-state").textContent = "The token has expired: sign out, and in with a new one";
  }, inMs);
  return ` until ${moment(new Date(expiresAt()))}`;
}

/** @param {() => Promise<void> | void} enter */
async function signIn(enter) {
  showFailure(place("sign-in-failure"));
  try {
    await enter();
    const { tenant, max_batch_size } = await showLimits(place("limits"));
    mostImages = max_batch_size;
    const found = await catalogue();
    place("sign-in").hidden = true;
    place("work").hidden = false;
    place("sign-out").hidden = false;
    place("session-state").textContent = `Signed in as ${tenant}${watchExpiry()}`;
    place("image-title").focus();
    for (const pane of panes) void pane.settings.offer(found);
  } catch (failure) {
    signOut();
    showFailure(place("sign-in-failure"), failure);
  }
}

/** @param {string} id @param {(field: (name: string) => string) => Promise<void> | void} enter */
function onSubmit(id, enter) {
  const form = find(document, `#${id}`, HTMLFormElement);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const field = (/** @type {string} */ name) => find(form, `[name=${name}]`, HTMLInputElement).value.trim();
    const entering = signIn(() => enter(field));
    form.reset(); // what was typed leaves the page's fields at once
    void entering;
  });
}
onSubmit("token-form", (field) => useToken(field("token")));
onSubmit("client-form", (field) => useClient(field("id"), field("secret")));

place("sign-out").addEventListener("click", () => {
  signOut();
  clearTimeout(expiry);
  picture = null;
  reading += 1;
  for (const each of [...panes, batch]) each.clear();
  place("limits").replaceChildren();
  showFailure(place("limits-failure"));
  place("work").hidden = true;
  place("sign-out").hidden = true;
  place("sign-in").hidden = false;
  place("session-state").textContent = "Not signed in";
  find(document, "#token-form input", HTMLInputElement).focus();
});
