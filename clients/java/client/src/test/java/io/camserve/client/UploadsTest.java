package io.camserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Any;
import com.google.protobuf.Empty;
import com.google.rpc.Code;
import com.google.rpc.RetryInfo;
import com.google.rpc.Status;
import io.camserve.v1.AppendUploadRequest;
import io.camserve.v1.CreateJobRequest;
import io.camserve.v1.CreateJobResponse;
import io.camserve.v1.DeleteUploadRequest;
import io.camserve.v1.ErrorObject;
import io.camserve.v1.GetUploadProgressRequest;
import io.camserve.v1.InferRequest;
import io.camserve.v1.InferResponse;
import io.camserve.v1.InferenceServiceGrpc;
import io.camserve.v1.JobServiceGrpc;
import io.camserve.v1.StartUploadRequest;
import io.camserve.v1.Upload;
import io.camserve.v1.UploadImageRequest;
import io.camserve.v1.UploadProgress;
import io.camserve.v1.UploadServiceGrpc;
import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Grpc;
import io.grpc.InsecureServerCredentials;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

class UploadsTest {
    private static final InferOptions SHAPES = InferOptions.of("shapes");
    private static final long CHUNK_BYTES = 256 << 10;
    private static final Context.Key<String> KEY = Context.key("idempotency-key");

    private final Map<String, String> idsByKey = new HashMap<>();
    private final Map<String, UploadProgress> uploads = new HashMap<>();
    private final List<String> digests = new ArrayList<>();
    private final List<String> inferred = new ArrayList<>();
    private final List<CreateJobRequest> jobs = new ArrayList<>();
    private final List<String> removed = new ArrayList<>();
    private final List<Long> begun = new ArrayList<>();
    private final Queue<Silence> silences = new ArrayDeque<>();
    private final Queue<RuntimeException> refusedPieces = new ArrayDeque<>();
    private final Queue<RuntimeException> refusedQuestions = new ArrayDeque<>();
    private final StillClock clock = new StillClock();
    private Server server;
    private CamserveClient client;

