package io.camserve.client;

import java.time.Duration;

/**
 * Exponential backoff with full jitter: a random time up to {@code first}, which grows by {@code factor} after each
 * attempt, up to {@code cap}. Where the service says when to come again, the random time is added to that.
 *
 * @param first the longest random wait after the first failure
 * @param factor what that grows by after each further one, 1 or more
 * @param cap the longest random wait of all
 */
public record Backoff(Duration first, double factor, Duration cap) {
    /** Half a second, doubled up to half a minute. */
    public static final Backoff DEFAULT = new Backoff(Duration.ofMillis(500), 2, Duration.ofSeconds(30));

    /** Returns the longest random wait after that many failures, 1 or more. */
    public Duration window(int failures) {
        // Beyond so many the cap is long reached, and a power without bound would overflow.
        double grown = first.toNanos() * Math.pow(factor, Math.min(failures - 1, 64));
        return grown < cap.toNanos() ? Duration.ofNanos((long) grown) : cap;
    }
}
