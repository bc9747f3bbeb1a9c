"""Runs the two examples that the clients in compiled languages have, and the commands of their READMEs."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import Stack, camserve_program
from tests.faults.proxy import FaultProxy
from toolchains.clients.conftest import ROOT, run

# An upload that goes on has at least its first piece behind it.
PIECE_BYTES = 8 << 20
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


def assert_infers(program: Path, pictures: Path, environment: dict[str, str], heatmap: Path) -> None:
    """The example prints the classes of a photo and writes its heatmap."""
    said = run(str(program), "photo.jpg", str(heatmap), cwd=pictures, environment=environment)
    assert re.match(r"star 0\.9\d+\n", said)
    assert len(said.splitlines()) == 5
    assert heatmap.read_bytes().startswith(b"\x89PNG")


def assert_refused(program: Path, pictures: Path, environment: dict[str, str]) -> None:
    """The example prints code, status and request id of a refusal."""
    refused = (program, "photo.jpg", "none.png", "none")
    said = subprocess.run(refused, cwd=pictures, env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 1, said.stderr
    assert re.fullmatch(r"model\.not_found 404 [0-9a-f-]{36}\n", said.stdout)


def assert_uploads(program: Path, slide: Path, environment: dict[str, str]) -> None:
    """The example stores 50 MB, tells how far they came, and never holds as much memory as that."""
    data = slide.read_bytes()
    peak_bytes = 0
    told = []
    with subprocess.Popen((program, slide), env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            told.append(line.rstrip())
            # Another program's peak is known only while it runs; a child's own account would count its parent's.
            if peak := _PEAK.search(Path(f"/proc/{running.pid}/status").read_text()):
                peak_bytes = int(peak[1]) << 10
    assert running.returncode == 0
    *progress, stored = told
    sent = [int(line.split()[0]) for line in progress]
    assert sent == sorted(sent)
    assert len(sent) > 50
    assert progress[-1] == f"{len(data)} of {len(data)} bytes"
    assert stored.split()[1] == hashlib.sha256(data).hexdigest()
    assert 0 < peak_bytes < len(data)


def assert_survives(command: Sequence[str | Path], slide: Path, environment: dict[str, str], proxy: FaultProxy) -> int:
    """The upload is stored although its connection broke on the way; returns from where it went on, in bytes."""
    data = slide.read_bytes()
    before, after = [], []
    with subprocess.Popen((*command, slide), env=environment, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout
        for line in running.stdout:
            (after if proxy.taken > 1 else before).append(line)
            # The proxy runs in this process: without it no more bytes pass.
            if len(before) == 40 and not after:
                proxy.cut()
    assert running.returncode == 0
    assert proxy.taken > 1
    *progress, stored = after
    assert stored.split()[1] == hashlib.sha256(data).hexdigest()
    return min(int(line.split()[0]) for line in progress)


def run_commands(readme: Path, stack: Stack, folder: Path, *, without: str = "nothing") -> str:
    """Runs the commands of a README in a clone, and returns what they print; the heatmap goes to a folder.

    Lines that begin with `without` change the machine, and are not run.
    """
    blocks = re.findall(r"^```sh\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
    text = "".join(line for line in "".join(blocks).splitlines(keepends=True) if not line.startswith(without))
    text = re.sub(r"(\.\./)*\.venv/bin/camserve", camserve_program(), text)
    text = text.replace("127.0.0.1:50051", stack.grpc_target).replace("heatmap.png", str(folder / "heatmap.png"))
    said = run("bash", "-euc", text, cwd=ROOT, environment=stack.environment)
    assert (folder / "heatmap.png").read_bytes().startswith(b"\x89PNG")
    return said
