package io.camserve.client;

import com.google.api.HttpBody;
import com.google.protobuf.ByteString;
import io.camserve.v1.AppendUploadRequest;
import io.camserve.v1.DeleteUploadRequest;
import io.camserve.v1.GetUploadProgressRequest;
import io.camserve.v1.GetUploadRequest;
import io.camserve.v1.StartUploadRequest;
import io.camserve.v1.Upload;
import io.camserve.v1.UploadImageRequest;
import io.camserve.v1.UploadProgress;
import io.camserve.v1.UploadServiceGrpc;
import java.time.Duration;
import java.util.Optional;
import java.util.function.Consumer;

/** Uploads: in one call where that is cheap, piece by piece where a broken connection would cost too much. */
final class Uploads {
    /** Up to this a second attempt from the beginning costs no more than asking how far the first one came. */
    private static final long WHOLE_BYTES = 4 << 20;

    private static final long PIECE_BYTES = 8 << 20;

    /** What one attempt at a piece may take beside its bytes. */
    private static final Duration PIECE_WITHIN = Duration.ofSeconds(60);

    /** Longer than the minute for which the edge still counts a connection that died without a word. */
    private static final Duration STALLED_AFTER = Duration.ofSeconds(150);

    private static final Duration REMOVED_WITHIN = Duration.ofSeconds(5);

    private final Calls calls;

    Uploads(Calls calls) {
        this.calls = calls;
    }

    Upload upload(Image.Content image, Consumer<Progress> onProgress) {
        if (image.sizeBytes() <= WHOLE_BYTES) {
            return whole(image, onProgress);
        }
        StartUploadRequest begun =
                StartUploadRequest.newBuilder().setSizeBytes(image.sizeBytes()).build();
        UploadProgress started =
                calls.write(UploadServiceGrpc.getStartUploadMethod(), begun, Optional.empty(), calls.timeout);
        return pieces(image, started, onProgress);
    }

    Upload resume(Image.Content image, String storageId, Consumer<Progress> onProgress) {
        UploadProgress reached = progress(storageId);
        if (reached.getSizeBytes() != image.sizeBytes()) {
            throw new IllegalArgumentException("the upload is of " + reached.getSizeBytes() + " bytes, the image has "
                    + image.sizeBytes());
        }
        return pieces(image, reached, onProgress);
    }

    /** Removes an upload that was made for one call; one that stays goes by itself when its time is over. */
    void remove(String storageId) {
        DeleteUploadRequest request =
                DeleteUploadRequest.newBuilder().setStorageId(storageId).build();
        try {
            calls.unary(UploadServiceGrpc.getDeleteUploadMethod(), request, REMOVED_WITHIN);
        } catch (CamserveException stays) {
            return;
        }
    }

    private Upload whole(Image.Content image, Consumer<Progress> onProgress) {
        long size = image.sizeBytes();
        Calls.Sending<UploadImageRequest> sending = new Calls.Sending<>(
                image,
                0,
                size,
                (chunk, offset) -> {
                    UploadImageRequest.Builder message = UploadImageRequest.newBuilder().setBody(body(chunk));
                    return (offset == 0 ? message.setSizeBytes(size) : message).build();
                },
                sent -> onProgress.accept(new Progress(sent, size, Optional.empty())));
        return calls.upload(
                UploadServiceGrpc.getUploadImageMethod(), sending, Optional.empty(), Optional.empty());
    }

    /** Sends the rest of an upload, and goes on where it broke off. */
    private Upload pieces(Image.Content image, UploadProgress from, Consumer<Progress> onProgress) {
        String storageId = from.getStorageId();
        UploadProgress reached = from;
        Retries.Tries tries = calls.retries.started(STALLED_AFTER);
        while (reached.getOffset() < image.sizeBytes()) {
            long offset = reached.getOffset();
            reached = piece(image, storageId, offset, tries, onProgress);
            if (reached.getOffset() > offset) {
                tries.restart();
            }
            onProgress.accept(new Progress(reached.getOffset(), image.sizeBytes(), Optional.of(storageId)));
        }
        if (reached.hasUpload()) {
            return reached.getUpload();
        }
        GetUploadRequest request =
                GetUploadRequest.newBuilder().setStorageId(storageId).build();
        return calls.unary(UploadServiceGrpc.getGetUploadMethod(), request);
    }

    private UploadProgress piece(
            Image.Content image, String storageId, long begin, Retries.Tries tries, Consumer<Progress> onProgress) {
        long size = image.sizeBytes();
        long end = Math.min(begin + PIECE_BYTES, size);
        Calls.Sending<AppendUploadRequest> sending = new Calls.Sending<>(
                image,
                begin,
                end,
                (chunk, offset) -> {
                    AppendUploadRequest.Builder message = AppendUploadRequest.newBuilder().setBody(body(chunk));
                    return (offset == begin ? message.setStorageId(storageId).setOffset(begin) : message).build();
                },
                sent -> onProgress.accept(new Progress(sent, size, Optional.of(storageId))));
        try {
            return calls.uploadOnce(
                    UploadServiceGrpc.getAppendUploadMethod(),
                    sending,
                    PIECE_WITHIN.plus(Calls.transfer(end - begin)));
        } catch (CamserveException refused) {
            boolean conflict = refused.code().equals(CamserveException.OFFSET_CONFLICT);
            if (!conflict) {
                tries.pauseAfter(refused);
            }
            UploadProgress reached = progress(storageId);
            if (conflict && reached.getOffset() == begin) {
                // Somebody else adds bytes just now, such as our own connection that died unnoticed.
                tries.pauseAfter(new CamserveException(
                        CamserveException.CONNECTION_FAILED, refused.status(), refused.getMessage(), refused));
            }
            return reached;
        }
    }

    private UploadProgress progress(String storageId) {
        GetUploadProgressRequest request =
                GetUploadProgressRequest.newBuilder().setStorageId(storageId).build();
        return calls.unary(UploadServiceGrpc.getGetUploadProgressMethod(), request);
    }

    private static HttpBody body(ByteString chunk) {
        return HttpBody.newBuilder()
                .setContentType(Calls.UNTYPED)
                .setData(chunk)
                .build();
    }
}
