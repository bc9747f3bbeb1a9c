/** Who is signed in. Tokens and secrets live in this module's memory: never in storage, a cookie or an address. */

import { reached } from "./api.js";

const RENEW_BEFORE_MS = 30_000;

/** @typedef {{token: string, expiresAt: number}} Grant  `expiresAt` in milliseconds since 1970, Infinity if unknown */

/** @type {Grant | null} */
let grant = null;
/** @type {{id: string, secret: string} | null} */
let client = null;

/** Says whether somebody is signed in. */
export const signedIn = () => grant !== null;

/** Returns when the token in use expires, as `Grant` has it; Infinity for nobody. */
export const expiresAt = () => grant?.expiresAt ?? Infinity;

/** Says whether an expired token is renewed without a question. */
export const renews = () => client !== null;

/**
 * Signs in with a token, whose signature is the service's to judge.
 * @param {string} token
 */
export function useToken(token) {
  signOut();
  // Whoever copies a whole header means the token in it.
  token = token.trim().replace(/^bearer\s+/i, "");
  grant = { token, expiresAt: expiryOf(token) };
}

/**
 * Signs in as a client; throws an Error that says why the service refused.
 * @param {string} id
 * @param {string} secret
 */
export async function useClient(id, secret) {
  signOut();
  grant = await granted(id, secret);
  client = { id, secret };
}

/** Forgets everything. */
export function signOut() {
  grant = null;
  client = null;
}

/** Returns the value of the Authorization header, with a new token where a client's is about to expire. */
export async function authorization() {
  if (client && grant && grant.expiresAt - Date.now() < RENEW_BEFORE_MS) {
    const { id, secret } = client;
    const renewed = await granted(id, secret);
    // Who signed out meanwhile stays signed out.
    if (client?.id === id) grant = renewed;
  }
  if (!grant) throw new Error("You are not signed in.");
  return `Bearer ${grant.token}`;
}

/**
 * @param {string} id
 * @param {string} secret
 * @returns {Promise<Grant>}
 */
async function granted(id, secret) {
  const form = new URLSearchParams({ grant_type: "client_credentials", client_id: id, client_secret: secret });
  const answer = await reached("/oauth2/token", { method: "POST", body: form });
  const told = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error_description ?? told.error?.message ?? told.error ?? `HTTP ${answer.status}`);
  return { token: told.access_token, expiresAt: Date.now() + told.expires_in * 1000 };
}

/**
 * @param {string} token
 * @returns {number}
 */
function expiryOf(token) {
  try {
    const claims = JSON.parse(atob((token.split(".")[1] ?? "").replaceAll("-", "+").replaceAll("_", "/")));
    return typeof claims.exp === "number" ? claims.exp * 1000 : Infinity;
  } catch {
    return Infinity;
  }
}
