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
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.security.DigestInputStream;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.Base64;
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

    /** Stores an image; the same one under the same key is the same upload, which goes on where it was. */
    Upload upload(Image.Content image, Optional<String> key, Consumer<Progress> onProgress) {
        // With it another image of that size under the key is refused, instead of being taken for the first.
        Optional<String> md5 = key.map(own -> md5(image));
        if (image.sizeBytes() <= WHOLE_BYTES) {
            return whole(image, key, md5, onProgress);
        }
        StartUploadRequest.Builder begun = StartUploadRequest.newBuilder().setSizeBytes(image.sizeBytes());
        md5.ifPresent(begun::setContentMd5);
        UploadProgress started =
                calls.write(UploadServiceGrpc.getStartUploadMethod(), begun.build(), key, calls.timeout);
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

    private Upload whole(
            Image.Content image, Optional<String> key, Optional<String> md5, Consumer<Progress> onProgress) {
        long size = image.sizeBytes();
        UploadImageRequest.Builder first = UploadImageRequest.newBuilder().setSizeBytes(size);
        md5.ifPresent(first::setContentMd5);
        UploadImageRequest described = first.build();
        Calls.Sending<UploadImageRequest> sending = new Calls.Sending<>(
                image,
                0,
                size,
                (chunk, offset) -> (offset == 0 ? described.toBuilder() : UploadImageRequest.newBuilder())
                        .setBody(body(chunk))
                        .build(),
                sent -> onProgress.accept(new Progress(sent, size, Optional.empty())));
        return calls.upload(UploadServiceGrpc.getUploadImageMethod(), sending, key, Optional.empty());
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
            UploadProgress reached = reached(storageId, tries);
            if (conflict && reached.getOffset() == begin) {
                // Somebody else adds bytes just now, such as our own connection that died unnoticed.
                tries.pauseAfter(new CamserveException(
                        CamserveException.CONNECTION_FAILED, refused.status(), refused.getMessage(), refused));
            }
            return reached;
        }
    }

    /** Asks how far the upload has come, for as long as it may stand still and not only as long as a call. */
    private UploadProgress reached(String storageId, Retries.Tries tries) {
        while (true) {
            try {
                return progress(storageId);
            } catch (CamserveException refused) {
                tries.pauseAfter(refused);
            }
        }
    }

    private UploadProgress progress(String storageId) {
        GetUploadProgressRequest request =
                GetUploadProgressRequest.newBuilder().setStorageId(storageId).build();
        return calls.unary(UploadServiceGrpc.getGetUploadProgressMethod(), request);
    }

    /** Returns the MD5 of all bytes in base64. */
    private static String md5(Image.Content image) {
        try (DigestInputStream bytes = new DigestInputStream(image.open(0), MessageDigest.getInstance("MD5"))) {
            bytes.transferTo(OutputStream.nullOutputStream());
            return Base64.getEncoder().encodeToString(bytes.getMessageDigest().digest());
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        } catch (NoSuchAlgorithmException missing) {
            throw new IllegalStateException(missing);
        }
    }

    private static HttpBody body(ByteString chunk) {
        return HttpBody.newBuilder()
                .setContentType(Calls.UNTYPED)
                .setData(chunk)
                .build();
    }
}
