from __future__ import annotations

import pytest
from tests.certificates import certificate
from tests.jwks_server import jwks_server

from camserve_server.outbound.client import FetchError
from camserve_server.outbound.jwks import MOST_BYTES, JwksAddress


async def test_keys_are_fetched():
    with jwks_server() as issuer:
        assert await JwksAddress(issuer.url).fetch() == issuer.document()


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (302, {"location": "/other"}, b""),
        (500, {}, None),
        (200, {"content-encoding": "gzip"}, None),
        (200, {}, b"x" * (MOST_BYTES + 1)),
        (200, {"content-length": "1000000"}, b"x"),
    ],
)
async def test_what_is_no_plain_answer_is_refused(status, headers, body):
    with jwks_server() as issuer:
        issuer.status, issuer.headers, issuer.body = status, headers, body
        with pytest.raises(FetchError):
            await JwksAddress(issuer.url).fetch()
    assert issuer.asked == 1


async def test_an_address_where_nobody_is_is_an_error():
    with jwks_server() as issuer:
        pass
    with pytest.raises(FetchError):
        await JwksAddress(issuer.url).fetch()


async def test_only_a_server_that_an_authority_vouches_for_is_asked(tmp_path):
    cert, key = certificate(tmp_path)
    with jwks_server((cert, key)) as issuer:
        assert await JwksAddress(issuer.url, cert).fetch() == issuer.document()
        for url, ca_file in ((issuer.url, None), (issuer.url.replace("localhost", "127.0.0.1"), cert)):
            with pytest.raises(FetchError):
                await JwksAddress(url, ca_file).fetch()
    assert issuer.asked == 1


def test_authorities_that_are_not_there_stop_the_start(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        JwksAddress("https://id.example.com/jwks", tmp_path / "ca.pem")
