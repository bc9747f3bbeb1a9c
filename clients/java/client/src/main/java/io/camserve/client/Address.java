package io.camserve.client;

import java.net.URI;

/**
 * Where the service is.
 *
 * @param target host and port
 * @param tls whether the connection is encrypted
 */
record Address(String target, boolean tls) {
    /**
     * Returns the parts of {@code grpc://} or {@code grpcs://}, which is encrypted, and {@code host[:port]}; without a
     * scheme it is encrypted unless the host is this machine. Throws IllegalArgumentException for anything else.
     */
    static Address parse(String text) {
        boolean named = text.contains("://");
        URI uri = URI.create(named ? text : "grpc://" + text);
        boolean known = "grpc".equals(uri.getScheme()) || "grpcs".equals(uri.getScheme());
        boolean bare = uri.getRawPath() == null || uri.getRawPath().isEmpty() || uri.getRawPath().equals("/");
        if (!known || uri.getHost() == null || !bare || uri.getRawQuery() != null || uri.getRawUserInfo() != null) {
            throw new IllegalArgumentException("an address is grpc:// or grpcs:// with a host and, if need be, a port");
        }
        boolean tls = named ? uri.getScheme().equals("grpcs") : !isLoopback(uri.getHost());
        int port = uri.getPort() >= 0 ? uri.getPort() : tls ? 443 : 50051;
        return new Address(uri.getHost() + ":" + port, tls);
    }

    private static boolean isLoopback(String host) {
        return host.equals("localhost") || host.equals("[::1]") || host.matches("127(\\.[0-9]{1,3}){3}");
    }
}
