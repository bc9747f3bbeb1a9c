package io.camserve.client;

/**
 * One image of a batch or job.
 *
 * @param id identifies it within the batch, 1 to 128 characters
 * @param image the image
 */
public record Input(String id, Image image) {}
