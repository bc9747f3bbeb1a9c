"""Several replicas behind one Envoy: those that cannot answer get nothing, and callers do not notice."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from subprocess import Popen
from typing import Any

import httpx
import pytest
from google.protobuf.message import Message
from tests.conftest import free_ports
from tests.edge.conftest import AUDIENCE, ISSUER
from tests.edge.replica import Call, Replica
from tests.edge.replica_process import replica_process
from tests.edge.wire import check_error

from camserve.v1 import health_pb2
from camserve_server.base.errors import Reason
from camserve_server.cli.envoy import EnvoyProcess, ask_admin
from camserve_server.edge.settings import EdgeSettings

HEALTH = "/v1/health"
FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[list[EnvoyProcess]]:
    """Processes to stop at the end."""
    started: list[EnvoyProcess] = []
    yield started
    for envoy in started:
        await envoy.stop()


@pytest.fixture
def replicas() -> Iterator[list[Replica]]:
    """Two replicas that answer questions after their health."""
    pair = [Replica(), Replica()]
    for replica in pair:
        replica.answer = lambda call: iter([health_pb2.GetHealthResponse()])
    yield pair
    for replica in pair:
        replica.stop()


@pytest.fixture
def processes(request: pytest.FixtureRequest) -> Iterator[list[tuple[Popen[str], int]]]:
    """Two replicas that can be killed, and their ports; the parameter is how long each takes to answer a read."""
    with ExitStack() as stack:
        yield [stack.enter_context(replica_process(read_s)) for read_s in getattr(request, "param", (0.0, 0.0))]


async def edge(started: list[EnvoyProcess], folder: Path, ports: list[int], **changes: Any) -> EnvoyProcess:
    """Returns a running Envoy that has seen all replicas healthy."""
    settings = EdgeSettings(
        run_dir=folder / "run",
        log_dir=folder / "logs",
        issuer=ISSUER,
        audience=AUDIENCE,
        listen_port=free_ports(1)[0],
        replicas=tuple(("127.0.0.1", port) for port in ports),
        concurrency=1,
    )
    envoy = EnvoyProcess(dataclasses.replace(settings, **changes), folder / "out")
    started.append(envoy)
    await envoy.start()
    await until(envoy, "membership_healthy", len(ports))
    return envoy


async def stat(envoy: EnvoyProcess, name: str, *, cluster: str = "replicas") -> int:
    told = await ask_admin(envoy.admin_socket, "GET", f"/stats?filter=^cluster.{cluster}.{name}$")
    return int(told.rpartition(":")[2])


async def until(envoy: EnvoyProcess, name: str, value: int, *, cluster: str = "replicas") -> None:
    """Asks Envoy until a number of the cluster is as expected; the test's time limit ends a hopeless wait."""
    while await stat(envoy, name, cluster=cluster) != value:
        # The replicas are threads of this process, and answer Envoy's health checks meanwhile.
        await asyncio.sleep(0.01)


def client(envoy: EnvoyProcess) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{envoy.port}", timeout=30, trust_env=False, limits=limits)


async def test_a_replica_that_does_not_serve_gets_nothing_until_it_serves_again(
    tmp_path: Path, replicas: list[Replica], started: list[EnvoyProcess]
) -> None:
    envoy = await edge(started, tmp_path, [replica.port for replica in replicas])
    serving, leaving = replicas
    leaving.set_serving(False)
    await until(envoy, "membership_healthy", 1)
    async with client(envoy) as api:
        # Envoy counts on one thread and routes on another, which has heard of it by the end of this one.
        await api.get(HEALTH)
        before = len(leaving.received)
        answers = await asyncio.gather(*(api.get(HEALTH) for _ in range(40)))
        assert [answer.status_code for answer in answers] == [200] * 40
        assert len(leaving.received) == before
        leaving.set_serving(True)
        while len(leaving.received) == before:
            assert (await api.get(HEALTH)).status_code == 200
        serving.set_serving(False)
        leaving.set_serving(False)
        await until(envoy, "membership_healthy", 0)
        await api.get(HEALTH)
        check_error(await api.get(HEALTH), Reason.SERVICE_OVERLOADED)


