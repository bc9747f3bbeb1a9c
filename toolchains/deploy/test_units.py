"""The systemd units: systemd finds nothing wrong with them, and their commands run as one service."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import httpx
import pytest
from tests.conftest import camserve_program, free_ports
from tests.faults.valkey import valkey
from tests.images import star_png
from toolchains.deploy.parts import DEPLOY, Part, ending, words

FOLDER = DEPLOY / "systemd"
UNITS = sorted(FOLDER.glob("*.service"))
EXAMPLES = FOLDER / "examples"

pytestmark = pytest.mark.timeout(900)


def values(unit: Path, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", unit.read_text(), re.MULTILINE)


def settings_in(lines: str) -> dict[str, str]:
    return dict(re.findall(r"^(CAMSERVE_\w+)=(.*)$", lines, re.MULTILINE))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="there is no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_systemd_takes_it(unit: Path, tmp_path: Path) -> None:
    program = tmp_path / "camserve"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/opt/camserve/bin/camserve", str(program)))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_it_is_confined_and_has_time_to_end(unit: Path) -> None:
    for key, value in {
        "User": "camserve",
        "NoNewPrivileges": "yes",
        "CapabilityBoundingSet": "",
        "ProtectSystem": "strict",
        "Type": "notify",
        # The children are ended by the program, after it has drained.
        "KillMode": "mixed",
    }.items():
        assert values(unit, key) == [value], key
    assert float(values(unit, "TimeoutStopSec")[0]) >= 2.5 + 20 + 5


def part_of(unit: Path, instance: str, folder: Path, places: dict[str, str]) -> Part:
    settings: dict[str, str] = {}
    for value in values(unit, "EnvironmentFile"):
        name = Path(value.removeprefix("-").replace("%i", instance)).name
        settings |= settings_in((EXAMPLES / name).read_text())
    for value in values(unit, "Environment"):
        settings |= settings_in(value)
    program, *arguments = words(values(unit, "ExecStart")[0])
    assert program == "/opt/camserve/bin/camserve"
    log = folder / f"{unit.stem}{instance}.log"
    return Part(unit.stem + instance, arguments, settings, "127.0.0.1", log, places, {"CAMSERVE_IMAGING_WORKERS": "1"})


def test_the_units_serve_and_say_when_they_are_ready(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    told = sorted(set(re.findall(r"\b(?:5\d{4}|946\d|8443)\b", "".join(p.read_text() for p in EXAMPLES.iterdir()))))
    ports = dict(zip(told, map(str, free_ports(len(told))), strict=True))
    command = [camserve_program(), "keys", "certificate", tmp_path / "tls", "--name", "127.0.0.1"]
    subprocess.run(command, check=True)
    with valkey(tmp_path / "valkey") as store:
        places = {"/var/lib/camserve": str(folder), "/etc/camserve": str(tmp_path / "tls")}
        places |= {"redis://:password@10.0.0.5:6379": store.url}
        parts = [
            part_of(FOLDER / unit, instance, tmp_path, places)
            for unit, instance in (
                ("camserve-api@.service", "1"),
                ("camserve-api@.service", "2"),
                ("camserve-worker.service", ""),
                ("camserve-edge.service", ""),
            )
        ]
        for part in parts:
            for name, value in part.settings.items():
                part.settings[name] = re.sub(r"\b(\d{4,5})\b", lambda found: ports.get(found[1], found[1]), value)
        with ending(parts), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
            supervisor.bind(str(tmp_path / "notify"))
            supervisor.settimeout(180)
            for part in parts:
                part.extra["NOTIFY_SOCKET"] = str(tmp_path / "notify")
                part.start()
                # `systemctl start` and `restart` return now, and not before.
                assert supervisor.recv(100) == b"READY=1", part.log.read_text()[-2000:]
            token = parts[0].run(["camserve", "token", "--tenant", "tests"]).stdout.strip()
            answer = httpx.post(
                f"https://127.0.0.1:{ports['8443']}/v1/infer?model=shapes",
                content=star_png(),
                headers={"Authorization": f"Bearer {token}", "content-type": "image/png"},
                verify=_trusting(tmp_path / "tls" / "ca.pem"),
                timeout=60,
            )
            assert answer.json()["classes"][0]["id"] == "star"
            for part in reversed(parts):
                assert part.end(60) == 0, part.log.read_text()[-2000:]
                assert supervisor.recv(100) == b"STOPPING=1"


def _trusting(authority: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority))
