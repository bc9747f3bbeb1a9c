package io.camserve.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/** Passes only while somebody sleeps. */
final class StillClock implements Retries.Clock {
    final List<Duration> slept = new ArrayList<>();
    private long nanos;

    @Override
    public long nanos() {
        return nanos;
    }

    @Override
    public void sleep(Duration duration, CountDownLatch end) {
        slept.add(duration);
        nanos += duration.toNanos();
    }
}
