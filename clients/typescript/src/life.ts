import { CamserveError } from "./errors.js";

/** A call that ends with the caller's signal or with the client. Its signal is let go of by `end`. */
export interface Alive {
  signal: AbortSignal;
  end: () => void;
}

/** Whether a client is open, and what ends when it is closed. */
export class Life {
  readonly #calls = new Set<AbortController>();
  #closed = false;

  /** Ends every call, also those that wait for another attempt. */
  close(): void {
    this.#closed = true;
    for (const call of this.#calls) call.abort(closed());
  }

  /** Returns a call that begins now; throws when the client is closed. */
  begin(caller?: AbortSignal): Alive {
    if (this.#closed) throw closed();
    const call = new AbortController();
    const leave = () => call.abort(caller?.reason);
    if (caller?.aborted) leave();
    else caller?.addEventListener("abort", leave, { once: true });
    this.#calls.add(call);
    const end = () => {
      caller?.removeEventListener("abort", leave);
      this.#calls.delete(call);
    };
    return { signal: call.signal, end };
  }

  /** Returns what `use` does with the signal of a call. */
  async during<T>(caller: AbortSignal | undefined, use: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const call = this.begin(caller);
    try {
      return await use(call.signal);
    } finally {
      call.end();
    }
  }
}

function closed(): CamserveError {
  return new CamserveError("client.closed", "The client is closed.", { status: 499 });
}
