package io.camserve.example;

import com.google.protobuf.ByteString;
import io.camserve.client.CamserveClient;
import io.camserve.client.Image;
import io.camserve.client.InferOptions;
import io.camserve.v1.GradCAMOptions;
import io.camserve.v1.ImageInput;
import io.camserve.v1.InferRequest;
import io.camserve.v1.InferenceServiceGrpc;
import io.camserve.v1.InferenceServiceGrpc.InferenceServiceBlockingV2Stub;
import io.camserve.v1.ResponseOptions;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.stub.MetadataUtils;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.stream.IntStream;

/**
 * Makes calls of a running service as its standard input says; {@code python -m benchmarks.clients} measures it
 * meanwhile.
 */
public final class Caller {
    private static final int AT_ONCE = 32;
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    private static final Metadata.Key<String> KEY =
            Metadata.Key.of("idempotency-key", Metadata.ASCII_STRING_MARSHALLER);

    private Caller() {}

    /** Does what each line says, and answers it with a line. */
    public static void main(String[] arguments) throws Exception {
        String address = System.getenv("CAM_ADDRESS");
        String token = System.getenv("CAM_TOKEN");
        byte[] picture = Files.readAllBytes(Path.of(System.getenv("CAM_PICTURE")));
        ManagedChannel channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create())
                .build();
        ExecutorService threads = Executors.newFixedThreadPool(AT_ONCE);
        try (CamserveClient client = CamserveClient.at(address).token(token).build();
                BufferedReader lines =
                        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            InferenceServiceBlockingV2Stub stub = InferenceServiceGrpc.newBlockingV2Stub(channel);
            Map<String, Callable<?>> calls = Map.of(
                    "raw", () -> raw(stub, token, picture),
                    "client",
                            () -> client.infer(
                                    Image.bytes(picture), InferOptions.of("shapes").withCam()));
            String line;
            while ((line = lines.readLine()) != null) {
                String[] words = line.split(" ", 2);
                if (words[0].equals("upload")) {
                    Image.Content image = Image.file(Path.of(words[1]));
                    System.out.println(client.upload(image, progress -> {}).getStorageId());
                } else {
                    repeat(threads, calls.get(words[0]), Integer.parseInt(words[1]));
                    System.out.println("done");
                }
            }
        } finally {
            threads.shutdownNow();
            channel.shutdownNow();
        }
    }

    private static Object raw(InferenceServiceBlockingV2Stub stub, String token, byte[] picture) throws Exception {
        InferRequest request = InferRequest.newBuilder()
                .setModel("shapes")
                .setImage(ImageInput.newBuilder().setBytes(ByteString.copyFrom(picture)))
                .setGradCam(GradCAMOptions.newBuilder().setEnabled(true))
                .setResponse(ResponseOptions.newBuilder().setHeatmap("inline"))
                .build();
        Metadata headers = new Metadata();
        headers.put(AUTHORIZATION, "Bearer " + token);
        headers.put(KEY, UUID.randomUUID().toString());
        return stub.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
                .withDeadlineAfter(60, TimeUnit.SECONDS)
                .infer(request);
    }

    /** Makes {@code count} calls, 32 at once; throws what one of them threw. */
    private static void repeat(ExecutorService threads, Callable<?> call, int count) throws Exception {
        AtomicInteger made = new AtomicInteger();
        Callable<Void> caller = () -> {
            while (made.incrementAndGet() <= count) {
                call.call();
            }
            return null;
        };
        List<Callable<Void>> callers =
                IntStream.range(0, AT_ONCE).mapToObj(number -> caller).toList();
        for (Future<Void> ended : threads.invokeAll(callers)) {
            ended.get();
        }
    }
}
