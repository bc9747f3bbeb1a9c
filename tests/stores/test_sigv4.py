"""Signatures against the examples that AWS publishes."""

from __future__ import annotations

import hashlib
from urllib.parse import parse_qs, urlsplit

import pytest

from camserve_server.stores.sigv4 import Credentials, canonical_request, presigned, signature

# "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", API reference of Amazon S3.
EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
MAY_24_2013 = 1369353600.0


def test_the_published_link_has_its_published_signature():
    url = presigned(
        "GET",
        "https://examplebucket.s3.amazonaws.com/test.txt",
        EXAMPLE,
        region="us-east-1",
        now=MAY_24_2013,
        expires_s=86400,
    )
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Credential"] == ["AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request"]
    assert query["X-Amz-Date"] == ["20130524T000000Z"]
    assert query["X-Amz-Signature"] == ["aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"]


# "Authenticating Requests: Using the Authorization Header", the same reference.
EMPTY = hashlib.sha256(b"").hexdigest()
HOST = {"host": "examplebucket.s3.amazonaws.com", "x-amz-date": "20130524T000000Z"}


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "payload", "published"),
    [
        (
            "GET",
            "/test.txt",
            {},
            {"range": "bytes=0-9"},
            b"",
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            "PUT",
            "/test%24file.text",
            {},
            {"date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
            b"Welcome to Amazon S3.",
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            "GET",
            "/",
            {"lifecycle": ""},
            {},
            b"",
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            "GET",
            "/",
            {"max-keys": "2", "prefix": "J"},
            {},
            b"",
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
)
def test_published_requests_have_their_published_signatures(method, path, query, headers, payload, published):
    digest = hashlib.sha256(payload).hexdigest()
    request = canonical_request(method, path, query, HOST | headers | {"x-amz-content-sha256": digest}, digest)
    scope = "20130524/us-east-1/s3/aws4_request"
    assert signature(request, EXAMPLE.secret, scope=scope, stamp="20130524T000000Z") == published
