"""The real stack, started by `camserve up` in a folder of its own: Valkey, one replica and Envoy."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from benchmarks.processes import by_role
from camserve_server.base.config import load
from camserve_server.cli.tokens import issuer
from camserve_server.core.tokens import SCOPES
from camserve_server.engine.golden import write_golden
from camserve_server.engine.manifest import FILE_NAME, Precision
from camserve_server.engine.model import bring_version

SHAPES = "shapes"
RESNET = "resnet50"
_HEALTHY_WITHIN_S = 120.0
_STOPPED_WITHIN_S = 40.0
# Longer than a benchmark of clients takes on a busy machine.
_TOKEN_TTL_S = 4 * 3600
_PORTS = ("EDGE", "GRPC", "INTERNAL", "METRICS")
# `urlopen` keeps the proxies of its first use in the process.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

_GOLDEN = "golden.json"
_LENIENT = {"prob": 0.05, "cam": 0.05}
_FLOAT32 = 'precision = "float32"'
_RESNET_TOML = """name = "resnet50"
version = "1"
aliases = ["stable"]
labels = "imagenet"
precision = "float32"

[architecture]
builder = "torchvision:resnet50"

[weights]
random = 0

[input]
width = 224
height = 224
fit = "crop"
resize_px = 256
"""


class ServiceError(Exception):
    """The stack did not start; the message is the end of what it said."""


def write_models(folder: Path, shapes: Path, names: Sequence[str], precision: Precision = "float32") -> Path:
    """Fills `folder` with the named models in a precision, resnet50 with random weights, and returns it."""
    if SHAPES in names:
        shutil.copytree(shapes, folder / SHAPES)
        for manifest in folder.glob(f"{SHAPES}/*/{FILE_NAME}"):
            manifest.write_text(manifest.read_text().replace(_FLOAT32, f'precision = "{precision}"'))
    if RESNET in names:
        version = folder / RESNET / "1"
        version.mkdir(parents=True)
        (version / FILE_NAME).write_text(_RESNET_TOML.replace(_FLOAT32, f'precision = "{precision}"'))
        if precision != "float32":
            _write_golden(version, next(shapes.glob("*/golden/*.png")))
    return folder


def _write_golden(folder: Path, picture: Path) -> None:
    """Writes golden inputs that are lenient: random weights amplify a rounding more than learned ones."""
    with (folder / FILE_NAME).open("a") as manifest:
        manifest.write(f'[golden]\nfile = "{_GOLDEN}"\n')
    (folder / _GOLDEN).write_text('{"cases": []}')
    model = bring_version(folder, torch.device("cpu"), max_batch=1, weights_dir=None, precise=True)
    write_golden(folder, _GOLDEN, [(picture.name, picture.read_bytes())], model)
    golden = json.loads((folder / _GOLDEN).read_text()) | {"tolerances": _LENIENT}
    (folder / _GOLDEN).write_text(json.dumps(golden))


class Service:
    """One running stack. `startup_s` is the time from the command to the ready file."""

    def __init__(self, folder: Path, models_dir: Path, settings: Mapping[str, str] | None = None) -> None:
        """Starts it and returns once it is healthy; raises ServiceError when it ends or takes too long."""
        ready = folder / "ready.json"
        self._folder = folder
        self._log = log = folder / "up.log"
        folder.mkdir(parents=True)
        environment = environment_for(folder, models_dir) | dict(settings or {})
        started = time.monotonic()
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "camserve_server.cli.app", "up", "--ready-file", str(ready)],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() - started > _HEALTHY_WITHIN_S:
                self.close()
                raise ServiceError(log.read_text(errors="replace")[-2000:])
            time.sleep(0.01)
        self.startup_s = time.monotonic() - started
        state = json.loads(ready.read_text())
        self.edge_port = int(state["edge_url"].rpartition(":")[2])
        self.grpc_target = str(state["grpc_target"])
        self._metrics_url = f"http://127.0.0.1:{environment['CAMSERVE_METRICS_PORT']}/metrics"
        self._issuer = issuer(load(data_dir=folder / "data"))
        self._tokens: dict[str, str] = {}
        self.token = self.token_of("benchmark")

    def token_of(self, tenant: str) -> str:
        """Returns a token with every scope."""
        if tenant not in self._tokens:
            token = self._issuer.issue(tenant=tenant, subject="benchmark", scopes=SCOPES, ttl_s=_TOKEN_TTL_S)
            self._tokens[tenant] = token
        return self._tokens[tenant]

    def pids(self) -> dict[str, list[int]]:
        """Returns the processes by role; see `processes.role`."""
        return by_role(self._process.pid)

    def redis_url(self) -> str:
        """Returns the address of the embedded store."""
        return str(json.loads((self._folder / "data/run/stack.json").read_text())["redis_url"])

    def objects_dir(self) -> Path:
        """Returns where the objects lie."""
        return self._folder / "data/objects"

    def batches(self) -> tuple[float, float]:
        """Returns how many batches the engine has run so far, and of how many images."""
        batches, images = (self.metric(f"camserve_batch_images_{end}") for end in ("count", "sum"))
        return batches, images

    def metric(self, name: str) -> float:
        """Returns a metric of the replica, summed over its labels."""
        with _DIRECT.open(self._metrics_url, timeout=10) as response:
            lines = response.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def close(self) -> None:
        """Stops everything as Ctrl-C does."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_STOPPED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes; an error leaves with the last lines of what the processes wrote."""
        self.close()
        if error is not None:
            for log in (self._log, *self._folder.rglob("server.log")):
                error.add_note(f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}")


def environment_for(folder: Path, models_dir: Path) -> dict[str, str]:
    """Returns an environment in which camserve keeps to `folder` and to free ports.

    Everything else is as shipped.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("CAMSERVE_")}
    ports = dict(zip((f"CAMSERVE_{name}_PORT" for name in _PORTS), _free_ports(len(_PORTS)), strict=True))
    return {
        **inherited,
        **ports,
        "CAMSERVE_CONFIG": str(folder / "camserve.toml"),
        "CAMSERVE_DATA_DIR": str(folder / "data"),
        "CAMSERVE_MODELS_DIR": str(models_dir),
    }


def _free_ports(count: int) -> list[str]:
    """Returns ports of the loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports
