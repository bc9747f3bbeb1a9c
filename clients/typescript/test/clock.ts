import { type Clock, DEFAULT_BACKOFF, Retries } from "../src/retry.js";

/** A clock that only sleeping moves, and what was slept. It draws the longest pauses. */
export function clocked(random: () => number = () => 1): { retries: Retries; slept: number[] } {
  let now = 0;
  const slept: number[] = [];
  const clock: Clock = {
    now: () => now,
    random,
    sleep: async (seconds) => {
      now += seconds;
      slept.push(seconds);
    },
  };
  return { retries: new Retries(DEFAULT_BACKOFF, clock), slept };
}

/** An attempt that fails so many times, and counts how often it was made. */
export function refusing(times: number, error: Error) {
  const counted = { made: 0, attempt: async () => undefined as void };
  counted.attempt = async () => {
    counted.made += 1;
    if (counted.made <= times) throw error;
  };
  return counted;
}
