package io.camserve.client;

import io.camserve.v1.BatchEvent;
import io.camserve.v1.BatchInput;
import io.camserve.v1.BatchItem;
import io.camserve.v1.BatchResult;
import io.camserve.v1.CreateJobRequest;
import io.camserve.v1.ErrorObject;
import io.camserve.v1.GetLimitsRequest;
import io.camserve.v1.InferBatchRequest;
import io.camserve.v1.InferenceServiceGrpc;
import io.camserve.v1.JobServiceGrpc;
import io.camserve.v1.LimitServiceGrpc;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Consumer;

/** Many images: what fits goes within the request, what is large is uploaded first. */
final class Batches {
    /** The same as over REST, where a request of JSON has 20 MB and images are a third larger in it. */
    private static final long INLINE_BYTES = 12_000_000;

    private static final long LARGEST_INLINE_BYTES = 8 << 20;
    private static final int CHUNK_IMAGES = 64;

    private final Calls calls;
    private final Uploads uploads;
    private final Links links;

    Batches(Calls calls, Uploads uploads, Links links) {
        this.calls = calls;
        this.uploads = uploads;
        this.links = links;
    }

    void infer(Iterable<Input> inputs, InferOptions options, Consumer<BatchItem> onItem) {
        int most = Math.max(1, Math.min(CHUNK_IMAGES, mostImages()));
        Set<String> names = new HashSet<>();
        List<Input> group = new ArrayList<>();
        long inlineBytes = 0;
        for (Input input : inputs) {
            if (!names.add(input.id())) {
                throw duplicate();
            }
            if (group.size() == most || (!group.isEmpty() && inlineBytes + inlineBytes(input) > INLINE_BYTES)) {
                inferGroup(group, options, onItem);
                group.clear();
                inlineBytes = 0;
            }
            group.add(input);
            inlineBytes += inlineBytes(input);
        }
        if (!group.isEmpty()) {
            inferGroup(group, options, onItem);
        }
    }

    JobHandle submit(Iterable<Input> inputs, InferOptions options, Consumer<CreateJobRequest.Builder> refine) {
        Set<String> names = new HashSet<>();
        List<String> uploaded = new ArrayList<>();
        try {
            CreateJobRequest.Builder request = CreateJobRequest.newBuilder()
                    .setModel(options.model())
                    .setModelVersion(options.version())
                    .setResponse(options.response());
            long inlineBytes = 0;
            for (Input input : inputs) {
                if (!names.add(input.id())) {
                    throw duplicate();
                }
                // Each image of a request has a key of its own.
                Optional<String> key = options.idempotencyKey().map(whole -> sha256(whole + " " + input.id()));
                BatchInput message = prepared(input, options, key, inlineBytes, uploaded);
                inlineBytes += message.getImage().getBytes().size();
                request.addInputs(message);
            }
            refine.accept(request);
            return new JobHandle(
                    calls,
                    calls.write(
                                    JobServiceGrpc.getCreateJobMethod(),
                                    request.build(),
                                    options.idempotencyKey(),
                                    options.timeout().orElse(calls.timeout))
                            .getJobId());
        } finally {
            // The job keeps its own copy.
            uploaded.forEach(uploads::remove);
        }
    }

    private void inferGroup(List<Input> group, InferOptions options, Consumer<BatchItem> onItem) {
        List<String> uploaded = new ArrayList<>();
        try {
            Map<String, BatchInput> waiting = new LinkedHashMap<>();
            long inlineBytes = 0;
            for (Input input : group) {
                try {
                    BatchInput message = prepared(input, options, Optional.empty(), inlineBytes, uploaded);
                    inlineBytes += message.getImage().getBytes().size();
                    waiting.put(input.id(), message);
                } catch (CamserveException refused) {
                    CallbackException.guard(onItem, failed(input.id(), refused));
                }
            }
            answers(waiting, options, onItem);
        } finally {
            uploaded.forEach(uploads::remove);
        }
    }

