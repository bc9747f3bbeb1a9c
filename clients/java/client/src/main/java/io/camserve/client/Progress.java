package io.camserve.client;

import java.util.Optional;

/**
 * Tells how far an upload has come.
 *
 * @param sentBytes how many bytes are on their way or there
 * @param totalBytes how many there are
 * @param storageId the id under which the upload can be resumed, where it can
 */
public record Progress(long sentBytes, long totalBytes, Optional<String> storageId) {}