@pytest.mark.parametrize("processes", [(60.0, 0.0)], indirect=True)
async def test_a_replica_that_is_killed_under_load_fails_no_read(
    tmp_path: Path, processes: list[tuple[Popen[str], int]], started: list[EnvoyProcess]
) -> None:
    envoy = await edge(started, tmp_path, [port for _, port in processes])
    statuses: list[int] = []

    async def read(api: httpx.AsyncClient) -> None:
        for _ in range(3):
            statuses.append((await api.get(HEALTH)).status_code)

    async with client(envoy) as api:
        reading = [asyncio.create_task(read(api)) for _ in range(100)]
        # The first answers nothing before it dies: an answer that broke off in the middle could not be asked for again.
        while await stat(envoy, "upstream_rq_active") < 30:
            pass
        processes[0][0].kill()
        await asyncio.gather(*reading)
    assert statuses == [200] * 300
    assert await stat(envoy, "upstream_rq_retry_success") > 0
    assert await stat(envoy, "upstream_rq_retry_overflow") == 0


async def test_a_replica_that_hangs_gets_nothing_until_it_goes_on(
    tmp_path: Path, processes: list[tuple[Popen[str], int]], started: list[EnvoyProcess]
) -> None:
    envoy = await edge(started, tmp_path, [port for _, port in processes])
    processes[0][0].send_signal(signal.SIGSTOP)
    stopped_at = time.monotonic()
    await until(envoy, "membership_healthy", 1)
    # Six seconds at most by its health checks, and room for a busy machine.
    assert time.monotonic() - stopped_at < 6 + 4
    async with client(envoy) as api:
        await api.get(HEALTH)
        answers = await asyncio.gather(*(api.get(HEALTH, timeout=5) for _ in range(40)))
    assert [answer.status_code for answer in answers] == [200] * 40
    processes[0][0].send_signal(signal.SIGCONT)
    await until(envoy, "membership_healthy", 2)


async def test_a_limiter_that_hangs_is_asked_no_more_until_it_goes_on(
    tmp_path: Path, processes: list[tuple[Popen[str], int]], started: list[EnvoyProcess]
) -> None:
    limiters = tuple(("127.0.0.1", port) for _, port in processes)
    envoy = await edge(started, tmp_path, [port for _, port in processes], limiters=limiters)
    await until(envoy, "membership_healthy", 2, cluster="limits")
    processes[0][0].send_signal(signal.SIGSTOP)
    await until(envoy, "membership_healthy", 1, cluster="limits")
    processes[0][0].send_signal(signal.SIGCONT)
    await until(envoy, "membership_healthy", 2, cluster="limits")


async def test_a_replica_that_refuses_connections_is_ejected(
    tmp_path: Path, processes: list[tuple[Popen[str], int]], started: list[EnvoyProcess]
) -> None:
    envoy = await edge(started, tmp_path, [port for _, port in processes])
    processes[0][0].kill()
    processes[0][0].wait()
    async with client(envoy) as api:
        while not await stat(envoy, "outlier_detection.ejections_enforced_consecutive_local_origin_failure"):
            assert (await api.get(HEALTH)).status_code == 200


async def test_a_write_that_breaks_is_not_tried_again(
    tmp_path: Path, processes: list[tuple[Popen[str], int]], started: list[EnvoyProcess]
) -> None:
    envoy = await edge(started, tmp_path, [port for _, port in processes])
    async with client(envoy) as api:
        answer = await api.post("/oauth2/token", content="grant_type=client_credentials", headers=FORM)
        check_error(answer, Reason.SERVICE_OVERLOADED)
        assert await stat(envoy, "upstream_rq_retry") == 0
        # Each replica that sees it dies, so a second try would have killed the other one.
        while all(process.poll() is None for process, _ in processes):
            await asyncio.sleep(0)
        assert (await api.get(HEALTH)).status_code == 200
    assert sum(process.poll() is None for process, _ in processes) == 1


async def test_past_the_requests_that_may_run_at_once_the_edge_refuses(
    tmp_path: Path, replicas: list[Replica], started: list[EnvoyProcess]
) -> None:
    envoy = await edge(started, tmp_path, [replica.port for replica in replicas], max_requests=4)
    free = threading.Event()

    def answer(call: Call) -> Iterator[Message]:
        free.wait(30)
        yield health_pb2.GetHealthResponse()

    for replica in replicas:
        replica.answer = answer
    async with client(envoy) as api:
        running = [asyncio.create_task(api.get(HEALTH)) for _ in range(4)]
        await until(envoy, "upstream_rq_active", 4)
        refused = await api.get(HEALTH)
        check_error(refused, Reason.SERVICE_OVERLOADED)
        assert refused.headers["retry-after"] == "1"
        free.set()
        assert [answer.status_code for answer in await asyncio.gather(*running)] == [200] * 4
        # The edge may have answered a moment before it counts the request as ended.
        await until(envoy, "upstream_rq_active", 0)
        assert (await api.get(HEALTH)).status_code == 200
