package io.camserve.client;

import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.function.DoubleSupplier;

/** Tries calls again as a {@link Backoff} says. */
final class Retries {
    private final Backoff backoff;
    private final Clock clock;
    private final DoubleSupplier random;
    private final CountDownLatch closed = new CountDownLatch(1);

    /** {@code random} gives numbers from 0 to below 1. */
    Retries(Backoff backoff, Clock clock, DoubleSupplier random) {
        this.backoff = backoff;
        this.clock = clock;
        this.random = random;
    }

    /**
     * Returns the state of a call that begins now and may take that long in all; throws CamserveException once closed.
     */
    Tries started(Duration timeout) {
        checkOpen(null);
        return new Tries(timeout);
    }

    /** Lets no other attempt begin, and ends the pauses before them. */
    void close() {
        closed.countDown();
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

    private void checkOpen(CamserveException refused) {
        if (closed.getCount() == 0) {
            throw CamserveException.closed(refused);
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
            public void sleep(Duration duration, CountDownLatch end) throws InterruptedException {
                end.await(duration.toNanos(), TimeUnit.NANOSECONDS);
            }
        };

        long nanos();

        /** Waits that long, or until {@code end}. */
        void sleep(Duration duration, CountDownLatch end) throws InterruptedException;
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
            checkOpen(refused);
            failures++;
            long random = (long) (Retries.this.random.getAsDouble() * backoff.window(failures).toNanos());
            Duration told = refused.retryAfter().orElse(Duration.ZERO);
            // Compared first, since what is asked for may be too long to add anything to it.
            if (told.compareTo(left()) >= 0 || told.plusNanos(random).compareTo(left()) >= 0) {
                throw refused;
            }
            try {
                clock.sleep(told.plusNanos(random), closed);
            } catch (InterruptedException interrupted) {
                throw CamserveException.interrupted(interrupted);
            }
            checkOpen(refused);
        }
    }
}
