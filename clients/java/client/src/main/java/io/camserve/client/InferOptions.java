package io.camserve.client;

import io.camserve.v1.ClassificationOptions;
import io.camserve.v1.GradCAMOptions;
import io.camserve.v1.ResponseOptions;
import java.time.Duration;
import java.util.Optional;
import java.util.function.Consumer;

/**
 * What is asked of which model. Every method returns changed options and leaves these as they are.
 *
 * @param model the model's name
 * @param version a version or an alias
 * @param cam the heatmap; {@code enabled} is false for none
 * @param classify which classes are returned
 * @param placement {@code inline} for heatmaps with their data, {@code url} for signed links to them
 * @param idempotencyKey the caller's own key, 1 to 255 visible ASCII characters, under which what is uploaded for the call
 *     is kept; else each call makes one; not of a batch
 * @param timeout how long a call may take with all its attempts, else the client's; not of a batch or job
 * @param onProgress is told how far the image is sent, where it goes as a stream
 */
public record InferOptions(
        String model,
        String version,
        GradCAMOptions cam,
        ClassificationOptions classify,
        String placement,
        Optional<String> idempotencyKey,
        Optional<Duration> timeout,
        Consumer<Progress> onProgress) {

    /** Returns options for the stable version of a model: five classes, no heatmap. */
    public static InferOptions of(String model) {
        return new InferOptions(
                model,
                "stable",
                GradCAMOptions.getDefaultInstance(),
                ClassificationOptions.getDefaultInstance(),
                "inline",
                Optional.empty(),
                Optional.empty(),
                progress -> {});
    }

    /** Asks another version, or an alias. */
    public InferOptions withVersion(String changed) {
        return new InferOptions(model, changed, cam, classify, placement, idempotencyKey, timeout, onProgress);
    }

    /** Asks for a heatmap. */
    public InferOptions withCam() {
        return withCam(GradCAMOptions.getDefaultInstance());
    }

    /** Asks for a heatmap of this kind; {@code enabled} is set here. */
    public InferOptions withCam(GradCAMOptions changed) {
        GradCAMOptions enabled = changed.toBuilder().setEnabled(true).build();
        return new InferOptions(model, version, enabled, classify, placement, idempotencyKey, timeout, onProgress);
    }

    /** Asks for that many classes, 1 to 1000. */
    public InferOptions withTopK(int topK) {
        return withClassify(classify.toBuilder().setTopK(topK).build());
    }

    /** Chooses the classes. */
    public InferOptions withClassify(ClassificationOptions changed) {
        return new InferOptions(model, version, cam, changed, placement, idempotencyKey, timeout, onProgress);
    }

    /** Leaves heatmaps where they are: {@link CamserveClient#fetch} reads one later. */
    public InferOptions withLinks() {
        return new InferOptions(model, version, cam, classify, "url", idempotencyKey, timeout, onProgress);
    }

    /** Sets the key under which the call is made once, however often it is sent. */
    public InferOptions withIdempotencyKey(String key) {
        return new InferOptions(model, version, cam, classify, placement, Optional.of(key), timeout, onProgress);
    }

    /** Limits the time of the call with all its attempts. */
    public InferOptions withTimeout(Duration changed) {
        return new InferOptions(
                model, version, cam, classify, placement, idempotencyKey, Optional.of(changed), onProgress);
    }

    /** Tells how far the image is sent. */
    public InferOptions withProgress(Consumer<Progress> changed) {
        return new InferOptions(model, version, cam, classify, placement, idempotencyKey, timeout, changed);
    }

    ResponseOptions response() {
        return ResponseOptions.newBuilder().setHeatmap(placement).build();
    }
}
