package io.camserve.client;

import io.camserve.v1.BatchItem;
import io.camserve.v1.CreateJobRequest;
import io.camserve.v1.CreateWebhookRequest;
import io.camserve.v1.Heatmap;
import io.camserve.v1.InferResponse;
import io.camserve.v1.Upload;
import io.camserve.v1.Webhook;
import io.camserve.v1.WebhookServiceGrpc;
import io.grpc.Channel;
import io.grpc.ChannelCredentials;
import io.grpc.ClientInterceptors;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.TimeUnit;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * Calls the service over gRPC, at its own port or through the edge. One client is meant to be kept and shared by all
 * threads: its connection is reused.
 *
 * <p>Every failure is a {@link CamserveException}. A call is tried again, with the pauses of a {@link Backoff}, for as
 * long as its timeout allows, where that may help and is safe: reads, and writes, each of which has an idempotency key
 * that is the same in all its attempts.
 */
public final class CamserveClient implements AutoCloseable {
    private static final int MOST_BYTES = 64 << 20;
    private static final long CLOSED_WITHIN_S = 5;

    private final ManagedChannel connection;
    private final Channel channel;
    private final Calls calls;
    private final Uploads uploads;
    private final Links links;

    private CamserveClient(Builder built) {
        Address address = Address.parse(built.address);
        connection = Grpc.newChannelBuilder(address.target(), credentials(address, built.authorities))
                // Attempts are counted in one place, which knows keys and deadlines.
                .disableRetry()
                .maxInboundMessageSize(MOST_BYTES)
                .userAgent("camserve-java")
                .build();
        channel = ClientInterceptors.intercept(connection, new TokenInterceptor(built.token));
        Retries retries = new Retries(
                built.backoff, built.clock, () -> ThreadLocalRandom.current().nextDouble());
        calls = new Calls(connection, channel, retries, built.timeout, built.idle);
        uploads = new Uploads(calls);
        links = new Links(calls);
    }

    /**
     * Returns a builder of clients of a service.
     *
     * @param address {@code grpc://host:port}, {@code grpcs://host:port} (encrypted) or {@code host:port} (encrypted
     *     unless the host is this machine)
     */
    public static Builder at(String address) {
        return new Builder(address);
    }

    /**
     * Returns the classes of an image and, if asked for, its heatmap.
     *
     * <p>A small image goes within the message, a larger one as a stream, one above 20 MB by an upload that survives
     * broken connections; what the service makes a job of is waited for, and the answer then has a {@code job_id}.
     */
    public InferResponse infer(Image image, InferOptions options) {
        InferOptions telling = options.withProgress(guarded(options.onProgress()));
        return CallbackException.unwrapped(() -> new Inference(calls, uploads, links).infer(image, telling));
    }

    /**
     * Tells the outcome of every image as it is finished, in any order; returns when all are. Inputs are read as they
     * are sent, so there may be any number; one that fails is an item with an error.
     */
    public void inferBatch(Iterable<Input> inputs, InferOptions options, Consumer<BatchItem> onItem) {
        CallbackException.unwrapped(() -> {
            new Batches(calls, uploads, links).infer(inputs, options, onItem);
            return null;
        });
    }

    /** Creates a job of up to 256 images, which goes on without the caller. */
    public JobHandle submit(Iterable<Input> inputs, InferOptions options) {
        return submit(inputs, options, request -> {});
    }

    /** Creates a job; {@code refine} sets more of the request: metadata, time to live, callback. */
    public JobHandle submit(
            Iterable<Input> inputs, InferOptions options, Consumer<CreateJobRequest.Builder> refine) {
        return new Batches(calls, uploads, links).submit(inputs, options, refine);
    }

    /** Returns a job that the caller knows of. */
    public JobHandle job(String jobId) {
        return new JobHandle(calls, jobId);
    }

