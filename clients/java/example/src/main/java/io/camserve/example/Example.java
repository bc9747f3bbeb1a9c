package io.camserve.example;

import com.sun.net.httpserver.HttpServer;
import io.camserve.client.Backoff;
import io.camserve.client.CamserveClient;
import io.camserve.client.CamserveException;
import io.camserve.client.Image;
import io.camserve.client.InferOptions;
import io.camserve.client.Input;
import io.camserve.client.JobHandle;
import io.camserve.client.Webhooks;
import io.camserve.v1.BatchItem;
import io.camserve.v1.InferResponse;
import io.camserve.v1.Job;
import io.camserve.v1.JobItem;
import io.camserve.v1.Upload;
import io.camserve.v1.Webhook;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;

/**
 * What a caller does, one thing after another: {@code infer PHOTO HEATMAP}, {@code upload PHOTO}, {@code batch
 * PHOTO...}, {@code job PORT PHOTO...} and {@code refused PHOTO}. The address comes from {@code CAM_ADDRESS}, the token
 * from {@code CAM_TOKEN}, authorities of one's own from {@code CAM_CA}.
 */
public final class Example {
    private Example() {}

    /** Does what the first argument names. */
    public static void main(String[] arguments) throws Exception {
        String address = System.getenv().getOrDefault("CAM_ADDRESS", "grpc://127.0.0.1:50051");
        CamserveClient.Builder builder = CamserveClient.at(address)
                .token(System.getenv("CAM_TOKEN"))
                .timeout(Duration.ofMinutes(2))
                .backoff(new Backoff(Duration.ofMillis(500), 2, Duration.ofSeconds(30)));
        if (System.getenv("CAM_CA") != null) {
            builder.authorities(Path.of(System.getenv("CAM_CA")));
        }
        try (CamserveClient client = builder.build()) {
            List<Path> paths = Arrays.stream(arguments)
                    .skip(arguments[0].equals("job") ? 2 : 1)
                    .map(Path::of)
                    .toList();
            switch (arguments[0]) {
                case "infer" -> infer(client, paths.get(0), paths.get(1));
                case "upload" -> upload(client, paths.get(0));
                case "batch" -> batch(client, paths);
                case "job" -> job(client, Integer.parseInt(arguments[1]), paths);
                case "refused" -> refused(client, paths.get(0));
                default -> throw new IllegalArgumentException(arguments[0]);
            }
        }
    }

    private static void infer(CamserveClient client, Path photo, Path heatmap) throws IOException {
        InferResponse answer =
                client.infer(Image.file(photo), InferOptions.of("shapes").withTopK(3).withCam());
        answer.getClassesList().forEach(one -> System.out.printf("%s %.4f%n", one.getLabel(), one.getProb()));
        Files.write(heatmap, answer.getHeatmap().getDataB64().toByteArray());
    }

    private static void upload(CamserveClient client, Path photo) {
        Image.Content image = Image.file(photo);
        Upload stored = client.upload(
                image,
                progress -> System.out.printf("%d of %d bytes%n", progress.sentBytes(), progress.totalBytes()));
        System.out.printf("%s %s%n", stored.getStorageId(), stored.getSha256());
    }

    private static void batch(CamserveClient client, List<Path> photos) {
        List<Input> inputs = photos.stream()
                .map(photo -> new Input(photo.getFileName().toString(), Image.file(photo)))
                .toList();
        client.inferBatch(inputs, InferOptions.of("shapes"), Example::print);
    }

    private static void print(BatchItem item) {
        String outcome = item.hasResult()
                ? item.getResult().getClasses(0).getLabel()
                : item.getError().getCode();
        System.out.printf("%s %s%n", item.getId(), outcome);
    }

    private static void job(CamserveClient client, int port, List<Path> photos) throws Exception {
        CompletableFuture<String> secret = new CompletableFuture<>();
        CompletableFuture<Webhooks.Event> told = new CompletableFuture<>();
        HttpServer receiver = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        receiver.createContext("/events", exchange -> {
            byte[] body = exchange.getRequestBody().readAllBytes();
            int status = 204;
            try {
                told.complete(Webhooks.verify(exchange.getRequestHeaders(), body, secret.join()));
            } catch (CamserveException forged) {
                status = forged.status();
            }
            exchange.sendResponseHeaders(status, -1);
            exchange.close();
        });
        receiver.start();
        try {
            Webhook webhook = client.createWebhook("http://127.0.0.1:" + port + "/events", "job.succeeded");
            secret.complete(webhook.getSecret());
            List<Input> inputs = photos.stream()
                    .map(photo -> new Input(photo.getFileName().toString(), Image.file(photo)))
                    .toList();
            JobHandle job = client.submit(inputs, InferOptions.of("shapes"), request -> request.setTtlHours(1));
            Job ended = job.await(Duration.ofMinutes(5), now -> System.out.println(now.getStatus()));
            for (JobItem item : job.results()) {
                System.out.printf("%s %s%n", item.getId(), item.getResult().getClasses(0).getLabel());
            }
            Webhooks.Event event = told.join();
            System.out.printf(
                    "%s %s %d%n", event.event(), event.jobId().equals(ended.getJobId()), event.itemsSucceeded());
        } finally {
            receiver.stop(0);
        }
    }

    private static void refused(CamserveClient client, Path photo) {
        try {
            client.infer(Image.file(photo), InferOptions.of("none").withIdempotencyKey("order-7"));
        } catch (CamserveException refused) {
            System.out.printf("%s %d %s%n", refused.code(), refused.status(), refused.requestId().orElseThrow());
        }
    }
}
