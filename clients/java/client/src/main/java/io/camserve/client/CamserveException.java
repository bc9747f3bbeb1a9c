package io.camserve.client;

import com.google.protobuf.Struct;
import java.time.Duration;
import java.util.Optional;
import java.util.Set;

/**
 * Says why a call failed, whoever refused: the service, the way to it, or this client.
 *
 * <p>{@link #code} is one of the catalogue (docs/errors.md), or of this client: {@link #CONNECTION_FAILED} when the
 * service cannot be reached or the connection broke, {@link #ANSWER_INVALID} when what answered is not the service,
 * {@code client.closed} when the client was closed or the thread interrupted.
 */
public final class CamserveException extends RuntimeException {
    /** The service cannot be reached, or the connection broke. */
    public static final String CONNECTION_FAILED = "connection.failed";

    /** What answered is not the service. */
    public static final String ANSWER_INVALID = "answer.invalid";

    static final String TIMEOUT = "timeout.exceeded";
    static final String OFFSET_CONFLICT = "upload.offset_conflict";
    private static final String CLOSED = "client.closed";
    private static final String IN_PROGRESS = "idempotency.in_progress";
    private static final Set<Integer> MAY_PASS = Set.of(429, 502, 503, 504);

    private final String code;
    private final int status;
    private final String requestId;
    private final Duration retryAfter;
    private final Struct details;

    CamserveException(String code, int status, String message, Throwable cause) {
        this(code, status, message, "", null, Struct.getDefaultInstance(), cause);
    }

    CamserveException(
            String code,
            int status,
            String message,
            String requestId,
            Duration retryAfter,
            Struct details,
            Throwable cause) {
        super(code + ": " + message + (requestId.isEmpty() ? "" : " (request " + requestId + ")"), cause);
        this.code = code;
        this.status = status;
        this.requestId = requestId;
        this.retryAfter = retryAfter;
        this.details = details;
    }

    /** Returns the reason, such as {@code model.not_found}. */
    public String code() {
        return code;
    }

    /** Returns the HTTP status that stands for the reason, 0 where nothing answered. */
    public int status() {
        return status;
    }

    /** Returns what finds the call in the service's log; empty where no service answered. */
    public Optional<String> requestId() {
        return requestId.isEmpty() ? Optional.empty() : Optional.of(requestId);
    }

    /** Returns how long to wait before another attempt, where the service said so. */
    public Optional<Duration> retryAfter() {
        return Optional.ofNullable(retryAfter);
    }

    /** Returns facts, such as a limit; empty where there are none. */
    public Struct details() {
        return details;
    }

    /** Returns whether the same call may succeed later. */
    public boolean isRetryable() {
        return code.equals(CONNECTION_FAILED) || code.equals(IN_PROGRESS) || MAY_PASS.contains(status);
    }

    /** Returns the error of a call that a closed client does not make, or not again after {@code refused}. */
    static CamserveException closed(CamserveException refused) {
        return new CamserveException(CLOSED, 499, "The client is closed.", refused);
    }

    /** Returns the error of a thread that was interrupted while it waited; its flag is set again. */
    static CamserveException interrupted(InterruptedException cause) {
        Thread.currentThread().interrupt();
        return new CamserveException(CLOSED, 499, "The thread was interrupted.", cause);
    }
}
