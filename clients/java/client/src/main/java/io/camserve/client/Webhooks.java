package io.camserve.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Struct;
import com.google.protobuf.Value;
import com.google.protobuf.util.JsonFormat;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Stream;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/** Verifies events that come to a webhook, which are signed as Standard Webhooks says. */
public final class Webhooks {
    /** How far the time of an event may be from now. */
    public static final Duration TOLERANCE = Duration.ofSeconds(300);

    private static final String PREFIX = "whsec_";
    private static final int SECRET_BYTES = 32;
    private static final String VERSION = "v1,";

    private Webhooks() {}

    /**
     * An event that is authentic.
     *
     * @param id is the same in every attempt at it: expect it more than once
     * @param event what happened, such as {@code job.succeeded}
     * @param jobId the job
     * @param status its state
     * @param itemsSucceeded how many images were classified
     * @param itemsFailed how many were not
     * @param resultsUrl where the results are
     * @param metadata what the job's request said, empty when it said nothing
     */
    public record Event(
            String id,
            String event,
            String jobId,
            String status,
            int itemsSucceeded,
            int itemsFailed,
            String resultsUrl,
            Struct metadata) {}

    /** Verifies as {@link #verify(Map, byte[], List, Instant)} does, by one secret and this machine's clock. */
    public static Event verify(Map<String, List<String>> headers, byte[] body, String secret) {
        return verify(headers, body, List.of(secret), Instant.now());
    }

    /**
     * Returns the event of a POST whose signature fits one of the secrets.
     *
     * <p>Throws CamserveException {@code signature.invalid} for one that is signed with none of them, {@code
     * signature.expired} for one whose time is further from now than {@link #TOLERANCE}; IllegalArgumentException for a
     * secret that is none.
     *
     * @param headers names of any case, with their values
     * @param body the raw body, before anything parsed it
     * @param secrets {@code whsec_…}, several while one is changed for another
     * @param now the time
     */
    public static Event verify(Map<String, List<String>> headers, byte[] body, List<String> secrets, Instant now) {
        List<byte[]> keys = secrets.stream().map(Webhooks::key).toList();
        Map<String, List<String>> known = new TreeMap<>(String.CASE_INSENSITIVE_ORDER);
        known.putAll(headers);
        String id = first(known, "webhook-id");
        String timestamp = first(known, "webhook-timestamp");
        List<byte[]> offered = Arrays.stream(first(known, "webhook-signature").split(" "))
                .filter(one -> one.startsWith(VERSION))
                .map(one -> one.substring(VERSION.length()).getBytes(StandardCharsets.UTF_8))
                .toList();
        byte[] head = (id + "." + timestamp + ".").getBytes(StandardCharsets.UTF_8);
        boolean authentic = keys.stream()
                .map(key -> Base64.getEncoder().encode(hmac(key, head, body)))
                .flatMap(expected -> offered.stream().map(one -> MessageDigest.isEqual(expected, one)))
                .reduce(false, Boolean::logicalOr);
        if (!authentic) {
            throw new CamserveException("signature.invalid", 403, "The event is not signed with the secret.", null);
        }
        // Only now, when what is signed is what the service wrote.
        Duration age = Duration.between(Instant.ofEpochSecond(Long.parseLong(timestamp)), now);
        if (age.abs().compareTo(TOLERANCE) > 0) {
            throw new CamserveException(
                    "signature.expired", 403, "The event is too old, or this clock is off.", null);
        }
        return event(id, body);
    }

    private static Event event(String id, byte[] body) {
        Struct.Builder said = Struct.newBuilder();
        try {
            JsonFormat.parser().merge(new String(body, StandardCharsets.UTF_8), said);
        } catch (InvalidProtocolBufferException unreadable) {
            throw new CamserveException(CamserveException.ANSWER_INVALID, 0, "The event is not JSON.", unreadable);
        }
        Map<String, Value> fields = said.getFieldsMap();
        Value none = Value.getDefaultInstance();
        return new Event(
                id,
                fields.getOrDefault("event", none).getStringValue(),
                fields.getOrDefault("job_id", none).getStringValue(),
                fields.getOrDefault("status", none).getStringValue(),
                (int) fields.getOrDefault("items_succeeded", none).getNumberValue(),
                (int) fields.getOrDefault("items_failed", none).getNumberValue(),
                fields.getOrDefault("results_url", none).getStringValue(),
                fields.getOrDefault("metadata", none).getStructValue());
    }

    private static String first(Map<String, List<String>> headers, String name) {
        return headers.getOrDefault(name, List.of()).stream().findFirst().orElse("");
    }

    private static byte[] hmac(byte[] key, byte[]... parts) {
        try {
            Mac mac = Mac.getInstance("HmacSHA256");
            mac.init(new SecretKeySpec(key, "HmacSHA256"));
            Stream.of(parts).forEach(mac::update);
            return mac.doFinal();
        } catch (GeneralSecurityException missing) {
            throw new IllegalStateException("every Java has HmacSHA256", missing);
        }
    }

    private static byte[] key(String secret) {
        byte[] key = new byte[0];
        if (secret.startsWith(PREFIX)) {
            try {
                key = Base64.getDecoder().decode(secret.substring(PREFIX.length()));
            } catch (IllegalArgumentException notBase64) {
                key = new byte[0];
            }
        }
        if (key.length != SECRET_BYTES) {
            throw new IllegalArgumentException("a secret is whsec_ and the base64 of 32 bytes");
        }
        return key;
    }
}
