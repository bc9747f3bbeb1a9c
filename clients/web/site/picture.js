/** An image on this machine, as the page shows it. */

const LONGEST_SIDE_PX = 1024;

/**
 * `base` is null for an image that this browser cannot show, such as a TIFF; it is classified all the same.
 * @typedef {{file: File, base: HTMLCanvasElement | null}} Picture
 */

/**
 * Says why a file is none of the types that an input accepts; nothing where it may be one. A file whose type the browser
 * does not know is the service's to judge.
 * @param {File} file
 * @param {string} accept  as an input has it
 */
export function refusal({ name, type }, accept) {
  const types = accept.split(",");
  if (!type || types.includes(type)) return "";
  const names = types.map((each) => each.replace("image/", "").toUpperCase());
  const offered = new Intl.ListFormat("en-GB", { type: "disjunction" }).format(names);
  return `${name} is of the type ${type} and was not sent. Choose a ${offered} image.`;
}

/**
 * Reads an image, upright and on white.
 * @param {File} file
 * @param {number} [longestSide]  pixels; a larger image is shrunk to that
 * @returns {Promise<Picture>}
 */
export async function readPicture(file, longestSide = LONGEST_SIDE_PX) {
  const address = URL.createObjectURL(file);
  try {
    const image = new Image();
    image.src = address;
    await image.decode();
    const shrink = Math.min(1, longestSide / Math.max(image.naturalWidth, image.naturalHeight));
    const base = document.createElement("canvas");
    base.width = Math.max(1, Math.round(image.naturalWidth * shrink));
    base.height = Math.max(1, Math.round(image.naturalHeight * shrink));
    const context = drawn(base);
    context.fillStyle = "white";
    context.fillRect(0, 0, base.width, base.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(image, 0, 0, base.width, base.height);
    return { file, base };
  } catch {
    return { file, base: null };
  } finally {
    URL.revokeObjectURL(address);
  }
}

/**
 * Returns the context of a canvas whose pixels are read.
 * @param {HTMLCanvasElement} canvas
 * @returns {CanvasRenderingContext2D}
 */
export function drawn(canvas) {
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("This browser cannot draw.");
  return context;
}