    /**
     * Tells the outcome of every input, each once. After a broken stream those without one are sent again: a batch
     * takes no key and leaves nothing behind, so to classify an image twice harms nobody but the quota.
     */
    private void answers(Map<String, BatchInput> waiting, InferOptions options, Consumer<BatchItem> onItem) {
        Retries.Tries tries = calls.retries.started(calls.timeout);
        while (!waiting.isEmpty()) {
            InferBatchRequest request = InferBatchRequest.newBuilder()
                    .setModel(options.model())
                    .setModelVersion(options.version())
                    .setResponse(options.response())
                    .addAllInputs(waiting.values())
                    .build();
            CamserveException broken = new CamserveException(
                    CamserveException.CONNECTION_FAILED, 0, "The stream ended early.", null);
            try {
                calls.<InferBatchRequest, BatchEvent>stream(
                        InferenceServiceGrpc.getInferBatchMethod(), request, Optional.empty(), event -> {
                            if (event.hasError()) {
                                throw Refusals.of(event.getError());
                            }
                            if (waiting.containsKey(event.getItem().getId())) {
                                // It waits until all of it is here.
                                BatchItem item = whole(event.getItem(), options);
                                waiting.remove(item.getId());
                                tries.restart();
                                CallbackException.guard(onItem, item);
                            }
                        });
            } catch (CamserveException refused) {
                broken = refused;
            }
            if (!waiting.isEmpty()) {
                tries.pauseAfter(broken);
            }
        }
    }

    private BatchInput prepared(
            Input input, InferOptions options, Optional<String> key, long inlineBytes, List<String> uploaded) {
        Image image = input.image();
        if (image instanceof Image.Content content
                && content.sizeBytes() > Math.min(LARGEST_INLINE_BYTES, INLINE_BYTES - inlineBytes)) {
            String storageId = uploads.upload(content, key, progress -> {}).getStorageId();
            if (key.isEmpty()) {
                // Under a key of the caller's own it stays: the same request names the same upload again.
                uploaded.add(storageId);
            }
            image = Image.stored(storageId);
        }
        return BatchInput.newBuilder()
                .setId(input.id())
                .setImage(Inference.input(image))
                .setGradCam(options.cam())
                .setClassify(options.classify())
                .build();
    }

    /** Returns an item with the data of its heatmap, also of one too large to come within the stream. */
    private BatchItem whole(BatchItem item, InferOptions options) {
        if (!item.getResult().hasHeatmap() || options.placement().equals("url")) {
            return item;
        }
        BatchResult result = item.getResult();
        BatchResult fetched =
                result.toBuilder().setHeatmap(links.fetched(result.getHeatmap())).build();
        return item.toBuilder().setResult(fetched).build();
    }

    private int mostImages() {
        return calls.unary(LimitServiceGrpc.getGetLimitsMethod(), GetLimitsRequest.getDefaultInstance())
                .getMaxBatchSize();
    }

    private static long inlineBytes(Input input) {
        long size = input.image() instanceof Image.Content content ? content.sizeBytes() : 0;
        return size <= LARGEST_INLINE_BYTES ? size : 0;
    }

    private static CamserveException duplicate() {
        // Said here, where the service, which gets inputs by and by, would not notice.
        return new CamserveException("batch.duplicate_id", 400, "Two inputs of a batch have the same id.", null);
    }

    private static BatchItem failed(String id, CamserveException refused) {
        ErrorObject error = ErrorObject.newBuilder()
                .setCode(refused.code())
                .setStatus(refused.status())
                .setMessage(refused.getMessage())
                .setRequestId(refused.requestId().orElse(""))
                .build();
        return BatchItem.newBuilder()
                .setId(id)
                .setStatus(BatchItem.Status.failed)
                .setError(error)
                .build();
    }

    private static String sha256(String text) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            return HexFormat.of().formatHex(digest.digest(text.getBytes(StandardCharsets.UTF_8)));
        } catch (NoSuchAlgorithmException missing) {
            throw new IllegalStateException(missing);
        }
    }
}
