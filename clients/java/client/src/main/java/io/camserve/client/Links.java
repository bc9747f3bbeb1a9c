package io.camserve.client;

import com.google.api.HttpBody;
import com.google.protobuf.ByteString;
import io.camserve.v1.DownloadRequest;
import io.camserve.v1.Heatmap;
import io.camserve.v1.ObjectServiceGrpc;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads what signed links lead to. */
final class Links {
    private static final Pattern OBJECT =
            Pattern.compile("/v1/objects/(obj_[0-9A-Za-z]{16,40})\\?(?:.*&)?token=([^&]+)");

    private final Calls calls;

    Links(Calls calls) {
        this.calls = calls;
    }

    /** Returns the heatmap with its data; throws CamserveException when the link has ended (signature.expired). */
    Heatmap fetched(Heatmap heatmap) {
        if (heatmap.hasDataB64() || !heatmap.hasUrl()) {
            return heatmap;
        }
        Matcher named = OBJECT.matcher(heatmap.getUrl());
        ByteString data = named.find()
                // Over the connection that there is: nothing says that the link's own address can be reached.
                ? downloaded(named.group(1), named.group(2))
                : calls.retries.run(calls.timeout, tries -> read(heatmap.getUrl(), tries));
        return heatmap.toBuilder().setDataB64(data).build();
    }

    private ByteString downloaded(String objectId, String token) {
        DownloadRequest request = DownloadRequest.newBuilder()
                .setObjectId(objectId)
                .setToken(token)
                .build();
        return calls.retries.run(calls.timeout, tries -> {
            List<ByteString> parts = new ArrayList<>();
            calls.<DownloadRequest, HttpBody>stream(
                    ObjectServiceGrpc.getDownloadMethod(),
                    request,
                    Optional.of(tries.left()),
                    part -> parts.add(part.getData()));
            return ByteString.copyFrom(parts);
        });
    }

    /** Reads from the object store itself, which is another server and hears nothing of the caller's token. */
    private static ByteString read(String url, Retries.Tries tries) {
        HttpRequest request =
                HttpRequest.newBuilder(URI.create(url)).timeout(tries.left()).build();
        try {
            HttpResponse<byte[]> answer =
                    HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofByteArray());
            if (answer.statusCode() == 200) {
                return ByteString.copyFrom(answer.body());
            }
            String code = answer.statusCode() == 404 ? "object.not_found" : "access.denied";
            String said = "The object store answered HTTP " + answer.statusCode() + ".";
            throw new CamserveException(
                    answer.statusCode() >= 500 ? "upstream.failed" : code, answer.statusCode(), said, null);
        } catch (IOException broken) {
            throw new CamserveException(CamserveException.CONNECTION_FAILED, 0, "The connection failed.", broken);
        } catch (InterruptedException interrupted) {
            throw CamserveException.interrupted(interrupted);
        }
    }
}
