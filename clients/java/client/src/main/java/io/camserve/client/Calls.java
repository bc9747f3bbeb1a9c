package io.camserve.client;

import com.google.protobuf.ByteString;
import com.google.protobuf.UnsafeByteOperations;
import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientInterceptors;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.StatusException;
import io.grpc.stub.BlockingClientCall;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.MetadataUtils;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Optional;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.function.Consumer;
import java.util.function.LongConsumer;

/** Makes calls as everything above makes them: with a token, under a key, and again when that may help. */
final class Calls {
    static final String UNTYPED = "application/octet-stream";

    /** The slowest network that still counts as one. */
    private static final long SLOWEST_BYTES_S = 64 << 10;

    private static final int CHUNK_BYTES = 256 << 10;

    /** A heartbeat comes every 15 seconds. */
    private static final long IDLE_S = 45;

    private static final Metadata.Key<String> KEY =
            Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER);

    final Retries retries;
    final Duration timeout;
    private final Duration idle;
    private final ManagedChannel connection;
    private final Channel channel;

    /** {@code idle} is for how long an upload may move no byte, or wait for its answer, in one attempt. */
    Calls(ManagedChannel connection, Channel channel, Retries retries, Duration timeout, Duration idle) {
        this.connection = connection;
        this.channel = channel;
        this.retries = retries;
        this.timeout = timeout;
        this.idle = idle;
    }

    /** Returns the answer of a call that changes nothing twice: a read or a removal. */
    <Q, A> A unary(MethodDescriptor<Q, A> method, Q request) {
        return unary(method, request, timeout);
    }

    <Q, A> A unary(MethodDescriptor<Q, A> method, Q request, Duration within) {
        return retries.run(within, tries -> unaryOnce(channel, method, request, tries.left()));
    }

    /** Returns the answer of a write, made under one key in all its attempts. */
    <Q, A> A write(MethodDescriptor<Q, A> method, Q request, Optional<String> key, Duration within) {
        Channel keyed = keyed(key);
        return retries.run(within, tries -> unaryOnce(keyed, method, request, tries.left()));
    }

    /** Streams an image under one key in all its attempts, and returns the answer. */
    <Q, A> A upload(
            MethodDescriptor<Q, A> method, Sending<Q> sending, Optional<String> key, Optional<Duration> within) {
        Channel keyed = keyed(key);
        Duration enough = within.orElse(timeout.plus(transfer(sending.end - sending.begin)));
        return retries.run(enough, tries -> uploadOnce(keyed, method, sending, tries.left()));
    }

    /** Streams a part of an image in a single attempt, without a key. */
    <Q, A> A uploadOnce(MethodDescriptor<Q, A> method, Sending<Q> sending, Duration within) {
        return uploadOnce(channel, method, sending, within);
    }

    /** Tells the messages of a single attempt; returns once the stream has ended. */
    <Q, A> void stream(MethodDescriptor<Q, A> method, Q request, Optional<Duration> within, Consumer<A> onMessage) {
        CallOptions options = within.map(Calls::options).orElse(CallOptions.DEFAULT);
        BlockingClientCall<Q, A> call = ClientCalls.blockingV2ServerStreamingCall(channel, method, options, request);
        try {
            A message;
            while ((message = call.read(IDLE_S, TimeUnit.SECONDS)) != null) {
                onMessage.accept(message);
            }
        } catch (StatusException refused) {
            throw refusal(refused);
        } catch (TimeoutException silent) {
            String message = "The stream said nothing for " + IDLE_S + " s.";
            throw new CamserveException(CamserveException.CONNECTION_FAILED, 0, message, silent);
        } catch (InterruptedException interrupted) {
            throw CamserveException.interrupted(interrupted);
        } finally {
            call.cancel("The stream is not read any further.", null);
        }
    }

    /** Returns how long bytes may take on the slowest network. */
    static Duration transfer(long bytes) {
        return Duration.ofSeconds(bytes / SLOWEST_BYTES_S);
    }

    private <Q, A> A unaryOnce(Channel through, MethodDescriptor<Q, A> method, Q request, Duration within) {
        try {
            return ClientCalls.blockingV2UnaryCall(through, method, options(within), request);
        } catch (StatusException refused) {
            throw refusal(refused);
        }
    }

    private <Q, A> A uploadOnce(Channel through, MethodDescriptor<Q, A> method, Sending<Q> sending, Duration within) {
        BlockingClientCall<Q, A> call = ClientCalls.blockingClientStreamingCall(through, method, options(within));
        try (InputStream image = sending.image.open(sending.begin)) {
            long offset = sending.begin;
            boolean goesOn = true;
            do {
                int count = (int) Math.min(CHUNK_BYTES, sending.end - offset);
                byte[] chunk = image.readNBytes(count);
                if (chunk.length < count) {
                    throw new EOFException("the image became shorter while it was read");
                }
                // Waits while the network is slower than the disk, so that one chunk is in memory, not all.
                Q message = sending.framing.frame(UnsafeByteOperations.unsafeWrap(chunk), offset);
                goesOn = call.write(message, idle.toNanos(), TimeUnit.NANOSECONDS);
                offset += count;
                sending.sent.accept(offset);
            } while (goesOn && offset < sending.end);
            call.halfClose();
            return call.read(idle.toNanos(), TimeUnit.NANOSECONDS);
        } catch (StatusException refused) {
            throw refusal(refused);
        } catch (TimeoutException silent) {
            String message = "The upload did not move for " + idle.toSeconds() + " s.";
            throw new CamserveException(CamserveException.CONNECTION_FAILED, 0, message, silent);
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        } catch (InterruptedException interrupted) {
            throw CamserveException.interrupted(interrupted);
        } finally {
            call.cancel("The upload is over.", null);
        }
    }

    private CamserveException refusal(StatusException refused) {
        CamserveException made = Refusals.of(refused);
        if (made.code().equals(CamserveException.CONNECTION_FAILED)) {
            // Attempts are counted in one place: else the channel would wait up to two minutes by itself.
            connection.resetConnectBackoff();
        }
        return made;
    }

    private Channel keyed(Optional<String> key) {
        String made = key.orElseGet(() -> UUID.randomUUID().toString());
        if (!made.matches("[!-~]{1,255}")) {
            // Said here, since what no header can carry would never come to the service.
            String message = "A key is 1 to 255 visible ASCII characters.";
            throw new CamserveException("idempotency.key_invalid", 400, message, null);
        }
        Metadata headers = new Metadata();
        headers.put(KEY, made);
        return ClientInterceptors.intercept(channel, MetadataUtils.newAttachHeadersInterceptor(headers));
    }

    private static CallOptions options(Duration within) {
        return CallOptions.DEFAULT.withDeadlineAfter(within.toNanos(), TimeUnit.NANOSECONDS);
    }

    /** Makes the message that carries a chunk of an image, which begins at a byte. */
    interface Framing<Q> {
        Q frame(ByteString chunk, long offset);
    }

    /** The bytes of an image to stream, from {@code begin} to before {@code end}; {@code sent} is told how far. */
    record Sending<Q>(Image.Content image, long begin, long end, Framing<Q> framing, LongConsumer sent) {}
}
