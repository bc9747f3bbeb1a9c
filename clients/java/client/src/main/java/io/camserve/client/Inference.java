package io.camserve.client;

import com.google.api.HttpBody;
import com.google.protobuf.ByteString;
import io.camserve.v1.BatchResult;
import io.camserve.v1.ImageInput;
import io.camserve.v1.InferRequest;
import io.camserve.v1.InferResponse;
import io.camserve.v1.InferUploadRequest;
import io.camserve.v1.InferenceServiceGrpc;
import io.camserve.v1.Job;
import io.camserve.v1.JobItem;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.Optional;

/** One image: sent within a message, as a stream or uploaded first, and waited for when it became a job. */
final class Inference {
    private static final long INLINE_BYTES = 1 << 20;

    /** What is larger becomes a job anyway, and is worth an upload that survives broken connections. */
    private static final long STREAMED_BYTES = 20_000_000;

    private final Calls calls;
    private final Uploads uploads;
    private final Links links;

    Inference(Calls calls, Uploads uploads, Links links) {
        this.calls = calls;
        this.uploads = uploads;
        this.links = links;
    }

    InferResponse infer(Image image, InferOptions options) {
        if (!(image instanceof Image.Content content) || content.sizeBytes() <= INLINE_BYTES) {
            return done(sent(image, options), options);
        }
        if (content.sizeBytes() <= STREAMED_BYTES) {
            return done(streamed(content, options), options);
        }
        String storageId = uploads.upload(content, options.idempotencyKey(), options.onProgress())
                .getStorageId();
        try {
            return done(sent(Image.stored(storageId), options), options);
        } finally {
            if (options.idempotencyKey().isEmpty()) {
                // Under a key of the caller's own it stays: the same call names the same upload again.
                uploads.remove(storageId);
            }
        }
    }

    /** Returns an image as a message carries it. */
    static ImageInput input(Image image) {
        ImageInput.Builder input = ImageInput.newBuilder();
        if (image instanceof Image.Url one) {
            return input.setUrl(one.url()).build();
        }
        if (image instanceof Image.Stored one) {
            return input.setStorageId(one.storageId()).build();
        }
        try (InputStream stream = ((Image.Content) image).open(0)) {
            return input.setBytes(ByteString.readFrom(stream)).build();
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    private InferResponse sent(Image image, InferOptions options) {
        InferRequest request = InferRequest.newBuilder()
                .setModel(options.model())
                .setModelVersion(options.version())
                .setImage(input(image))
                .setGradCam(options.cam())
                .setClassify(options.classify())
                .setResponse(options.response())
                .build();
        Duration within = options.timeout().orElse(calls.timeout);
        return calls.write(InferenceServiceGrpc.getInferMethod(), request, options.idempotencyKey(), within);
    }

    private InferResponse streamed(Image.Content image, InferOptions options) {
        long size = image.sizeBytes();
        InferUploadRequest first = InferUploadRequest.newBuilder()
                .setModel(options.model())
                .setModelVersion(options.version())
                .setGradCam(options.cam())
                .setClassify(options.classify())
                .setResponse(options.response())
                .setSizeBytes(size)
                .build();
        Calls.Sending<InferUploadRequest> sending = new Calls.Sending<>(
                image,
                0,
                size,
                (chunk, offset) -> {
                    HttpBody.Builder body =
                            HttpBody.newBuilder().setContentType(Calls.UNTYPED).setData(chunk);
                    return (offset == 0 ? first.toBuilder() : InferUploadRequest.newBuilder())
                            .setBody(body)
                            .build();
                },
                sent -> options.onProgress().accept(new Progress(sent, size, Optional.empty())));
        return calls.upload(
                InferenceServiceGrpc.getInferUploadMethod(), sending, options.idempotencyKey(), options.timeout());
    }

    private InferResponse done(InferResponse answer, InferOptions options) {
        if (!answer.hasJobId() && answer.getModel().isEmpty()) {
            // Classes may all be less probable than was asked for; a model always answers.
            throw new CamserveException(CamserveException.ANSWER_INVALID, 0, "The answer is empty.", null);
        }
        InferResponse whole = answer.hasJobId() ? ofJob(answer) : answer;
        if (!whole.hasHeatmap() || options.placement().equals("url")) {
            return whole;
        }
        // Also one too large to come within the answer.
        return whole.toBuilder().setHeatmap(links.fetched(whole.getHeatmap())).build();
    }

    private InferResponse ofJob(InferResponse receipt) {
        JobHandle job = new JobHandle(calls, receipt.getJobId());
        Job ended = job.await(JobHandle.WITHOUT_END, changed -> {});
        for (JobItem item : job.results()) {
            if (item.hasError()) {
                throw Refusals.of(item.getError());
            }
            if (item.hasResult()) {
                BatchResult result = item.getResult();
                InferResponse.Builder answer = receipt.toBuilder()
                        .setModel(ended.getModel())
                        .setModelVersion(result.getModelVersion())
                        .setLabelsVersion(result.getLabelsVersion())
                        .setCalibrationVersion(result.getCalibrationVersion())
                        .setTimingsMs(result.getTimingsMs())
                        .setImage(result.getImage())
                        .addAllClasses(result.getClassesList());
                if (result.hasHeatmap()) {
                    answer.setHeatmap(result.getHeatmap());
                }
                if (result.hasContentSha256()) {
                    answer.setContentSha256(result.getContentSha256());
                }
                return answer.build();
            }
        }
        String message = "The job " + job.id() + " is " + ended.getStatus() + " and has no result.";
        throw new CamserveException(CamserveException.ANSWER_INVALID, 0, message, null);
    }
}