    @BeforeEach
    void start() throws IOException {
        server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new Stored())
                .addService(new Inferred())
                .addService(new Jobs())
                .intercept(new Keys())
                .maxInboundMessageSize(64 << 20)
                .build()
                .start();
        client = client().build();
    }

    @AfterEach
    void stop() {
        client.close();
        server.shutdownNow();
    }

    @Test
    void theSameCallUnderAKeyNamesTheSameUpload() {
        client.infer(image(21_000_000, 1), SHAPES.withIdempotencyKey("order-7"));
        client.infer(image(21_000_000, 1), SHAPES.withIdempotencyKey("order-7"));
        assertEquals(2, inferred.size());
        assertEquals(inferred.get(0), inferred.get(1));
        assertTrue(removed.isEmpty());
    }

    @Test
    void anotherImageOfThatSizeUnderTheKeyIsAnotherRequest() {
        client.infer(image(21_000_000, 1), SHAPES.withIdempotencyKey("order-7"));
        client.infer(image(21_000_000, 2), SHAPES.withIdempotencyKey("order-7"));
        assertEquals(2, digests.size());
        assertNotEquals(digests.get(0), digests.get(1));
    }

    @Test
    void whatWasUploadedForACallWithoutAKeyIsRemoved() {
        client.infer(image(21_000_000, 1), SHAPES);
        assertEquals(inferred, removed);
        assertEquals(List.of(""), digests);
    }

    @Test
    void theSameJobUnderAKeyNamesTheSameUploads() {
        // One within the request, one that has no room in it any more, one in pieces.
        List<Input> inputs = List.of(
                new Input("a", image(8_000_000, 1)),
                new Input("b", image(4_100_000, 2)),
                new Input("c", image(9_000_000, 3)));
        client.submit(inputs, SHAPES.withIdempotencyKey("order-7"));
        client.submit(inputs, SHAPES.withIdempotencyKey("order-7"));
        assertEquals(2, idsByKey.size());
        assertEquals(jobs.get(0), jobs.get(1));
        assertTrue(removed.isEmpty());
        assertTrue(digests.stream().noneMatch(String::isEmpty));
    }

    @Test
    void anUploadStandsStillForLongerThanACallMayTake() {
        refusedPieces.add(refusal("service.overloaded", 503, Code.UNAVAILABLE, 0));
        refusedQuestions.add(refusal("service.overloaded", 503, Code.UNAVAILABLE, 40));
        refusedQuestions.add(refusal("service.overloaded", 503, Code.UNAVAILABLE, 40));
        assertEquals(5_000_000, client.upload(image(5_000_000, 1), progress -> {}).getSizeBytes());
    }

    @ParameterizedTest
    @EnumSource
    // Far below the deadline of the piece.
    @Timeout(60)
    void aPieceThatNothingIsHeardOfGoesOnFromWhatTheServerHas(Silence silence) {
        silences.add(silence);
        List<Long> told = new ArrayList<>();
        try (CamserveClient hasty = client().idle(Duration.ofSeconds(2)).build()) {
            hasty.upload(image(5_000_000, 1), progress -> told.add(progress.sentBytes()));
        }
        assertEquals(List.of(0L, CHUNK_BYTES), begun);
        assertEquals(1, clock.slept.size());
        assertEquals(5_000_000L, told.get(told.size() - 1));
    }

    private CamserveClient.Builder client() {
        return CamserveClient.at("127.0.0.1:" + server.getPort())
                .clock(clock)
                .timeout(Duration.ofSeconds(60));
    }

    private static Image.Content image(int size, int first) {
        byte[] encoded = new byte[size];
        encoded[0] = (byte) first;
        return Image.bytes(encoded);
    }

    private static RuntimeException refusal(String code, int status, Code canonical, int retryAfterS) {
        ErrorObject described =
                ErrorObject.newBuilder().setCode(code).setStatus(status).build();
        RetryInfo.Builder retry = RetryInfo.newBuilder();
        retry.getRetryDelayBuilder().setSeconds(retryAfterS);
        return StatusProto.toStatusRuntimeException(Status.newBuilder()
                .setCode(canonical.getNumber())
                .addDetails(Any.pack(described))
                .addDetails(Any.pack(retry.build()))
                .build());
    }

    private String idOfKey(String digest) {
        digests.add(digest);
        return idsByKey.computeIfAbsent(KEY.get(), key -> "img_" + idsByKey.size());
    }

    private static <A> void answer(StreamObserver<A> answers, A answer) {
        answers.onNext(answer);
        answers.onCompleted();
    }

    /** Knows an upload by the key of its beginning, as the service does. */
    private final class Stored extends UploadServiceGrpc.UploadServiceImplBase {
        @Override
        public StreamObserver<UploadImageRequest> uploadImage(StreamObserver<Upload> answers) {
            return new Sink<>() {
                private UploadImageRequest first;

                @Override
                public void onNext(UploadImageRequest message) {
                    first = first == null ? message : first;
                }

                @Override
                public void onCompleted() {
                    String id = idOfKey(first.getContentMd5());
                    answer(answers, Upload.newBuilder().setStorageId(id).build());
                }
            };
        }

        @Override
        public void startUpload(StartUploadRequest request, StreamObserver<UploadProgress> answers) {
            UploadProgress.Builder begun = UploadProgress.newBuilder()
                    .setStorageId(idOfKey(request.getContentMd5()))
                    .setSizeBytes(request.getSizeBytes());
            uploads.putIfAbsent(begun.getStorageId(), begun.build());
            answer(answers, begun.build());
        }

        @Override
        public StreamObserver<AppendUploadRequest> appendUpload(StreamObserver<UploadProgress> answers) {
            if (!silences.isEmpty()) {
                return silent((ServerCallStreamObserver<UploadProgress>) answers, silences.remove());
            }
            return new Sink<>() {
                private UploadProgress.Builder reached;
                private boolean conflict;

                @Override
                public void onNext(AppendUploadRequest message) {
                    if (reached == null) {
                        reached = uploads.get(message.getStorageId()).toBuilder();
                        conflict = reached.getOffset() != message.getOffset();
                        begun.add(message.getOffset());
                    }
                    reached.setOffset(
                            reached.getOffset() + message.getBody().getData().size());
                }

                @Override
                public void onCompleted() {
                    if (conflict) {
                        answers.onError(refusal("upload.offset_conflict", 409, Code.ABORTED, 0));
                    } else if (!refusedPieces.isEmpty()) {
                        answers.onError(refusedPieces.remove());
                    } else {
                        if (reached.getOffset() == reached.getSizeBytes()) {
                            reached.getUploadBuilder()
                                    .setStorageId(reached.getStorageId())
                                    .setSizeBytes(reached.getSizeBytes());
                        }
                        uploads.put(reached.getStorageId(), reached.build());
                        answer(answers, reached.build());
                    }
                }
            };
        }

        /** Stores the first chunk, and says nothing of it. */
        private StreamObserver<AppendUploadRequest> silent(
                ServerCallStreamObserver<UploadProgress> answers, Silence silence) {
            if (silence == Silence.READS_NO_MORE) {
                answers.disableAutoRequest();
                answers.request(1);
            }
            return new Sink<>() {
                @Override
                public void onNext(AppendUploadRequest message) {
                    if (message.hasOffset()) {
                        begun.add(message.getOffset());
                        UploadProgress.Builder reached =
                                uploads.get(message.getStorageId()).toBuilder();
                        reached.setOffset(message.getBody().getData().size());
                        uploads.put(reached.getStorageId(), reached.build());
                    }
                }

                @Override
                public void onCompleted() {
                    // Nobody hears of it.
                }
            };
        }

        @Override
        public void getUploadProgress(GetUploadProgressRequest request, StreamObserver<UploadProgress> answers) {
            if (!refusedQuestions.isEmpty()) {
                answers.onError(refusedQuestions.remove());
                return;
            }
            answer(answers, uploads.get(request.getStorageId()));
        }

        @Override
        public void deleteUpload(DeleteUploadRequest request, StreamObserver<Empty> answers) {
            removed.add(request.getStorageId());
            answer(answers, Empty.getDefaultInstance());
        }
    }

    /** How a service stops talking, in the middle of a piece or at its end. */
    private enum Silence {
        READS_NO_MORE,
        DOES_NOT_ANSWER
    }

    private final class Inferred extends InferenceServiceGrpc.InferenceServiceImplBase {
        @Override
        public void infer(InferRequest request, StreamObserver<InferResponse> answers) {
            inferred.add(request.getImage().getStorageId());
            answer(answers, InferResponse.newBuilder().setModel(request.getModel()).build());
        }
    }

    private final class Jobs extends JobServiceGrpc.JobServiceImplBase {
        @Override
        public void createJob(CreateJobRequest request, StreamObserver<CreateJobResponse> answers) {
            jobs.add(request);
            answer(answers, CreateJobResponse.getDefaultInstance());
        }
    }

    private static final class Keys implements ServerInterceptor {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            String key = headers.get(Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER));
            return Contexts.interceptCall(Context.current().withValue(KEY, key), call, headers, next);
        }
    }

    /** Takes what a caller streams, who may leave. */
    private abstract static class Sink<Q> implements StreamObserver<Q> {
        @Override
        public void onError(Throwable left) {
            // Nothing is kept of it.
        }
    }
}
