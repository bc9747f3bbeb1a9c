package io.camserve.client;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;

/** Passes only while somebody sleeps. */
final class StillClock implements Retries.Clock {
    final List<Duration> slept = new ArrayList<>();
    private long nanos;

    @Override
    public long nanos() {
        return nanos;
    }

    @Override
    public void sleep(Duration duration) {
        slept.add(duration);
        nanos += duration.toNanos();
    }
}
