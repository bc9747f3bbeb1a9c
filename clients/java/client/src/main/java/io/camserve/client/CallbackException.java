package io.camserve.client;

import java.util.function.Consumer;
import java.util.function.Supplier;

/** Carries what a caller's own code threw past the places that would try a call again. */
final class CallbackException extends RuntimeException {
    private final RuntimeException thrown;

    private CallbackException(RuntimeException thrown) {
        super(thrown);
        this.thrown = thrown;
    }

    /** Calls the caller. */
    static <T> void guard(Consumer<T> callback, T told) {
        try {
            callback.accept(told);
        } catch (RuntimeException own) {
            throw new CallbackException(own);
        }
    }

    /** Returns a result, or throws what the caller threw. */
    static <T> T unwrapped(Supplier<T> call) {
        try {
            return call.get();
        } catch (CallbackException carried) {
            throw carried.thrown;
        }
    }
}
