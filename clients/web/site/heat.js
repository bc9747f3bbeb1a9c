/** Heatmaps: fetched as grey levels once, coloured and laid over the image here. */

import { call } from "./api.js";
import { COLORMAPS } from "./choices.js";
import { drawn } from "./picture.js";

/**
 * `levels` holds a byte per pixel, row by row; it is null where the service has coloured the map already.
 * @typedef {{width: number, height: number, levels: Uint8Array | null, drawing: ImageBitmap}} Heat
 */
/** @typedef {{opacity: number, colormap: string}} View  `opacity` from 0 to 1 */

/**
 * Reads the map of an answer, which lies within it or behind a link; null where there is none to be had.
 * @param {any} heatmap
 * @param {AbortSignal} [signal]
 * @returns {Promise<Heat | null>}
 */
export async function readHeat(heatmap, signal) {
  if (!heatmap || heatmap.format !== "png") return null;
  const drawing = await createImageBitmap(await bytesOf(heatmap, signal), { colorSpaceConversion: "none" });
  const { width, height } = drawing;
  if (heatmap.colormap !== "gray" || heatmap.overlay) return { width, height, levels: null, drawing };
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  const context = drawn(canvas);
  context.drawImage(drawing, 0, 0);
  const pixels = context.getImageData(0, 0, width, height).data;
  const levels = new Uint8Array(width * height);
  for (let i = 0; i < levels.length; i += 1) levels[i] = pixels[4 * i] ?? 0;
  return { width, height, levels, drawing };
}

/**
 * Draws a map over its image; without an image, or where the service has drawn both, the map alone.
 * @param {HTMLCanvasElement} canvas
 * @param {HTMLCanvasElement | null} base
 * @param {Heat | null} heat
 * @param {View} view
 */
export function paint(canvas, base, heat, view) {
  const { width, height } = heat ?? base ?? { width: 1, height: 1 };
  Object.assign(canvas, { width, height });
  const context = drawn(canvas);
  if (base) context.drawImage(base, 0, 0, width, height);
  if (!heat) return;
  context.globalAlpha = base ? view.opacity : 1;
  context.drawImage(heat.levels ? coloured(heat, heat.levels, view.colormap) : heat.drawing, 0, 0);
}

/**
 * Draws all colours of a map, from 0 to 1, in one row of 256 pixels.
 * @param {HTMLCanvasElement} canvas
 * @param {string} colormap
 */
export function paintScale(canvas, colormap) {
  const levels = Uint8Array.from({ length: 256 }, (_, level) => level);
  drawn(canvas).drawImage(coloured({ width: 256, height: 1 }, levels, colormap), 0, 0);
}

/** @type {WeakMap<Uint8Array, {colormap: string, canvas: HTMLCanvasElement}>} */
const lastColoured = new WeakMap();

/**
 * Returns the map in colours, the same canvas again while only the opacity changes.
 * @param {{width: number, height: number}} size
 * @param {Uint8Array} levels
 * @param {string} colormap
 */
function coloured({ width, height }, levels, colormap) {
  const last = lastColoured.get(levels);
  if (last?.colormap === colormap) return last.canvas;
  const table = tableOf(colormap);
  const image = new ImageData(width, height);
  for (let i = 0; i < levels.length; i += 1) {
    const colour = 3 * (levels[i] ?? 0);
    image.data.set(table.subarray(colour, colour + 3), 4 * i);
    image.data[4 * i + 3] = 255;
  }
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width, height });
  drawn(canvas).putImageData(image, 0, 0);
  lastColoured.set(levels, { colormap, canvas });
  return canvas;
}

/**
 * @param {string} colormap
 * @returns {Uint8Array}
 */
function tableOf(colormap) {
  return bytes(/** @type {Record<string, string>} */ (COLORMAPS)[colormap] ?? COLORMAPS.gray);
}

/**
 * @param {any} heatmap
 * @param {AbortSignal} [signal]
 * @returns {Promise<Blob>}
 */
async function bytesOf(heatmap, signal) {
  if (heatmap.data_b64) return new Blob([bytes(heatmap.data_b64)], { type: "image/png" });
  const link = new URL(heatmap.url);
  // The page may talk to nobody but the service it came from.
  if (link.origin !== location.origin && !isThisMachine(link)) throw new Error("The heatmap lies in a store that this page may not ask.");
  return (await call(link.pathname + link.search, { signal: signal ?? null })).blob();
}

/** Whether a link leads to the service of this page, which has several names on its own machine. @param {URL} link */
function isThisMachine({ protocol, port, hostname }) {
  const names = ["localhost", "127.0.0.1", "[::1]"];
  return protocol === location.protocol && port === location.port && [hostname, location.hostname].every((name) => names.includes(name));
}

/**
 * @param {string} base64
 * @returns {Uint8Array<ArrayBuffer>}
 */
function bytes(base64) {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}
