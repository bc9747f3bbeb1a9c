from __future__ import annotations

from ipaddress import ip_address

import pytest

from camserve_server.outbound.addresses import is_public
from camserve_server.outbound.targets import Allowed, NotAllowedError, parse_target

NONE = Allowed()

FORBIDDEN_ADDRESSES = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "168.63.129.16",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # compatible
    "::ffff:127.0.0.1",  # mapped
    "::ffff:10.0.0.1",
    "::ffff:0:127.0.0.1",  # translated
    "64:ff9b::7f00:1",  # NAT64
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "2002:7f00:1::",  # 6to4
    "2002:a9fe:a9fe::1",
    "2001:0:7f00:1::",  # Teredo's server
    "2001:0:808:808:0:0:80ff:fffe",  # Teredo's client 127.0.0.1, its bits turned round
    "2606:4700::5efe:7f00:1",  # ISATAP
    "2606:4700::200:5efe:a00:1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "fc00::1",
    "fd12::1",
    "fe80::1",
    "fec0::1",
    "ff02::1",
]
PUBLIC_ADDRESSES = [
    "1.1.1.1",
    "8.8.8.8",
    "100.128.0.1",
    "172.32.0.1",
    "2606:4700::1111",
    "2a00:1450:4001::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]


@pytest.mark.parametrize("text", FORBIDDEN_ADDRESSES)
def test_an_address_of_no_public_place_is_not_public(text):
    assert not is_public(ip_address(text))


@pytest.mark.parametrize("text", PUBLIC_ADDRESSES)
def test_a_global_unicast_address_is_public(text):
    assert is_public(ip_address(text))


@pytest.mark.parametrize("text", FORBIDDEN_ADDRESSES)
def test_a_forbidden_address_is_refused_in_a_url(text):
    host = f"[{text}]" if ":" in text else text
    with pytest.raises(NotAllowedError):
        parse_target(f"https://{host}/a.png", NONE)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png",
        "https://example.com:443/a.png?size=1#part",
        "HTTPS://EXAMPLE.COM/",
        "https://xn--bcher-kva.example/a",
        "https://8.8.8.8/a",
        "https://[2606:4700::1111]/a",
    ],
)
def test_https_to_a_name_or_a_public_address_is_called(url):
    target = parse_target(url, NONE)
    assert (target.scheme, target.port, target.fragment) == ("https", 443, "")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/a.png",
        "//example.com/a.png",
        "https://",
        "https:///a.png",
        "http://example.com/a.png",
        "ftp://example.com/a.png",
        "file:///etc/passwd",
        "gopher://example.com/",
        "data:image/png;base64,AA",
        "https://example.com:80/",
        "https://example.com:8443/",
        "https://example.com:22/",
        "https://example.com:0/",
        "https://example.com:/",
        "https://example.com:+443/",
        "https://example.com:0443/",
        "https://example.com:4_43/",
        "https://example.com:99999/",
        "https://user@example.com/",
        "https://user:secret@example.com/",
        "https://@example.com/",
        "https://example.com@127.0.0.1/",
        "https://localhost/",
        "https://intranet/",
        "https://2130706433/",  # 127.0.0.1 as one number
        "https://0x7f000001/",
        "https://0x7f.0.0.1/",
        "https://0177.0.0.1/",
        "https://017700000001/",
        "https://127.1/",
        "https://127.0.1/",
        "https://1.2.3.4.5/",
        "https://example.0x1/",
        "https://127.0.0.1./",
        "https://example..com/",
        "https://-example.com/",
        "https://[::1%25lo]/",
        "https://[fe80::1%25eth0]/",
        "https://[::1/",
        "https://[v1.a]/",
        "https://[v1.a:b]/",
        "https://exam\\ple.com/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/\r\nHost: x",
        " https://example.com/",
        "https://exa mple.com/",
        "https://ex\u00e4mple.com/",
        "https://\uff11\uff12\uff17.0.0.1/",  # full-width digits
        "https://127\u30020\u30020\u30021/",  # ideographic full stops
        f"https://example.com/{'a' * 2048}",
    ],
)
def test_any_other_url_is_refused(url):
    with pytest.raises(NotAllowedError):
        parse_target(url, NONE)


def test_a_listed_place_may_be_private_and_plain_http():
    allowed = Allowed.parse(["127.0.0.1/32:8080", "[::1]/128:8081"])
    assert parse_target("http://127.0.0.1:8080/a", allowed).port == 8080
    assert parse_target("https://[::1]:8081/a", allowed).port == 8081
    for url in ("http://127.0.0.1:8081/", "http://127.0.0.2:8080/", "http://127.0.0.1/", "http://localhost:8080/"):
        with pytest.raises(NotAllowedError):
            parse_target(url, allowed)


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.1:80", "127.0.0.1/8:80", "127.0.0.1/32:0", "host/32:80", "*"])
def test_an_entry_that_is_no_single_place_is_refused(entry):
    with pytest.raises(ValueError, match="is not like"):
        Allowed.parse([entry])
