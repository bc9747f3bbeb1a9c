package io.camserve.client;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.util.Durations;
import com.google.rpc.RetryInfo;
import io.camserve.v1.ErrorObject;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.time.Instant;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;

/** Makes statuses of gRPC and errors within answers into the one exception. */
final class Refusals {
    private static final Metadata.Key<String> REQUEST_ID =
            Metadata.Key.of("request-id", Metadata.ASCII_STRING_MARSHALLER);
    private static final Metadata.Key<String> RETRY_AFTER =
            Metadata.Key.of("retry-after", Metadata.ASCII_STRING_MARSHALLER);

    private Refusals() {}

    static CamserveException of(StatusException refused) {
        Metadata trailers = refused.getTrailers() == null ? new Metadata() : refused.getTrailers();
        ErrorObject described = null;
        Duration retryAfter = wait(trailers.get(RETRY_AFTER));
        try {
            for (Any detail : StatusProto.fromThrowable(refused).getDetailsList()) {
                if (detail.is(ErrorObject.class)) {
                    described = detail.unpack(ErrorObject.class);
                } else if (detail.is(RetryInfo.class)) {
                    com.google.protobuf.Duration delay = detail.unpack(RetryInfo.class).getRetryDelay();
                    retryAfter = Durations.isValid(delay) && !Durations.isNegative(delay)
                            ? Duration.ofSeconds(delay.getSeconds(), delay.getNanos())
                            : retryAfter;
                }
            }
        } catch (InvalidProtocolBufferException unreadable) {
            refused.addSuppressed(unreadable);
        }
        if (described != null) {
            return of(described, retryAfter, refused);
        }
        String requestId = trailers.get(REQUEST_ID);
        Named named = named(refused.getStatus().getCode(), retryAfter != null);
        String message = refused.getStatus().getDescription();
        return new CamserveException(
                named.code,
                named.status,
                message == null ? refused.getStatus().getCode().name() : message,
                requestId == null ? "" : requestId,
                retryAfter,
                Struct.getDefaultInstance(),
                refused);
    }

    static CamserveException of(ErrorObject error) {
        return of(error, null, null);
    }

    private static CamserveException of(ErrorObject error, Duration retryAfter, Throwable cause) {
        return new CamserveException(
                error.getCode(),
                error.getStatus(),
                error.getMessage(),
                error.getRequestId(),
                retryAfter,
                error.getDetails(),
                cause);
    }

    /** Says what an error is that carries its canonical code only: made by the edge, by gRPC, by something between. */
    private static Named named(Status.Code code, boolean saysWhen) {
        return switch (code) {
            case INVALID_ARGUMENT -> new Named("param.invalid", 400);
            case UNAUTHENTICATED -> new Named("auth.invalid_token", 401);
            case PERMISSION_DENIED -> new Named("access.denied", 403);
            case NOT_FOUND, UNIMPLEMENTED -> new Named("route.not_found", 404);
            case OUT_OF_RANGE -> new Named("body.too_large", 413);
            // Without a time to come again it is gRPC's own word for a message above the limit.
            case RESOURCE_EXHAUSTED -> saysWhen ? new Named("rate.exceeded", 429) : new Named("body.too_large", 413);
            case DEADLINE_EXCEEDED -> new Named(CamserveException.TIMEOUT, 504);
            // With one the edge says so; a connection says nothing of when.
            case UNAVAILABLE -> new Named(saysWhen ? "service.overloaded" : CamserveException.CONNECTION_FAILED, 503);
            case CANCELLED -> new Named(CamserveException.CONNECTION_FAILED, 0);
            case INTERNAL -> new Named("internal", 500);
            default -> new Named(CamserveException.ANSWER_INVALID, 0);
        };
    }

    /** Reads {@code Retry-After}: seconds, or a date where something between wrote it. */
    private static Duration wait(String text) {
        if (text == null) {
            return null;
        }
        if (text.matches("[0-9]+")) {
            return Duration.ofSeconds(text.length() < 19 ? Long.parseLong(text) : Long.MAX_VALUE);
        }
        try {
            Instant then = DateTimeFormatter.RFC_1123_DATE_TIME.parse(text, Instant::from);
            Duration left = Duration.between(Instant.now(), then);
            return left.isNegative() ? Duration.ZERO : left;
        } catch (DateTimeParseException unreadable) {
            return null;
        }
    }

    private record Named(String code, int status) {}
}
