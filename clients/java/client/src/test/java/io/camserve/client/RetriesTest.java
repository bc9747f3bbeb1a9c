package io.camserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeoutPreemptively;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import io.camserve.v1.ErrorObject;
import io.camserve.v1.InferRequest;
import io.camserve.v1.InferResponse;
import io.camserve.v1.InferenceServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.time.ZoneOffset;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Queue;
import java.util.concurrent.CountDownLatch;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class RetriesTest {
    private static final Image STAR = Image.bytes(new byte[] {1});
    private static final InferOptions SHAPES = InferOptions.of("shapes");

    private final Queue<RuntimeException> refusals = new ArrayDeque<>();
    private final List<String> keys = new ArrayList<>();
    private final StillClock clock = new StillClock();
    private Server server;
    private CamserveClient client;

    @BeforeEach
    void start() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new Faulty())
                .intercept(new Keys())
                .build()
                .start();
        client = CamserveClient.at("127.0.0.1:" + server.getPort())
                .clock(clock)
                .timeout(Duration.ofSeconds(60))
                .build();
    }

    @AfterEach
    void stop() {
        client.close();
        server.shutdownNow();
    }

    @Test
    void oneKeyIsKeptOverAllAttemptsOfAWrite() {
        refusals.add(refusal("service.overloaded", 503, Code.UNAVAILABLE, Duration.ofSeconds(3)));
        refusals.add(refusal("idempotency.in_progress", 409, Code.ABORTED, Duration.ofSeconds(2)));
        assertEquals("shapes", client.infer(STAR, SHAPES).getModel());
        client.infer(STAR, SHAPES);
        assertEquals(4, keys.size());
        assertEquals(2, new HashSet<>(keys).size());
        assertEquals(1, new HashSet<>(keys.subList(0, 3)).size());
    }

    @Test
    void theCallersOwnKeyIsSent() {
        client.infer(STAR, SHAPES.withIdempotencyKey("order-7"));
        assertEquals(List.of("order-7"), keys);
    }

    @Test
    void aPauseIsWhatTheServiceAsksForAndARandomTimeMore() {
        refusals.add(refusal("rate.exceeded", 429, Code.RESOURCE_EXHAUSTED, Duration.ofSeconds(7)));
        refusals.add(refusal("store.unavailable", 503, Code.UNAVAILABLE, Duration.ofSeconds(1)));
        client.infer(STAR, SHAPES);
        assertBetween(Duration.ofSeconds(7), Duration.ofMillis(7500), clock.slept.get(0));
        assertBetween(Duration.ofSeconds(1), Duration.ofSeconds(2), clock.slept.get(1));
    }

    @Test
    void aRefusalForGoodIsNotTriedAgain() {
        refusals.add(refusal("model.not_found", 404, Code.NOT_FOUND, null));
        CamserveException refused = assertThrows(CamserveException.class, () -> client.infer(STAR, SHAPES));
        assertEquals("model.not_found", refused.code());
        assertEquals(404, refused.status());
        assertEquals("req-1", refused.requestId().orElseThrow());
        assertEquals(1, keys.size());
    }

    @Test
    void noAttemptBeginsAfterTheTimeOfTheCall() {
        refusals.add(refusal("quota.exceeded", 429, Code.RESOURCE_EXHAUSTED, Duration.ofSeconds(60)));
        CamserveException refused = assertThrows(CamserveException.class, () -> client.infer(STAR, SHAPES));
        assertEquals(Duration.ofSeconds(60), refused.retryAfter().orElseThrow());
        assertTrue(clock.slept.isEmpty());
    }

    @Test
    void aDateToComeAgainIsWaitedFor() {
        refusals.add(toldToComeAgain(DateTimeFormatter.RFC_1123_DATE_TIME.format(
                ZonedDateTime.now(ZoneOffset.UTC).plusSeconds(40))));
        client.infer(STAR, SHAPES);
        assertBetween(Duration.ofSeconds(30), Duration.ofMillis(40_500), clock.slept.get(0));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "3600",
                "99999999999",
                "9223372036854775807",
                "99999999999999999999",
                "Fri, 31 Dec 9999 23:59:59 GMT"
            })
    void whoIsToldToComeAgainTooLateGivesUp(String when) {
        refusals.add(toldToComeAgain(when));
        CamserveException refused = assertThrows(CamserveException.class, () -> client.infer(STAR, SHAPES));
        assertEquals("service.overloaded", refused.code());
        assertTrue(clock.slept.isEmpty());
    }

    @Test
    void aClosedClientMakesNoCall() {
        client.close();
        CamserveException refused = assertThrows(CamserveException.class, () -> client.infer(STAR, SHAPES));
        assertEquals("client.closed", refused.code());
        assertTrue(clock.slept.isEmpty());
        assertTrue(keys.isEmpty());
    }

    @Test
    void aCallThatBreaksAsItsClientIsClosedIsNotTriedAgain() {
        Retries retries = new Retries(Backoff.DEFAULT, clock, () -> 0.5);
        CamserveException broken = new CamserveException(CamserveException.CONNECTION_FAILED, 0, "Broken.", null);
        CamserveException refused = assertThrows(
                CamserveException.class, () -> retries.run(Duration.ofSeconds(60), tries -> {
                    retries.close();
                    throw broken;
                }));
        assertEquals("client.closed", refused.code());
        assertEquals(broken, refused.getCause());
        assertTrue(clock.slept.isEmpty());
    }

    @Test
    void aCallThatWaitsAsItsClientIsClosedEnds() {
        Retries.Clock closing = new Retries.Clock() {
            @Override
            public long nanos() {
                return Retries.Clock.SYSTEM.nanos();
            }

            @Override
            public void sleep(Duration duration, CountDownLatch end) throws InterruptedException {
                client.close();
                Retries.Clock.SYSTEM.sleep(duration, end);
            }
        };
        client.close();
        client = CamserveClient.at("127.0.0.1:" + server.getPort()).clock(closing).build();
        refusals.add(refusal("quota.exceeded", 429, Code.RESOURCE_EXHAUSTED, Duration.ofSeconds(50)));
        CamserveException refused = assertTimeoutPreemptively(
                Duration.ofSeconds(20), () -> assertThrows(CamserveException.class, () -> client.infer(STAR, SHAPES)));
        assertEquals("client.closed", refused.code());
    }

    @Test
    void anEmptyAnswerIsNone() {
        CamserveException refused =
                assertThrows(CamserveException.class, () -> client.infer(STAR, InferOptions.of("")));
        assertEquals(CamserveException.ANSWER_INVALID, refused.code());
    }

    @Test
    void theWindowOfThePausesDoublesUpToItsCap() {
        assertEquals(Duration.ofMillis(500), Backoff.DEFAULT.window(1));
        assertEquals(Duration.ofSeconds(1), Backoff.DEFAULT.window(2));
        assertEquals(Duration.ofSeconds(16), Backoff.DEFAULT.window(6));
        assertEquals(Duration.ofSeconds(30), Backoff.DEFAULT.window(7));
        assertEquals(Duration.ofSeconds(30), Backoff.DEFAULT.window(Integer.MAX_VALUE));
    }

    @Test
    void whatNoHeaderCanCarryIsNoKey() {
        CamserveException refused = assertThrows(
                CamserveException.class, () -> client.infer(STAR, SHAPES.withIdempotencyKey("two words")));
        assertEquals("idempotency.key_invalid", refused.code());
        assertTrue(keys.isEmpty());
    }

    private static void assertBetween(Duration least, Duration most, Duration actual) {
        assertTrue(actual.compareTo(least) >= 0 && actual.compareTo(most) <= 0, actual::toString);
    }

    private static RuntimeException refusal(String code, int status, Code canonical, Duration retryAfter) {
        ErrorObject described = ErrorObject.newBuilder()
                .setCode(code)
                .setStatus(status)
                .setMessage("No.")
                .setRequestId("req-1")
                .build();
        com.google.rpc.Status.Builder refusal =
                com.google.rpc.Status.newBuilder().setCode(canonical.getNumber()).addDetails(Any.pack(described));
        if (retryAfter != null) {
            com.google.protobuf.Duration delay = com.google.protobuf.Duration.newBuilder()
                    .setSeconds(retryAfter.toSeconds())
                    .build();
            refusal.addDetails(Any.pack(RetryInfo.newBuilder().setRetryDelay(delay).build()));
        }
        return StatusProto.toStatusRuntimeException(refusal.build());
    }

    /** Returns what the edge refuses with, which says when but knows nothing of the service's errors. */
    private static RuntimeException toldToComeAgain(String when) {
        Metadata trailers = new Metadata();
        trailers.put(Metadata.Key.of("retry-after", Metadata.ASCII_STRING_MARSHALLER), when);
        return Status.UNAVAILABLE.asRuntimeException(trailers);
    }

    /** Refuses as often as the test says, then answers. */
    private final class Faulty extends InferenceServiceGrpc.InferenceServiceImplBase {
        @Override
        public void infer(InferRequest request, StreamObserver<InferResponse> answers) {
            if (!refusals.isEmpty()) {
                answers.onError(refusals.remove());
                return;
            }
            answers.onNext(InferResponse.newBuilder().setModel(request.getModel()).build());
            answers.onCompleted();
        }
    }

    private final class Keys implements ServerInterceptor {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            keys.add(headers.get(Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER)));
            return next.startCall(call, headers);
        }
    }
}
