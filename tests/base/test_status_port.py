"""The port for supervisors: it tells whether a replica is ready, and whether its loop runs."""

from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from tests.conftest import free_ports

from camserve_server.base.status_port import StatusPort


async def asked(url: str) -> tuple[int, str]:
    answer = await asyncio.to_thread(httpx.get, url)
    return answer.status_code, answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_it_tells_readiness_life_and_metrics(host: str) -> None:
    ready = False
    (port,) = free_ports(1)
    status = StatusPort(host, port, lambda: ready, asyncio.get_running_loop())
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    try:
        assert await asked(f"{url}/ready") == (503, "no\n")
        ready = True
        assert await asked(f"{url}/ready") == (200, "yes\n")
        assert await asked(f"{url}/live") == (200, "yes\n")
        code, text = await asked(f"{url}/metrics")
        assert (code, "python_info" in text) == (200, True)
    finally:
        await asyncio.to_thread(status.close)


def test_a_loop_that_hangs_does_not_live() -> None:
    (port,) = free_ports(1)
    hangs, goes_on = threading.Event(), threading.Event()

    async def hang() -> None:
        status = StatusPort("127.0.0.1", port, lambda: True, asyncio.get_running_loop())
        hangs.set()
        goes_on.wait()  # the loop itself
        await asyncio.to_thread(status.close)

    loop = threading.Thread(target=lambda: asyncio.run(hang()))
    loop.start()
    hangs.wait()
    try:
        assert httpx.get(f"http://127.0.0.1:{port}/live").status_code == 503
        assert httpx.get(f"http://127.0.0.1:{port}/ready").status_code == 200
    finally:
        goes_on.set()
        loop.join()


async def test_a_port_that_is_taken_is_told() -> None:
    (port,) = free_ports(1)
    loop = asyncio.get_running_loop()
    status = StatusPort("127.0.0.1", port, lambda: True, loop)
    try:
        with pytest.raises(OSError, match="in use"):
            StatusPort("127.0.0.1", port, lambda: True, loop)
    finally:
        await asyncio.to_thread(status.close)
