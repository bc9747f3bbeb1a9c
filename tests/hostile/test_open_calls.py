"""More calls than the edge may once have open, begun and never ended: by strangers, by one tenant, by one link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import pytest
from tests.conftest import Stack
from tests.hostile.conftest import EDGE, Beside, target_of
from tests.hostile.frames import PREFACE, SETTINGS, Fields, frame, grpc, headers, rest

# As many as the edge lets one connection have open, on so many connections.
STREAMS, CONNECTIONS = 128, 12
HELD_S = 5.0


def health(_: Stack) -> Fields:
    return grpc()


def download(_: Stack) -> Fields:
    return grpc("/camserve.v1.ObjectService/Download")


def sign_in(_: Stack) -> Fields:
    return rest("/oauth2/token", "POST", content_type="application/x-www-form-urlencoded", content_length="5000")


def document(stack: Stack) -> Fields:
    bearer = f"Bearer {stack.token(tenant='hoarder')}"
    return rest("/v1/infer", "POST", content_type="application/json", content_length="5000", authorization=bearer)


def watch(stack: Stack) -> Fields:
    return grpc("/camserve.v1.JobService/WatchJob", authorization=f"Bearer {stack.token(tenant='hoarder')}")


def put(stack: Stack) -> Fields:
    asked = {"media_type": "image/png", "size_bytes": "5000"}
    answer = httpx.post(f"{stack.edge_url}/v1/uploads:presign", json=asked, headers=stack.headers(tenant="hoarder"))
    link = urlsplit(answer.json()["upload_url"])
    return rest(f"{link.path}?{link.query}", "PUT", content_type="image/png", content_length="5000")


# What anybody may call, and the answer to it.
PUBLIC = [
    pytest.param(health, "GET", "/v1/health", None, 200, id="health"),
    pytest.param(sign_in, "POST", "/oauth2/token", {"grant_type": "none"}, 400, id="sign in"),
    pytest.param(download, "GET", "/v1/objects/obj_none?token=none", None, 401, id="link"),
]


async def hold(port: int, fields: Fields) -> None:
    """Begins as many calls as a connection may have and ends none of them."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        begun = b"".join(headers(1 + 2 * number, fields, end=False) for number in range(STREAMS))
        writer.write(PREFACE + frame(SETTINGS, 0, 0) + begun)
        async with asyncio.timeout(HELD_S):
            while await reader.read(65536):
                pass
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("begun", [health, sign_in, document, watch, put])
async def test_beside_calls_that_are_never_ended_the_others_are_answered(
    hostile_stack: Stack, beside: Beside[list], begun: Callable[[Stack], Fields]
) -> None:
    fields, port = begun(hostile_stack), target_of(hostile_stack, EDGE).port
    await beside(asyncio.gather(*(hold(port, fields) for _ in range(CONNECTIONS))))


@pytest.mark.parametrize(("begun", "method", "path", "form", "status"), PUBLIC)
async def test_beside_them_others_without_a_token_are_answered_by_the_same_methods(
    hostile_stack: Stack,
    begun: Callable[[Stack], Fields],
    method: str,
    path: str,
    form: dict[str, str] | None,
    status: int,
) -> None:
    port = target_of(hostile_stack, EDGE).port
    holders = asyncio.gather(*(hold(port, begun(hostile_stack)) for _ in range(CONNECTIONS)))
    await asyncio.sleep(1)
    seen = []
    async with httpx.AsyncClient(base_url=hostile_stack.edge_url, timeout=30) as stranger:
        while not holders.done():
            answer = await stranger.request(method, path, data=form)
            seen.append(answer.status_code)
            await asyncio.sleep(0.1)
    assert set(seen) == {status}
