package io.camserve.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class AddressTest {
    @Test
    void aSchemeSaysWhetherTheConnectionIsEncrypted() {
        assertEquals(new Address("10.0.0.1:50051", false), Address.parse("grpc://10.0.0.1"));
        assertEquals(new Address("localhost:443", true), Address.parse("grpcs://localhost/"));
    }

    @Test
    void withoutOneItIsUnlessTheHostIsThisMachine() {
        assertEquals(new Address("127.0.0.1:8080", false), Address.parse("127.0.0.1:8080"));
        assertEquals(new Address("[::1]:50051", false), Address.parse("[::1]"));
        assertEquals(new Address("cam.example:443", true), Address.parse("cam.example"));
    }

    @ParameterizedTest
    @ValueSource(strings = {"", "grpc://", "http://127.0.0.1", "grpc://host/v1", "grpc://host?a=b", "grpc://me@host"})
    void anythingElseIsNone(String text) {
        assertThrows(IllegalArgumentException.class, () -> Address.parse(text));
    }
}
