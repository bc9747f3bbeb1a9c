import { milliseconds } from "./calls.js";
import { CamserveError, failure } from "./errors.js";

/**
 * Exponential backoff with full jitter: a random time up to `firstS` seconds, which grows by `factor` up to `capS`.
 *
 * Where the service says when to come again (`Retry-After`), the random time is added to that.
 */
export interface Backoff {
  firstS: number;
  factor: number;
  capS: number;
}

export const DEFAULT_BACKOFF: Backoff = { firstS: 0.5, factor: 2, capS: 30 };

/** Tells time in seconds, waits and draws; another one in tests. */
export interface Clock {
  now(): number;
  sleep(seconds: number, signal?: AbortSignal): Promise<void>;
  random(): number;
}

export const SYSTEM_CLOCK: Clock = {
  now: () => performance.now() / 1000,
  random: Math.random,
  sleep: (seconds, signal) =>
    new Promise((resolve, reject) => {
      const leave = () => {
        clearTimeout(timer);
        reject(failure(signal?.reason, signal));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener("abort", leave);
        resolve();
      }, milliseconds(seconds));
      if (signal?.aborted) leave();
      else signal?.addEventListener("abort", leave, { once: true });
    }),
};

/** Tries calls again as `backoff` says. */
export class Retries {
  constructor(
    readonly backoff: Backoff = DEFAULT_BACKOFF,
    readonly clock: Clock = SYSTEM_CLOCK,
  ) {}

  /** Returns the state of a call that begins now and may take that many seconds in all. */
  started(timeoutS = Infinity, signal?: AbortSignal): Tries {
    return new Tries(this, timeoutS, signal);
  }

  /** Returns what `attempt` does, until that succeeds, cannot pass, or the next one would begin too late. */
  async run<T>(attempt: (tries: Tries) => Promise<T>, timeoutS?: number, signal?: AbortSignal): Promise<T> {
    const tries = this.started(timeoutS, signal);
    for (;;) {
      try {
        return await attempt(tries);
      } catch (reason) {
        await tries.pauseAfter(failure(reason, signal));
      }
    }
  }
}

/** Counts the failures of one call and knows how much time is left. */
export class Tries {
  #failures = 0;
  #ends: number;

  constructor(
    private readonly retries: Retries,
    private readonly timeoutS: number,
    private readonly signal?: AbortSignal,
  ) {
    this.#ends = retries.clock.now() + timeoutS;
  }

  /** How many seconds are left, 0 at least. */
  get leftS(): number {
    return Math.max(0, this.#ends - this.retries.clock.now());
  }

  /** Begins again: something came through. */
  restart(): void {
    this.#failures = 0;
    this.#ends = this.retries.clock.now() + this.timeoutS;
  }

  /** Waits until the next attempt; throws `error` when there shall be none. */
  async pauseAfter(error: CamserveError): Promise<void> {
    if (!error.retryable) throw error;
    const { backoff, clock } = this.retries;
    const windowS = Math.min(backoff.capS, backoff.firstS * backoff.factor ** Math.min(this.#failures++, 64));
    const pauseS = (error.retryAfterS ?? 0) + clock.random() * windowS;
    if (pauseS >= this.leftS) throw error;
    await clock.sleep(pauseS, this.signal);
  }
}