    /**
     * Stores an image, of which a small part is in memory at a time. Above 4 MiB it goes in pieces, and goes on where a
     * broken connection left it. Throws CamserveException when it is refused, or when nothing moved for 150 s.
     */
    public Upload upload(Image.Content image, Consumer<Progress> onProgress) {
        return CallbackException.unwrapped(() -> uploads.upload(image, Optional.empty(), guarded(onProgress)));
    }

    /** Goes on with an upload that another client or program began; its id came with the progress. */
    public Upload resume(Image.Content image, String storageId, Consumer<Progress> onProgress) {
        return CallbackException.unwrapped(() -> uploads.resume(image, storageId, guarded(onProgress)));
    }

    /** Returns the heatmap with its data, read from its link where it did not come with the answer. */
    public Heatmap fetch(Heatmap heatmap) {
        return links.fetched(heatmap);
    }

    /** Registers a webhook; its secret is in this answer only. Events: none for all. */
    public Webhook createWebhook(String url, String... events) {
        CreateWebhookRequest request = CreateWebhookRequest.newBuilder()
                .setUrl(url)
                .addAllEvents(Arrays.asList(events))
                .build();
        return calls.write(WebhookServiceGrpc.getCreateWebhookMethod(), request, Optional.empty(), calls.timeout);
    }

    /** Returns the connection with the caller's token, for the generated stubs of {@link io.camserve.v1}. */
    public Channel channel() {
        return channel;
    }

    /**
     * Ends the connection, and calls that still run after five seconds. Those that wait for another attempt, and those
     * made later, fail at once ({@code client.closed}).
     */
    @Override
    public void close() {
        calls.retries.close();
        connection.shutdown();
        try {
            if (!connection.awaitTermination(CLOSED_WITHIN_S, TimeUnit.SECONDS)) {
                connection.shutdownNow();
            }
        } catch (InterruptedException interrupted) {
            connection.shutdownNow();
            Thread.currentThread().interrupt();
        }
    }

    private static <T> Consumer<T> guarded(Consumer<T> callback) {
        return told -> CallbackException.guard(callback, told);
    }

    private static ChannelCredentials credentials(Address address, Path authorities) {
        if (!address.tls()) {
            return InsecureChannelCredentials.create();
        }
        if (authorities == null) {
            return TlsChannelCredentials.create();
        }
        try {
            return TlsChannelCredentials.newBuilder()
                    .trustManager(authorities.toFile())
                    .build();
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    /** Collects how a client works. */
    public static final class Builder {
        private final String address;
        private Supplier<String> token;
        private Path authorities;
        private Duration timeout = Duration.ofSeconds(60);
        /** An upload that moves no byte for so long is over, even if its connection does not say so. */
        private Duration idle = Duration.ofSeconds(60);

        private Backoff backoff = Backoff.DEFAULT;
        private Retries.Clock clock = Retries.Clock.SYSTEM;

        private Builder(String address) {
            this.address = address;
        }

        /** Signs in with a token (a JWT). */
        public Builder token(String jwt) {
            return token(() -> jwt);
        }

        /** Signs in with a token that is asked for at every attempt, on any thread. */
        public Builder token(Supplier<String> jwt) {
            token = jwt;
            return this;
        }

        /** Trusts these certificate authorities (PEM) instead of Java's own. */
        public Builder authorities(Path pem) {
            authorities = pem;
            return this;
        }

        /** Limits the time of a call with all its attempts, 60 s by default. */
        public Builder timeout(Duration limit) {
            timeout = limit;
            return this;
        }

        /** Chooses the pauses between attempts. */
        public Builder backoff(Backoff pauses) {
            backoff = pauses;
            return this;
        }

        Builder idle(Duration limit) {
            idle = limit;
            return this;
        }

        Builder clock(Retries.Clock other) {
            clock = other;
            return this;
        }

        /** Returns the client; throws IllegalArgumentException for an address that is none. */
        public CamserveClient build() {
            return new CamserveClient(this);
        }
    }
}
