"""The guarded client: what it refuses to call, and what it makes of answers."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.outbound.origins import LIMIT_BYTES, Origin, origin, says

from camserve_server.outbound.client import FetchError, GuardedClient, Reply, TooLargeError
from camserve_server.outbound.targets import Allowed, NotAllowedError


async def fetched(seen: Origin, url: str | None = None, *, allow: bool = True, timeout_s: float = 5) -> bytes:
    client = GuardedClient(Allowed.parse([f"127.0.0.1/32:{seen.port}"] if allow else []))
    got = bytearray()

    async def keep(chunk: bytes) -> None:
        got.extend(chunk)

    try:
        await client.fetch(url or seen.url, keep, limit_bytes=LIMIT_BYTES, timeout_s=timeout_s)
    finally:
        await client.close()
    return bytes(got)


async def test_a_body_is_fetched_and_nothing_of_ours_is_sent():
    async with origin(says("HTTP/1.1 200 OK\ncontent-length: 5\nset-cookie: a=b", b"image")) as seen:
        assert await fetched(seen) == b"image"
    lines = seen.requests[0].lower().split("\r\n")
    sent = {line.split(":")[0] for line in lines[1:] if line}
    assert sent == {"host", "accept", "accept-encoding", "user-agent", "connection"}
    assert "accept-encoding: identity" in lines


async def test_a_private_place_that_is_not_listed_sees_no_packet():
    async with origin(says("HTTP/1.1 200 OK\ncontent-length: 0")) as seen:
        with pytest.raises(NotAllowedError):
            await fetched(seen, allow=False)
        assert seen.connections == 0


async def test_a_redirect_is_followed_within_what_is_allowed():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        step = int(path.strip("/") or 0)
        if step < 3:
            writer.write(f"HTTP/1.1 302 Found\r\nlocation: /{step + 1}\r\ncontent-length: 0\r\n\r\n".encode())
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nend")

    async with origin(answer) as seen:
        assert await fetched(seen, f"http://127.0.0.1:{seen.port}/0") == b"end"
        assert seen.connections == 4


async def test_a_fourth_redirect_is_not_followed():
    async with origin(says("HTTP/1.1 302 Found\nlocation: /again\ncontent-length: 0")) as seen:
        with pytest.raises(FetchError):
            await fetched(seen)
        assert seen.connections == 4


async def test_a_redirect_to_a_forbidden_place_sends_it_nothing():
    async with origin(says("HTTP/1.1 200 OK\ncontent-length: 0")) as hidden:
        for location in (
            hidden.url,
            hidden.url.replace("127.0.0.1", "localhost"),
            "file:///etc/passwd",
            "//[::1]/",
            "",
        ):
            async with origin(says(f"HTTP/1.1 302 Found\nlocation: {location}\ncontent-length: 0")) as seen:
                with pytest.raises(FetchError):
                    await fetched(seen)
        assert hidden.connections == 0


@pytest.fixture
def resolves(monkeypatch):
    """Lets names lead where a hostile name server would send us."""

    def to(*addresses: str) -> None:
        def resolve(host, port, family=0, kind=0, *_):
            rows = [(ip, socket.AF_INET6 if ":" in ip else socket.AF_INET) for ip in addresses]
            return [
                (found, kind, 6, "", (ip, port, 0, 0) if found == socket.AF_INET6 else (ip, port)) for ip, found in rows
            ]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)

    return to


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fe80::1"]
)
async def test_a_name_that_leads_to_a_forbidden_address_sees_no_packet(resolves, opened, address):
    resolves(address)
    with pytest.raises(FetchError):
        await fetched(Origin(), "https://rebind.example/a.png", allow=False)
    assert opened == []


async def test_of_a_names_addresses_only_the_public_ones_are_called(resolves, opened):
    resolves("127.0.0.1", "8.8.8.8", "10.0.0.1")
    with pytest.raises(FetchError):
        await fetched(Origin(), "https://mixed.example/a.png", allow=False)
    assert set(opened) == {("8.8.8.8", 443)}


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("HTTP/1.1 404 Not Found\ncontent-length: 2", b"no"),
        ("HTTP/1.1 204 No Content", b""),
        ("HTTP/1.1 206 Partial Content\ncontent-length: 2", b"no"),
        ("HTTP/1.1 500 Internal Server Error\ncontent-length: 0", b""),
        ("HTTP/1.1 200 OK\ncontent-length: 10", b"short"),
        ("HTTP/1.1 200 OK\ncontent-length: -1", b"x"),
        ("HTTP/1.1 200 OK\ncontent-length: 1\ncontent-length: 2", b"xx"),
        ("HTTP/1.1 200 OK\ncontent-encoding: gzip\ncontent-length: 2", b"xx"),
        ("HTTP/1.1 200 OK\ncontent-encoding: br\ncontent-length: 2", b"xx"),
        ("HTTP/1.1 200 OK\ntransfer-encoding: chunked", b"5\r\nab"),
        ("HTTP/1.1 200 OK\ntransfer-encoding: chunked", b"zz\r\n"),
        ("SSH-2.0-OpenSSH_9.9", b""),
        ("", b""),
    ],
)
async def test_an_answer_that_is_no_whole_image_is_a_failure(head, body):
    async with origin(says(head, body)) as seen:
        with pytest.raises(FetchError):
            await fetched(seen)


async def test_a_body_announced_too_large_is_not_read():
    async with origin(says("HTTP/1.1 200 OK\ncontent-length: 1001", bytes(1001))) as seen:
        with pytest.raises(TooLargeError) as caught:
            await fetched(seen)
    assert caught.value.size_bytes == 1001


async def test_an_endless_body_is_cut_at_the_limit():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(bytes(64))
            await writer.drain()

    async with origin(answer) as seen:
        with pytest.raises(TooLargeError):
            await fetched(seen)


async def test_a_body_that_trickles_is_cut_at_the_time():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with origin(answer) as seen:
        with pytest.raises(FetchError):
            await fetched(seen, timeout_s=0.3)


async def test_a_silent_origin_is_cut_at_the_time():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        await asyncio.sleep(30)

    async with origin(answer) as seen:
        with pytest.raises(FetchError):
            await fetched(seen, timeout_s=0.3)


async def test_who_is_silent_for_long_may_still_answer_in_time():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        await asyncio.sleep(5.2)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nimage")

    async with origin(answer) as seen:
        assert await fetched(seen, timeout_s=10) == b"image"


async def test_a_closed_port_is_a_failure_like_any_other():
    seen = Origin(port=1)
    with pytest.raises(FetchError) as caught:
        await fetched(seen)
    assert str(caught.value) == ""


async def test_proxies_of_the_environment_are_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    async with origin(says("HTTP/1.1 200 OK\ncontent-length: 5", b"image")) as seen:
        assert await fetched(seen) == b"image"


async def posted(seen: Origin, url: str | None = None, *, allow: bool = True, timeout_s: float = 5) -> Reply:
    client = GuardedClient(Allowed.parse([f"127.0.0.1/32:{seen.port}"] if allow else []))
    try:
        return await client.post(url or seen.url, b"{}", {"x-event-id": "evt_1"}, timeout_s=timeout_s)
    finally:
        await client.close()


async def test_a_post_sends_the_body_and_returns_any_answer():
    async with origin(says("HTTP/1.1 503 Busy\nretry-after: 7\ncontent-length: 4", b"busy")) as seen:
        assert await posted(seen) == Reply(503, "7")
    assert seen.requests[0].startswith("POST /a.png HTTP/1.1\r\n")
    assert "x-event-id: evt_1" in seen.requests[0].lower()


async def test_a_post_does_not_wait_for_the_body_of_the_answer():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n")
        await writer.drain()
        await asyncio.sleep(30)

    async with asyncio.timeout(20), origin(answer) as seen:
        assert (await posted(seen)).status == 200


async def test_a_post_follows_no_redirect():
    async with origin(says("HTTP/1.1 200 OK\ncontent-length: 0")) as hidden:
        async with origin(says(f"HTTP/1.1 307 Away\nlocation: {hidden.url}\ncontent-length: 0")) as seen:
            assert (await posted(seen)).status == 307
        assert hidden.connections == 0


@pytest.mark.parametrize("text", ["", "nonsense", "HTTP/1.1 99999 No"])
async def test_a_post_without_an_answer_fails(text):
    async with origin(says(text)) as seen:
        with pytest.raises(FetchError):
            await posted(seen)


async def test_a_post_to_a_place_that_does_not_answer_ends_in_time():
    async def answer(writer: asyncio.StreamWriter, path: str) -> None:
        await asyncio.sleep(30)

    async with asyncio.timeout(20), origin(answer) as seen:
        with pytest.raises(FetchError):
            await posted(seen, timeout_s=0.2)


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:127.0.0.1", "64:ff9b::7f00:1"])
async def test_a_post_to_a_name_that_leads_inside_sends_no_packet(resolves, opened, address):
    resolves(address)
    with pytest.raises(FetchError):
        await posted(Origin(), "https://rebind.example/", allow=False)
    assert not opened


async def flood(writer: asyncio.StreamWriter, path: str) -> None:
    for _ in range(1000):
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 100)
        await writer.drain()


async def test_answers_that_never_become_final_end_early():
    async with asyncio.timeout(20), origin(flood) as seen:
        for call in (posted, fetched):
            with pytest.raises(FetchError) as caught:
                await call(seen, timeout_s=15)
            assert not isinstance(caught.value.__cause__, TimeoutError)


async def test_a_long_body_is_no_long_head():
    body = b"x" * LIMIT_BYTES
    interim = "HTTP/1.1 103 Early Hints\n\n" * 3
    async with origin(says(f"{interim}HTTP/1.1 200 OK\ncontent-length: {LIMIT_BYTES}", body)) as seen:
        assert await fetched(seen) == body
