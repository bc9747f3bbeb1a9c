package io.camserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.nio.charset.StandardCharsets;
import java.time.Instant;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class WebhooksTest {
    private static final Instant NOW = Instant.ofEpochSecond(1_795_475_251);
    private static final String SECRET = "whsec_AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    private static final String OTHER = "whsec_AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    private static final byte[] BODY = ("{\"event\":\"job.succeeded\",\"job_id\":\"job_1\",\"status\":\"succeeded\","
                    + "\"items_succeeded\":9,\"items_failed\":1,\"results_url\":\"https://example.com/r\","
                    + "\"metadata\":{\"order\":7}}")
            .getBytes(StandardCharsets.UTF_8);
    // Made by the server's own signing of this body, id, time and secret.
    private static final String SIGNATURE = "v1,rwT/pHv9DQyTO2ieLeFEAYPdxQ8x4VrmRQ8/J3lqMyk=";

    private static Map<String, List<String>> headers() {
        return new HashMap<>(Map.of(
                "Webhook-Id", List.of("evt_1"),
                "Webhook-Timestamp", List.of("1795475251"),
                "Webhook-Signature", List.of(SIGNATURE)));
    }

    @Test
    void anAuthenticEventIsReturned() {
        Webhooks.Event event = Webhooks.verify(headers(), BODY, List.of(OTHER, SECRET), NOW.plusSeconds(300));
        assertEquals("evt_1", event.id());
        assertEquals("job.succeeded", event.event());
        assertEquals("job_1", event.jobId());
        assertEquals(9, event.itemsSucceeded());
        assertEquals(1, event.itemsFailed());
        assertEquals(7, event.metadata().getFieldsOrThrow("order").getNumberValue());
    }

    @Test
    void oneOfSeveralSignaturesIsEnough() {
        Map<String, List<String>> headers = headers();
        headers.put("Webhook-Signature", List.of("v1,AAAA v1a,AAAA " + SIGNATURE));
        assertEquals("evt_1", Webhooks.verify(headers, BODY, List.of(SECRET), NOW).id());
    }

    @ParameterizedTest
    @ValueSource(strings = {"Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"})
    void anEventWithAnotherHeaderIsRefused(String name) {
        Map<String, List<String>> headers = headers();
        headers.put(name, List.of("v1,é"));
        assertRefused("signature.invalid", headers, BODY, SECRET, NOW);
        headers.remove(name);
        assertRefused("signature.invalid", headers, BODY, SECRET, NOW);
    }

    @Test
    void anotherBodyOrSecretIsRefused() {
        assertRefused("signature.invalid", headers(), "{}".getBytes(StandardCharsets.UTF_8), SECRET, NOW);
        assertRefused("signature.invalid", headers(), BODY, OTHER, NOW);
    }

    @Test
    void anOldEventAndOneFromTheFutureAreRefused() {
        assertRefused("signature.expired", headers(), BODY, SECRET, NOW.plusSeconds(301));
        assertRefused("signature.expired", headers(), BODY, SECRET, NOW.minusSeconds(301));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "whsec_", "whsec_AQEB", "whsec_?", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="})
    void whatIsNoSecretIsSaidAtOnce(String secret) {
        assertThrows(IllegalArgumentException.class, () -> Webhooks.verify(headers(), BODY, secret));
    }

    private static void assertRefused(
            String code, Map<String, List<String>> headers, byte[] body, String secret, Instant now) {
        CamserveException refused = assertThrows(
                CamserveException.class, () -> Webhooks.verify(headers, body, List.of(secret), now));
        assertEquals(code, refused.code());
        assertEquals(403, refused.status());
    }
}
