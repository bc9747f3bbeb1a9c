import type { JsonObject } from "@bufbuild/protobuf";

import { ANSWER_INVALID, CamserveError } from "./errors.js";

const TOLERANCE_S = 300;
const SECRET = /^whsec_[A-Za-z0-9+/]{43}=$/;

/** An event that is authentic. `id` is the same in every attempt at it: expect it more than once. */
export interface WebhookEvent {
  id: string;
  event: string;
  jobId: string;
  status: string;
  itemsSucceeded: number;
  itemsFailed: number;
  resultsUrl: string;
  metadata: JsonObject | undefined;
}

/** Headers of a request, as the Fetch API or Node's `http` has them. */
export type WebhookHeaders = Headers | Record<string, string | string[] | undefined>;

/**
 * Returns the event of a POST whose Standard Webhooks signature fits one of the secrets (`whsec_…`).
 *
 * `body` is the raw body, before anything parsed it; `nowS` the Unix time, by default the machine's. Throws CamserveError
 * `signature.invalid` for an event that is signed with none of the secrets, `signature.expired` for one whose time is
 * further from now than 300 s; RangeError for a secret that is none.
 */
export async function verifyWebhook(
  headers: WebhookHeaders,
  body: Uint8Array | string,
  secrets: string | readonly string[],
  nowS: number = Date.now() / 1000,
): Promise<WebhookEvent> {
  const said = headers instanceof Headers ? headers : plain(headers);
  const id = said.get("webhook-id") ?? "";
  const timestamp = said.get("webhook-timestamp") ?? "";
  const text = typeof body === "string" ? body : new TextDecoder().decode(body);
  const head = new TextEncoder().encode(`${id}.${timestamp}.`);
  const raw = typeof body === "string" ? new TextEncoder().encode(body) : body;
  const signed = new Uint8Array(head.length + raw.length);
  signed.set(head);
  signed.set(raw, head.length);
  const offered = (said.get("webhook-signature") ?? "").split(" ");
  let authentic = false;
  for (const secret of typeof secrets === "string" ? [secrets] : secrets) {
    if (!SECRET.test(secret)) throw new RangeError("a secret is whsec_ and the base64 of 32 bytes");
    const usage = { name: "HMAC", hash: "SHA-256" };
    const key = await crypto.subtle.importKey("raw", bytesOf(secret.slice(6)), usage, false, ["verify"]);
    for (const one of offered) {
      // Compares in constant time.
      if (one.startsWith("v1,") && (await crypto.subtle.verify("HMAC", key, bytesOf(one.slice(3)), signed))) {
        authentic = true;
      }
    }
  }
  if (!authentic) {
    throw new CamserveError("signature.invalid", "The event is not signed with the secret.", { status: 403 });
  }
  // Only now: what is signed is what the service wrote.
  if (!(Math.abs(nowS - Number(timestamp)) <= TOLERANCE_S)) {
    throw new CamserveError("signature.expired", "The event is too old, or this clock is off.", { status: 403 });
  }
  return event(id, text);
}

function event(id: string, text: string): WebhookEvent {
  try {
    const told = JSON.parse(text);
    return {
      id,
      event: told.event,
      jobId: told.job_id,
      status: told.status,
      itemsSucceeded: told.items_succeeded,
      itemsFailed: told.items_failed,
      resultsUrl: told.results_url,
      metadata: told.metadata ?? undefined,
    };
  } catch (cause) {
    throw new CamserveError(ANSWER_INVALID, "The event is not of the expected form.", { cause });
  }
}

function plain(headers: Record<string, string | string[] | undefined>): Headers {
  const made = new Headers();
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) made.set(name, typeof value === "string" ? value : value.join(" "));
  }
  return made;
}

function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  try {
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch {
    return new Uint8Array();
  }
}
