"""Envoy's life: refused configurations, drain, TLS, the admin interface."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import ssl
import stat
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from tests.certificates import certificate
from tests.conftest import free_ports
from tests.edge.conftest import AUDIENCE, ISSUER, Edge
from tests.edge.replica import Call, Replica
from tests.edge.wire import check_error
from tests.processes import wait_gone

from camserve.v1 import models_pb2
from camserve_server.base.errors import Reason
from camserve_server.cli.envoy import EnvoyError, EnvoyProcess, ask_admin
from camserve_server.edge.settings import EdgeSettings, ReplicaTls


@pytest.fixture
def replica() -> Iterator[Replica]:
    replica = Replica()
    yield replica
    replica.stop()


@pytest.fixture
async def started(tmp_path: Path) -> AsyncIterator[list[EnvoyProcess]]:
    """Processes to stop at the end."""
    started: list[EnvoyProcess] = []
    yield started
    for envoy in started:
        await envoy.stop()


def _settings(folder: Path, replica: Replica, **changes: Any) -> EdgeSettings:
    return EdgeSettings(
        run_dir=folder / "run",
        log_dir=folder / "logs",
        issuer=ISSUER,
        audience=AUDIENCE,
        listen_port=free_ports(1)[0],
        replicas=(("127.0.0.1", replica.port),),
        concurrency=1,
        **changes,
    )


async def test_stop_lets_a_running_request_finish(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    settings = _settings(tmp_path, replica)
    envoy = EnvoyProcess(settings, tmp_path / "out")
    started.append(envoy)
    await envoy.start()
    running, finish = threading.Event(), threading.Event()

    def answer(call: Call) -> Iterator[Message]:
        running.set()
        assert finish.wait(20)
        yield models_pb2.ListModelsResponse()

    replica.answer = answer
    headers = _headers(settings, replica)
    async with httpx.AsyncClient(timeout=20) as client:
        request = asyncio.create_task(client.get(f"http://127.0.0.1:{settings.listen_port}/v1/models", headers=headers))
        assert await asyncio.to_thread(running.wait, 20)
        stopping = asyncio.create_task(envoy.stop())
        while not await _drains(envoy):
            assert not stopping.done()
        finish.set()
        assert (await request).status_code == 200
        await stopping
    wait_gone(envoy.pid)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", settings.listen_port))


def _headers(settings: EdgeSettings, replica: Replica) -> dict[str, str]:
    return {"authorization": f"Bearer {Edge(settings, replica).token()}"}


async def _drains(envoy: EnvoyProcess) -> bool:
    try:
        return "LIVE" not in await ask_admin(envoy.admin_socket, "GET", "/ready")
    except ConnectionError as error:  # 503 from then on
        return " 503 " in str(error)


async def test_the_sockets_move_when_their_path_would_be_too_long(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    folder = tmp_path / ("d" * 100)
    envoy = EnvoyProcess(_settings(folder, replica), folder / "out")
    started.append(envoy)
    await envoy.start()
    assert stat.S_IMODE(envoy.admin_socket.stat().st_mode) == 0o600
    assert not envoy.admin_socket.is_relative_to(folder)
    await envoy.stop()
    assert not envoy.admin_socket.exists()


async def test_a_port_that_another_envoy_has_is_said_so(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    first = EnvoyProcess(_settings(tmp_path / "a", replica), tmp_path / "a")
    started.append(first)
    await first.start()
    settings = dataclasses.replace(_settings(tmp_path / "b", replica), listen_port=first.port)
    with pytest.raises(EnvoyError, match="Address already in use"):
        await EnvoyProcess(settings, tmp_path / "b").start()


async def test_a_configuration_that_envoy_refuses_is_said_so(tmp_path: Path, replica: Replica) -> None:
    settings = _settings(tmp_path, replica, tls_cert_file=tmp_path / "none.pem", tls_key_file=tmp_path / "none.key")
    with pytest.raises(EnvoyError, match="Envoy refuses its configuration"):
        await EnvoyProcess(settings, tmp_path / "out").start()


async def test_without_a_replica_the_start_gives_up(tmp_path: Path, replica: Replica) -> None:
    replica.stop()
    with pytest.raises(EnvoyError, match="not ready within"):
        await EnvoyProcess(_settings(tmp_path, replica), tmp_path / "out").start(within_s=1)


async def test_connections_past_the_limit_are_closed(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    envoy = EnvoyProcess(_settings(tmp_path, replica, max_connections=2), tmp_path / "out")
    started.append(envoy)
    await envoy.start()
    request = b"GET /.well-known/jwks.json HTTP/1.1\r\nhost: x\r\n\r\n"
    writers = []
    for answered in (True, True, False):
        reader, writer = await asyncio.open_connection("127.0.0.1", envoy.port)
        writers.append(writer)
        writer.write(request)
        try:
            assert bool(await reader.read(1)) is answered
        except ConnectionResetError:
            assert not answered
    for writer in writers:
        writer.close()


async def test_past_its_memory_the_edge_refuses_new_requests(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    envoy = EnvoyProcess(_settings(tmp_path, replica, worker_heap_bytes=1 << 20), tmp_path / "out")
    started.append(envoy)
    await envoy.start()
    async with httpx.AsyncClient(timeout=20) as client:
        url = f"http://127.0.0.1:{envoy.port}/.well-known/jwks.json"
        while (response := await client.get(url)).status_code == 200:
            pass
    check_error(response, Reason.SERVICE_OVERLOADED)


async def test_while_the_keys_cannot_be_fetched_tokens_are_not_called_invalid(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    replica.has_keys = False
    settings = _settings(tmp_path, replica)
    envoy = EnvoyProcess(settings, tmp_path / "out")
    started.append(envoy)
    await envoy.start()
    async with httpx.AsyncClient(headers=_headers(settings, replica), timeout=20) as client:
        url = f"http://127.0.0.1:{envoy.port}/v1/models"
        check_error(await client.get(url), Reason.STORE_UNAVAILABLE)
        replica.has_keys = True
        assert (await client.get(url)).status_code == 200


async def test_tls_takes_1_2_and_newer_only(tmp_path: Path, replica: Replica, started: list[EnvoyProcess]) -> None:
    cert, key = certificate(tmp_path)
    settings = _settings(tmp_path, replica, tls_cert_file=cert, tls_key_file=key)
    envoy = EnvoyProcess(settings, tmp_path / "out")
    started.append(envoy)
    await envoy.start()
    context = ssl.create_default_context(cafile=str(cert))
    async with httpx.AsyncClient(verify=context, http2=True) as client:
        response = await client.get(f"https://localhost:{settings.listen_port}/.well-known/jwks.json")
    assert (response.status_code, response.http_version) == (200, "HTTP/2")
    hello = bytes.fromhex("16030100310100002d0302" + "00" * 32 + "000004002f00350100" + "0000")
    reader, writer = await asyncio.open_connection("127.0.0.1", settings.listen_port)
    writer.write(hello)  # offers TLS 1.1
    assert (await reader.read(1))[:1] in (b"\x15", b"")  # an alert
    writer.close()


async def test_callers_cannot_get_a_replica_ejected(
    tmp_path: Path, replica: Replica, started: list[EnvoyProcess]
) -> None:
    # Anybody may ask again and again for a model that is not available.
    def answer(call: Call) -> Iterator[Message]:
        call.context.abort(grpc.StatusCode.UNAVAILABLE, "")
        yield from ()

    second = Replica()
    second.key = replica.key
    replica.answer = second.answer = answer
    ports = (("127.0.0.1", replica.port), ("127.0.0.1", second.port))
    settings = dataclasses.replace(_settings(tmp_path, replica), replicas=ports)
    envoy = EnvoyProcess(settings, tmp_path / "out")
    started.append(envoy)
    try:
        await envoy.start()
        async with httpx.AsyncClient(headers=_headers(settings, replica), timeout=20) as client:
            for _ in range(40):
                check_error(await client.get(f"http://127.0.0.1:{envoy.port}/v1/models"), Reason.SERVICE_OVERLOADED)
    finally:
        second.stop()
    assert len(replica.received) + len(second.received) == 40
    name = "cluster.replicas.outlier_detection.ejections_enforced_total"
    assert await ask_admin(envoy.admin_socket, "GET", f"/stats?filter=^{name}$") == f"{name}: 0\n"


async def test_replicas_may_ask_for_mutual_tls(tmp_path: Path, started: list[EnvoyProcess]) -> None:
    cert, key = certificate(tmp_path)
    pair = (key.read_bytes(), cert.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], root_certificates=pair[1], require_client_auth=True)
    replica = Replica(credentials)
    try:
        known = ReplicaTls(ca_file=cert, server_name="localhost", cert_file=cert, key_file=key)
        envoy = EnvoyProcess(_settings(tmp_path / "a", replica, replica_tls=known), tmp_path / "a")
        started.append(envoy)
        await envoy.start()
        for wrong in (
            dataclasses.replace(known, server_name="other"),
            ReplicaTls(ca_file=cert, server_name="localhost"),
        ):
            with pytest.raises(EnvoyError, match="not ready within"):
                await EnvoyProcess(_settings(tmp_path / "b", replica, replica_tls=wrong), tmp_path / "b").start(
                    within_s=1
                )
    finally:
        replica.stop()
