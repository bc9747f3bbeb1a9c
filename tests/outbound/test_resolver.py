"""Names whose lookup hangs hold up neither other names nor other tenants."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import pytest
from tests.clock import FakeClock
from tests.outbound.origins import LIMIT_BYTES

from camserve_server.base.breaker import Breakers
from camserve_server.outbound.client import FetchError, GuardedClient, UntriedError
from camserve_server.outbound.resolver import Caller, Resolver, caller
from camserve_server.outbound.targets import Allowed

PUBLIC = "8.8.8.8"


class NameServer:
    """Answers at once or as late as it is told, but for names that begin with `slow` not until it is `over`."""

    def __init__(self) -> None:
        self.over = threading.Event()
        self.late_s = 0.0
        self.asked: Counter[str] = Counter()

    def __call__(self, host, port, family=0, kind=0, *_):
        self.asked[host] += 1
        if host.startswith("slow"):
            assert self.over.wait(60)
            raise socket.gaierror("no answer")
        time.sleep(self.late_s)
        return [(socket.AF_INET, kind, 6, "", (PUBLIC, port))]

    async def is_asked(self, count: int) -> None:
        """Waits until that many questions came."""
        async with asyncio.timeout(20):
            while self.asked.total() < count:
                await asyncio.sleep(0.01)


@pytest.fixture
def names(monkeypatch):
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server)
    yield server
    server.over.set()


class Calls:
    """Calls of one client, of which none gets further than to the socket."""

    def __init__(self) -> None:
        origins = Breakers("image_origins", monotonic=FakeClock().monotonic, failures=1, patience_s=0)
        self.client = GuardedClient(Allowed(), origins)

    async def post(self, host: str, tenant: str = "a", timeout_s: float = 30) -> type[Exception] | None:
        """Returns what it failed with."""
        try:
            await self.client.post(f"https://{host}/", b"", {}, timeout_s=timeout_s, tenant=tenant)
        except FetchError as error:
            return type(error)
        return None

    async def fetch(self, host: str, tenant: str = "a", timeout_s: float = 30) -> type[Exception] | None:
        """Returns what it failed with."""

        async def keep(_: bytes) -> None:
            pass

        try:
            await self.client.fetch(
                f"https://{host}/", keep, limit_bytes=LIMIT_BYTES, timeout_s=timeout_s, tenant=tenant
            )
        except FetchError as error:
            return type(error)
        return None


@pytest.fixture
async def calls():
    made = Calls()
    yield made
    await made.client.close()


async def test_calls_to_one_slow_name_leave_the_other_names_of_the_tenant_alone(names, calls, opened):
    slow = [asyncio.create_task(calls.post("slow.example")) for _ in range(20)]
    await names.is_asked(1)
    await asyncio.gather(*(calls.post("good.example") for _ in range(8)))
    assert len(opened) == 8
    assert names.asked["slow.example"] == 1
    names.over.set()
    assert await asyncio.gather(*slow) == [FetchError] * 20


@pytest.mark.parametrize("way", ["post", "fetch"])
async def test_slow_names_of_other_tenants_hold_up_nobody(names, calls, opened, way):
    call = getattr(calls, way)
    slow = [
        asyncio.create_task(call(f"slow{number}.example", tenant=f"other{tenant}"))
        for tenant in range(16)
        for number in range(10)
    ]
    await names.is_asked(96)
    assert await call("good.example") is FetchError
    assert opened == [(PUBLIC, 443)]
    names.over.set()
    assert set(await asyncio.gather(*slow)) == {FetchError}


async def test_any_number_of_new_slow_names_leaves_a_name_alone_that_was_quick(names, calls, opened):
    await calls.post("good.example")
    slow = [asyncio.create_task(calls.post(f"slow{number}.example")) for number in range(30)]
    await names.is_asked(7)
    await calls.post("good.example")
    assert len(opened) == 2
    names.over.set()
    assert await asyncio.gather(*slow) == [FetchError] * 30


@pytest.mark.parametrize("hosts", [["good.example"] * 16, [f"good{number}.example" for number in range(16)]])
async def test_sixteen_calls_at_once_all_get_through(names, calls, opened, hosts):
    names.late_s = 0.05
    await asyncio.gather(*map(calls.post, hosts))
    assert len(opened) == 16


async def test_a_call_whose_name_got_no_place_was_not_tried(names, calls, opened):
    slow = [asyncio.create_task(calls.post(f"slow{number}.example", timeout_s=0.5)) for number in range(6)]
    await names.is_asked(6)
    for call in (calls.post, calls.fetch):
        assert await call("good.example", timeout_s=0.1) is UntriedError
    assert await asyncio.gather(*slow) == [FetchError] * 6
    # Threads are busy until their names are resolved.
    assert await calls.post("left.example", timeout_s=0.1) is UntriedError
    waiting = asyncio.create_task(calls.post("good.example"))
    await asyncio.sleep(0)
    names.over.set()
    # Nobody's origin is to blame for the fetch that was not made.
    assert [await waiting, await calls.fetch("good.example")] == [FetchError] * 2
    assert opened == [(PUBLIC, 443)] * 2
    assert (names.asked["good.example"], names.asked["left.example"]) == (2, 0)


async def test_an_origin_whose_name_hangs_is_left_alone(names, calls):
    assert await calls.fetch("slow.example", timeout_s=0.2) is FetchError
    names.over.set()
    await names.is_asked(1)
    assert await calls.fetch("slow.example") is FetchError
    assert names.asked["slow.example"] == 1


async def test_who_leaves_a_lookup_leaves_it_to_the_others(names):
    resolver = Resolver()

    async def lookup(tenant: str, host: str):
        caller.set(Caller(tenant))
        return await resolver.resolve(host, 443)

    slow = [asyncio.create_task(lookup("a", f"slow{number}.example")) for number in range(6)]
    first, second = (asyncio.create_task(lookup("a", "good.example")) for _ in range(2))
    other = await lookup("b", "good.example")
    assert names.asked["good.example"] == 1
    first.cancel()
    slow[0].cancel()
    names.over.set()
    assert await second == other
    assert names.asked["good.example"] == 2
    ends = await asyncio.gather(first, *slow, return_exceptions=True)
    assert [type(end) for end in ends] == [asyncio.CancelledError] * 2 + [socket.gaierror] * 5
    await resolver.close()


async def test_a_lookup_that_gets_no_thread_frees_its_place(names, monkeypatch):
    resolver = Resolver()

    def refuse(_):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        lookups = [resolver.resolve(f"{number}.example", 443) for number in range(20)]
        ends = await asyncio.gather(*lookups, return_exceptions=True)
    assert [str(end) for end in ends] == ["there is no thread for it"] * 20
    assert await resolver.resolve("0.example", 443)
    await resolver.close()


async def test_who_waits_when_it_closes_is_told(names):
    resolver = Resolver()
    slow = [asyncio.create_task(resolver.resolve(f"slow{number}.example", 443)) for number in range(7)]
    await names.is_asked(6)
    await resolver.close()
    with pytest.raises(OSError, match="closed"):
        await slow[6]
    names.over.set()
    await asyncio.gather(*slow, return_exceptions=True)


def test_a_process_does_not_end_later_for_a_lookup_that_hangs():
    script = """if True:
        import asyncio, socket, time
        from camserve_server.outbound.resolver import Resolver

        socket.getaddrinfo = lambda *_: time.sleep(600)
        try:
            asyncio.run(asyncio.wait_for(Resolver().resolve("slow.example", 443), 0.2))
        except TimeoutError:
            print("left")
    """
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True).stdout == b"left\n"
    )


def test_a_lookup_that_ends_after_its_loop_says_nothing(names):
    async def leave():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Resolver().resolve("slow.example", 443), 0.05)

    asyncio.run(leave())
    names.over.set()
    for thread in threading.enumerate():
        if thread.name == "resolver":
            thread.join(20)
