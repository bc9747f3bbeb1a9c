package io.camserve.client;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** An image: its bytes (JPEG, PNG, TIFF or BMP), or where the service finds it. */
public sealed interface Image {
    /** Returns the image in a file, which is read as it is sent; throws UncheckedIOException for an unreadable one. */
    static Content file(Path path) {
        try {
            return new File(path, Files.size(path));
        } catch (IOException unreadable) {
            throw new UncheckedIOException(unreadable);
        }
    }

    /** Returns an encoded image; the array must not change while it is in use. */
    static Content bytes(byte[] encoded) {
        return new Bytes(encoded);
    }

    /** Returns an image that the service fetches: https, at a public address. */
    static Url url(String url) {
        return new Url(url);
    }

    /** Returns an image that was uploaded before. */
    static Stored stored(String storageId) {
        return new Stored(storageId);
    }

    /** An image that the service finds by itself. */
    record Url(String url) implements Image {}

    /** An image that was uploaded before. */
    record Stored(String storageId) implements Image {}

    /** An encoded image here, any part of which can be read again. */
    sealed interface Content extends Image {
        /** Returns how many bytes it has. */
        long sizeBytes();

        /** Opens it at a byte; throws IOException for an unreadable file. */
        InputStream open(long offset) throws IOException;
    }

    /** An encoded image in a file. */
    record File(Path path, long sizeBytes) implements Content {
        @Override
        public InputStream open(long offset) throws IOException {
            InputStream stream = Files.newInputStream(path);
            stream.skipNBytes(offset);
            return stream;
        }
    }

    /** An encoded image in memory. */
    record Bytes(byte[] encoded) implements Content {
        @Override
        public long sizeBytes() {
            return encoded.length;
        }

        @Override
        public InputStream open(long offset) {
            return new ByteArrayInputStream(encoded, Math.toIntExact(offset), encoded.length - (int) offset);
        }
    }
}
