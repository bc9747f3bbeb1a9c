/** The limits of who is signed in. */

import { ask } from "./api.js";
import { element } from "./dom.js";
import { zoned } from "./time.js";

const MB = 1_000_000;

/**
 * Shows the limits in a description list and returns them; throws Refused.
 * @param {HTMLElement} place
 * @returns {Promise<any>}
 */
export async function showLimits(place) {
  const limits = await ask("/v1/limits");
  const { requests_per_second: rate, images_per_day: images, concurrency, retention_hours: retention } = limits;
  const rows = {
    "Requests a second": `${count(rate.limit)}; ${count(rate.remaining)} of ${count(rate.burst)} left now`,
    "Images today": `${count(images.used)} of ${count(images.limit)}, anew at ${zoned(new Date(images.resets_at))}`,
    "Calls at once": `${concurrency.in_use} of ${concurrency.limit}`,
    "Image size": `${megabytes(limits.max_image_bytes)}, ${limits.max_side_px} px a side`,
    "Pixels of an image": `${(limits.max_pixels / MB).toFixed(0)} megapixels`,
    "JSON size": megabytes(limits.max_json_bytes),
    "Images of a batch": String(limits.max_batch_size),
    "Heatmap size": `${limits.max_cam_side_px} px a side`,
    "Time for an answer": `${limits.sync_timeout_s} s`,
    "Images and results kept": `${retention.default} h, up to ${retention.max} h`,
  };
  place.replaceChildren(
    ...Object.entries(rows).map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))),
  );
  return limits;
}

/** @param {number} value */
const count = (value) => value.toLocaleString();

/** @param {string | number} bytes  64-bit integers are texts in JSON */
const megabytes = (bytes) => `${(Number(bytes) / MB).toFixed(0)} MB`;
