"""The Redis connection: fast, and every failure of it is one and the same answer."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from tests.faults.proxy import fault_proxy
from tests.faults.valkey import valkey

from camserve_server.base.errors import ApiError, Reason
from camserve_server.cli.valkey import EmbeddedValkey
from camserve_server.stores.redis import check, connect, text, unavailable_on_error


async def reason_of_check(client: Redis) -> Reason:
    with pytest.raises(ApiError) as caught:
        await check(client)
    return caught.value.reason


async def test_server_that_answers_is_healthy(redis: Redis) -> None:
    await check(redis)


async def test_connection_speaks_resp3(redis: Redis) -> None:
    assert text(await redis.execute_command("CLIENT", "INFO")).split("resp=")[1].startswith("3")


async def test_replies_are_bytes_and_text_decodes_them(redis: Redis) -> None:
    await redis.set("key", "ü")
    reply = await redis.get("key")
    assert reply == "ü".encode()
    assert text(reply) == text("ü") == "ü"


@pytest.mark.parametrize("scheme", ["unix", "redis"])
async def test_missing_server_is_store_unavailable(tmp_path: Path, scheme: str) -> None:
    client = connect("redis://127.0.0.1:1" if scheme == "redis" else f"unix://{tmp_path}/none")
    assert await reason_of_check(client) is Reason.STORE_UNAVAILABLE
    await client.aclose()


async def test_server_that_never_answers_is_store_unavailable(tmp_path: Path) -> None:
    left = asyncio.Event()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1024):
            pass
        writer.close()
        left.set()

    server = await asyncio.start_unix_server(listen, tmp_path / "s")
    client = connect(f"unix://{tmp_path}/s", timeout_s=0.05)
    assert await reason_of_check(client) is Reason.STORE_UNAVAILABLE
    await client.aclose()
    await left.wait()
    server.close()


async def test_client_outlives_a_restart_of_the_server(tmp_path: Path) -> None:
    valkey = EmbeddedValkey(tmp_path)
    client = connect(await valkey.start())
    await asyncio.gather(*(check(client) for _ in range(8)))
    os.kill(valkey.pid, signal.SIGKILL)
    await valkey.exited()
    assert await reason_of_check(client) is Reason.STORE_UNAVAILABLE
    await valkey.start()
    await asyncio.gather(*(check(client) for _ in range(8)))
    await client.aclose()
    await valkey.stop()


@contextlib.asynccontextmanager
async def watched(port: int, pass_by: Callable[[bytes], bool]) -> AsyncIterator[Redis]:
    """A client of the server at `port`, over a way that breaks at a request that may not pass by."""
    open_ways = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_ways.add(asyncio.current_task())
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        while (request := await reader.read(65536)) and pass_by(request):
            to_server.write(request)
            writer.write(await from_server.read(65536))
        for end in (writer, to_server):
            end.close()
            await end.wait_closed()

    way = await asyncio.start_server(serve, "127.0.0.1")
    client = connect(f"redis://127.0.0.1:{way.sockets[0].getsockname()[1]}")
    yield client
    await client.aclose()
    await asyncio.gather(*open_ways)
    way.close()


async def test_connection_that_breaks_under_a_command_is_replaced_once(tmp_path: Path) -> None:
    breaks = 1

    def pass_by(request: bytes) -> bool:
        nonlocal breaks
        if b"camserve:check" in request and breaks:
            breaks -= 1
            return False
        return True

    with valkey(tmp_path / "valkey") as server:
        async with watched(server.port, pass_by) as client:
            await check(client)
            breaks = 2
            assert await reason_of_check(client) is Reason.STORE_UNAVAILABLE
            assert breaks == 0


async def test_a_new_connection_asks_one_question_before_the_first_command(tmp_path: Path) -> None:
    asked = []

    def pass_by(request: bytes) -> bool:
        asked.append(request.split(b"\r\n")[2])
        return True

    with valkey(tmp_path / "valkey") as server:
        async with watched(server.port, pass_by) as client:
            await check(client)
            assert asked == [b"HELLO", b"SET"]


async def test_a_connection_to_a_server_that_was_demoted_is_left(tmp_path: Path) -> None:
    with valkey(tmp_path / "a") as old, valkey(tmp_path / "b") as new, fault_proxy("127.0.0.1", old.port) as address:
        client = connect(f"redis://127.0.0.1:{address.port}")
        script = "return redis.call('SET', KEYS[1], ARGV[1])"
        await client.eval(script, 1, "key", "before")
        old.ask("REPLICAOF", "127.0.0.1", new.port)
        with pytest.raises(ApiError) as caught, unavailable_on_error():
            await client.set("key", "x")
        assert caught.value.reason is Reason.STORE_UNAVAILABLE
        # A pipeline that was open all the time must not go on writing to the old one either.
        await client.get("key")
        address.target = ("127.0.0.1", new.port)
        pipe = client.pipeline(transaction=False)
        pipe.eval(script, 1, "key", "after")
        pipe.get("key")
        assert (await pipe.execute())[1] == b"after"
        await client.aclose()


async def test_waiting_for_a_connection_ends_in_store_unavailable(redis_url: str) -> None:
    client = connect(redis_url, timeout_s=0.2, max_connections=1)
    taken = await client.connection_pool.get_connection()
    assert await reason_of_check(client) is Reason.STORE_UNAVAILABLE
    await client.connection_pool.release(taken)
    await check(client)
    await client.aclose()


async def test_refusals_of_the_server_are_store_unavailable_and_keep_their_cause(redis: Redis) -> None:
    await redis.set("text", "x")
    with pytest.raises(ApiError) as caught, unavailable_on_error():
        await redis.lpush("text", "y")
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    assert isinstance(caught.value.__cause__, ResponseError)


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), ValueError("ours"), ApiError(Reason.OBJECT_NOT_FOUND)], ids=repr
)
def test_what_is_not_the_stores_failure_passes_through(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, unavailable_on_error():
        raise error
    assert caught.value is error
