"""Installs what was built where nothing of the repository is, and does there what the README says first."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from release.build import PROJECTS, ReleaseError
from release.lock import ROOT

START_WITHIN_S = 180.0
STOP_WITHIN_S = 60.0
PNG = b"\x89PNG\r\n\x1a\n"
PORTS = ("edge", "grpc", "internal", "metrics")


def install(folder: Path, to: Path, *, dependencies: Path | None) -> None:
    """Makes an environment with the wheels in it, and with what the locks name.

    With `dependencies`, a folder of installed packages, it sees those instead, which takes seconds in place of
    minutes.
    """
    subprocess.run([sys.executable, "-m", "venv", str(to)], check=True)
    pip = [str(to / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if dependencies is None:
        for lock in ("build", *(project.lock for project in PROJECTS)):
            file = folder / f"requirements-{lock}.txt"
            subprocess.run([*pip, "--no-build-isolation", "--requirement", str(file)], check=True)
    else:
        packages = next((to / "lib").glob("python*")) / "site-packages"
        (packages / "seen.pth").write_text(f"{dependencies}\n")
    wheels = [str(path) for path in sorted(folder.glob("*.whl"))]
    subprocess.run([*pip, "--no-index", "--no-deps", "--ignore-installed", *wheels], check=True)


def first_steps(programs: Path, place: Path) -> None:
    """Starts `camserve up` of an environment and asks it as the README does; raises ReleaseError where that fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CAMSERVE_", "PYTHON"))}
    environment |= {f"CAMSERVE_{name.upper()}_PORT": str(port) for name, port in zip(PORTS, _ports(), strict=True)}
    environment |= {"PATH": f"{programs}:{environment['PATH']}", "CAMSERVE_TORCH_THREADS": "2"}
    _is_installed(programs, place, environment)
    picture = place / "models" / "shapes" / "2" / "golden" / "star.png"
    picture.parent.mkdir(parents=True)
    shutil.copy(ROOT / picture.relative_to(place), picture)
    ready = place / "ready.json"
    up = subprocess.Popen([str(programs / "camserve"), "up", "--ready-file", str(ready)], cwd=place, env=environment)
    with ExitStack() as stack:
        stack.callback(up.wait, STOP_WITHIN_S)
        stack.callback(up.send_signal, signal.SIGTERM)
        deadline = time.monotonic() + START_WITHIN_S
        while not ready.exists():
            if up.poll() is not None or time.monotonic() > deadline:
                raise ReleaseError("the installed `camserve up` did not start")
            time.sleep(0.1)
        edge = json.loads(ready.read_text())["edge_url"]
        _ask(readme_request().replace("http://127.0.0.1:8080", edge), place, environment)
        token = subprocess.check_output(
            [str(programs / "camserve"), "token", "--tenant", "demo"], env=environment, cwd=place
        )
        called = environment | {"CAM_ADDRESS": edge, "CAM_TOKEN": token.decode().strip()}
        command = ["cam", "infer", str(picture), "--model", "shapes", "--cam", "heatmap.png", "--no-show"]
        subprocess.run([str(programs / command[0]), *command[1:]], cwd=place, env=called, check=True)
        for path in ("heatmap.png", ".camserve/self-check/heatmap.png"):
            if not (place / path).read_bytes().startswith(PNG):
                raise ReleaseError(f"{path} is no picture")
        for path in ("/", "/docs/api"):
            with urllib.request.urlopen(edge + path) as answer:
                if b"<html" not in answer.read().lower():
                    raise ReleaseError(f"{path} is no page")


def readme_request() -> str:
    """Returns the README's first request, as its reader would paste it in an environment that has the programs."""
    section = (ROOT / "README.md").read_text().split("\n## One request and its answer\n")[1]
    block = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    if block is None:
        raise ReleaseError("README.md shows no request")
    return block[1].replace(".venv/bin/", "")


def try_release(folder: Path, *, dependencies: Path | None = None) -> None:
    """Installs the release of a folder in an environment of its own, and takes the first steps in it."""
    with tempfile.TemporaryDirectory() as place:
        environment = Path(place) / "environment"
        install(folder, environment, dependencies=dependencies)
        (Path(place) / "work").mkdir()
        first_steps(environment / "bin", Path(place) / "work")


def _ask(script: str, place: Path, environment: dict[str, str]) -> None:
    said = subprocess.check_output(["sh", "-eu", "-c", script], cwd=place, env=environment)
    answer = json.loads(said)
    if answer.get("classes", [{}])[0].get("id") != "star":
        raise ReleaseError(f"the README's request was answered with {said.decode()}")
    with urllib.request.urlopen(answer["heatmap"]["url"]) as heatmap:
        if not heatmap.read().startswith(PNG):
            raise ReleaseError("the link of the heatmap leads to no picture")


def _is_installed(programs: Path, place: Path, environment: dict[str, str]) -> None:
    """Raises ReleaseError where a package or a program is not of this environment."""
    script = "import camserve_server, camserve_client, camserve_conformance as kit\n"
    script += "print(camserve_server.__file__, camserve_client.__file__, kit.__file__, sep='\\n')"
    printed = subprocess.check_output([str(programs / "python"), "-c", script], cwd=place, env=environment, text=True)
    if strange := [path for path in printed.splitlines() if not path.startswith(f"{programs.parent}/")]:
        raise ReleaseError(f"not of what was installed: {', '.join(strange)}")
    for program in ("camserve", "cam", "camserve-conformance"):
        help_of = [str(programs / program), "--help"]
        subprocess.run(help_of, cwd=place, env=environment, stdout=subprocess.DEVNULL, check=True)


def _ports() -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in PORTS]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
