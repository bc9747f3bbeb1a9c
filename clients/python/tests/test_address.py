"""How the service is spoken to, by its address."""

from __future__ import annotations

import pytest

from camserve_client import AsyncClient
from camserve_client.address import Address, parse, proxy_of


@pytest.mark.parametrize(
    ("text", "transport", "address"),
    [
        ("grpc://a.example:9", None, Address("grpc", False, "a.example:9", "http://a.example:9")),
        ("grpcs://a.example", None, Address("grpc", True, "a.example:443", "https://a.example:443")),
        ("http://a.example:9/", None, Address("rest", False, "a.example:9", "http://a.example:9")),
        ("https://a.example/cams", None, Address("rest", True, "a.example:443", "https://a.example:443/cams")),
        ("https://a.example", "grpc", Address("grpc", True, "a.example:443", "https://a.example:443")),
        ("grpc://a.example", "rest", Address("rest", False, "a.example:50051", "http://a.example:50051")),
        ("127.0.0.1:50051", None, Address("grpc", False, "127.0.0.1:50051", "http://127.0.0.1:50051")),
        ("localhost:50051", None, Address("grpc", False, "localhost:50051", "http://localhost:50051")),
        ("[::1]:50051", None, Address("grpc", False, "[::1]:50051", "http://[::1]:50051")),
        ("a.example", None, Address("grpc", True, "a.example:443", "https://a.example:443")),
    ],
)
def test_an_address_says_transport_and_encryption(text, transport, address):
    assert parse(text, transport) == address


@pytest.mark.parametrize(
    "text", ["", "ftp://a.example", "http://", "https://me:secret@a.example", "https://a.example?token=x", "grpc://a/b"]
)
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ValueError, match="address"):
        AsyncClient(text)


@pytest.mark.parametrize(
    ("environment", "proxy"),
    [
        ({}, None),
        ({"https_proxy": "http://p.example:3128"}, "http://p.example:3128"),
        ({"https_proxy": "p.example:3128"}, "http://p.example:3128"),
        ({"http_proxy": "http://p.example:3128"}, None),
        ({"all_proxy": "http://p.example:3128"}, "http://p.example:3128"),
        ({"all_proxy": "socks5://p.example:1080"}, None),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "b.example, 10.0.0.1:8443"}, None),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "10.0.0.1:9"}, "http://p.example:3128"),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "b.example,10.0.0.0/8"}, None),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "192.168.0.0/16"}, "http://p.example:3128"),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "10.0.0.1"}, None),
        ({"https_proxy": "http://p.example:3128", "no_proxy": "*"}, None),
    ],
)
def test_the_environment_names_the_proxy(monkeypatch, environment, proxy):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of("https://10.0.0.1:8443/v1/models") == proxy


def test_a_token_beside_credentials_is_refused():
    from camserve_client import ClientCredentials

    with pytest.raises(ValueError, match="not both"):
        AsyncClient("grpc://a.example", token="t", credentials=ClientCredentials("a", "b"))


async def test_a_client_works_within_its_with_only():
    client = AsyncClient("grpc://127.0.0.1:1")
    with pytest.raises(RuntimeError, match="async with"):
        await client.health()
