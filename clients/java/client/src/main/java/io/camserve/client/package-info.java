/**
 * The client of camserve: {@link io.camserve.client.CamserveClient} makes calls and tries them again, {@link
 * io.camserve.client.Webhooks} verifies events. Requests and answers are the messages of {@link io.camserve.v1}.
 */
package io.camserve.client;
