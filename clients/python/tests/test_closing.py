"""A client that is closed while calls are under way, or asked after that."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

import pytest
from clients.python.tests.pictures import STAR, noise
from tests.faults.proxy import fault_proxy, saying

from camserve_client import CamserveError

pytestmark = pytest.mark.timeout(180)
_FOR_EVER_S = 3600.0


@pytest.fixture(params=["grpc", "http"])
def faulty(request, stack):
    """A proxy before the service, and the address of it."""
    at = stack.grpc_target if request.param == "grpc" else urlsplit(stack.edge_url).netloc
    with fault_proxy("127.0.0.1", int(at.rpartition(":")[2])) as proxy:
        yield proxy, f"{request.param}://127.0.0.1:{proxy.port}"


async def test_whoever_waits_for_a_closed_client_is_told_at_once(faulty, connect):
    proxy, at = faulty
    client = await connect(at).__aenter__()
    job = await client.submit([noise(300)] * 20, model="shapes")
    hears = asyncio.Event()

    def on_info(_):
        proxy.delay_s = _FOR_EVER_S
        hears.set()

    following = asyncio.create_task(job.wait(on_info=on_info))
    await hears.wait()
    calls = [
        following,
        asyncio.create_task(client.infer(STAR, model="shapes")),
        asyncio.create_task(client.upload(noise(900))),
        asyncio.create_task(anext(client.infer_batch([STAR], model="shapes"))),
    ]
    await asyncio.sleep(0.5)
    await client.__aexit__(None, None, None)
    async with asyncio.timeout(20):
        ended = await asyncio.gather(*calls, return_exceptions=True)
    assert [(type(one), getattr(one, "code", None)) for one in ended] == [(CamserveError, "client.closed")] * 4
    for later in (client.health(), job.info(), client.infer(STAR, model="shapes")):
        with pytest.raises(CamserveError, match=r"client\.closed"):
            await later


async def _left(client, call, waits):
    """Leaves the client once `waits` says that the call waits, and says how that ended."""
    waiting = asyncio.create_task(call)
    async with asyncio.timeout(20):
        while not waits():
            await asyncio.sleep(0.01)
    await client.__aexit__(None, None, None)
    async with asyncio.timeout(5):
        with pytest.raises(CamserveError) as ended:
            await waiting
    return ended.value.code


async def test_whoever_waits_for_another_attempt_is_told_at_once(stack, connect):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        proxy.answer = saying(b"503 Service Unavailable", headers=b"Retry-After: 50\r\n")
        client = await connect(f"http://127.0.0.1:{proxy.port}").__aenter__()
        paused = []

        async def sleep(seconds):
            paused.append(seconds)
            await asyncio.sleep(seconds)

        client._calls.retries.clock.sleep = sleep
        assert await _left(client, client.health(), lambda: paused) == "client.closed"
        assert paused[0] >= 50


async def test_whoever_waits_for_the_callers_own_is_told_at_once(stack, connect):
    """For a token that its function does not give, and for the next image of a batch."""
    asked = []

    async def never():
        asked.append(True)
        await asyncio.Event().wait()
        return ""

    async def images():
        yield STAR
        await never()

    client = await connect(stack.edge_url, token=never).__aenter__()
    assert await _left(client, client.models(), lambda: asked) == "client.closed"
    with pytest.raises(CamserveError, match=r"client\.closed"):
        await client.models()
    asked.clear()
    client = await connect(stack.grpc_target).__aenter__()
    items = client.infer_batch(images(), model="shapes")
    assert await _left(client, anext(items), lambda: asked) == "client.closed"


async def test_a_client_is_open_between_open_and_close(stack, connect):
    client = connect(stack.grpc_target)
    await client.close()
    for _ in range(2):
        await client.open()
        with pytest.raises(RuntimeError, match="already"):
            await client.open()
        assert (await client.infer(STAR, model="shapes")).content_sha256
        await client.close()
        await client.close()
        with pytest.raises(CamserveError, match=r"client\.closed"):
            await client.models()


@pytest.mark.parametrize("kind", ["infer", "upload", "submit"])
async def test_whoever_waits_for_a_pipe_is_told_at_once(stack, connect, tmp_path, kind):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    client = await connect(stack.grpc_target).__aenter__()
    call = {
        "infer": lambda: client.infer(pipe, model="shapes"),
        "upload": lambda: client.upload(pipe),
        "submit": lambda: client.submit([pipe], model="shapes"),
    }[kind]()
    writers = []

    def waits():
        # Opened only once somebody reads it.
        try:
            writers.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    try:
        assert await _left(client, call, waits) == "client.closed"
    finally:
        for one in writers:
            os.close(one)
