package io.camserve.client;

import java.time.Duration;
import java.util.function.DoubleSupplier;

/** Tries calls again as a {@link Backoff} says. */
final class Retries {
    private final Backoff backoff;
    private final Clock clock;
    private final DoubleSupplier random;

    /** {@code random} gives numbers from 0 to below 1. */
    Retries(Backoff backoff, Clock clock, DoubleSupplier random) {
        this.backoff = backoff;
        this.clock = clock;
        this.random = random;
    }

    /** Returns the state of a call that begins now and may take that long in all. */
    Tries started(Duration timeout) {
        return new Tries(timeout);
    }

    /** Returns what an attempt returns; throws the last exception when no other attempt may help or time is over. */
    <T> T run(Duration timeout, Attempt<T> attempt) {
        Tries tries = started(timeout);
        while (true) {
            try {
                return attempt.make(tries);
            } catch (CamserveException refused) {
                tries.pauseAfter(refused);
            }
        }
    }

    /** Makes one attempt, which asks how much time is left to it. */
    interface Attempt<T> {
        T make(Tries tries);
    }

    /** Tells time and waits; another one in tests. */
    interface Clock {
        Clock SYSTEM = new Clock() {
            @Override
            public long nanos() {
                return System.nanoTime();
            }

            @Override
            public void sleep(Duration duration) throws InterruptedException {
                Thread.sleep(duration.toMillis());
            }
        };

        long nanos();

        void sleep(Duration duration) throws InterruptedException;
    }

    /** Counts the failures of one call and knows how much time is left. */
    final class Tries {
        private final Duration timeout;
        private long ends;
        private int failures;

        private Tries(Duration timeout) {
            this.timeout = timeout;
            restart();
        }

        Duration left() {
            return Duration.ofNanos(Math.max(0, ends - clock.nanos()));
        }

        /** Forgets the failures, since something came through. */
        void forget() {
            failures = 0;
        }

        /** Begins again: failures are forgotten and all of the time is left. */
        void restart() {
            forget();
            ends = clock.nanos() + timeout.toNanos();
        }

        /** Waits until the next attempt; throws {@code refused} when there shall be none. */
        void pauseAfter(CamserveException refused) {
            if (!refused.isRetryable()) {
                throw refused;
            }
            failures++;
            long random = (long) (Retries.this.random.getAsDouble() * backoff.window(failures).toNanos());
            Duration pause = refused.retryAfter().orElse(Duration.ZERO).plusNanos(random);
            if (pause.compareTo(left()) >= 0) {
                throw refused;
            }
            try {
                clock.sleep(pause);
            } catch (InterruptedException interrupted) {
                throw CamserveException.interrupted(interrupted);
            }
        }
    }
}
