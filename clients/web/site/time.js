/** Times, as the page writes them: in English like the rest of it, where this machine is. */

/**
 * Returns a time of day, with its day unless that is today.
 * @param {Date} date
 */
export function moment(date) {
  const today = date.toDateString() === new Date().toDateString();
  const day = today ? "" : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "long", year: "numeric" })}, `;
  return `${day}${date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" })}`;
}

/**
 * Returns a time of day with its zone.
 * @param {Date} date
 */
export function zoned(date) {
  return date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", timeZoneName: "short" }).replace(" ", "\u00a0");
}
