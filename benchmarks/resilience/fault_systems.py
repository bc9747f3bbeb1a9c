"""What breaks: two systems, and the ways to hurt each of their parts."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import redis
from tests.engine.tiny import write_model
from tests.faults.callers import BROKEN
from tests.faults.proxy import fault_proxy
from tests.faults.valkey import valkey
from tests.s3_server import S3Server, s3_server

from benchmarks.sections import Place
from benchmarks.service import SHAPES, Service, write_models

_ROOT = Path(__file__).parents[2]
_FAULTY = "faulty"
_BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that lasts `seconds` from `begin` to `end`; without an end it passes by itself.

    `stores` asks for heatmaps, which are stored. `expected` are codes that tell the callers of it whom it hits.
    """

    name: str
    begin: Callable[[], object]
    end: Callable[[], object] = _nothing
    seconds: float = 3.0
    model: str = SHAPES
    stores: bool = False
    expected: frozenset[str] = frozenset()
    quick: bool = False


System = Callable[[Place], AbstractContextManager[tuple[Service, Sequence[Fault]]]]


@contextmanager
def on_one_machine(place: Place) -> Iterator[tuple[Service, Sequence[Fault]]]:
    """The stack as `camserve up` starts it, with a model and a disk that can be broken."""
    folder = place.folder / "faults"
    models_dir = write_models(place.folder / "faults-models", place.shapes, [SHAPES])
    write_model(models_dir, _FAULTY, architecture='builder = "tests.engine.tiny:SwitchedNet"')
    switches = place.folder / "switches"
    switches.mkdir()
    model, disk = switches / "model", switches / "disk"
    settings = {
        "PYTHONPATH": os.pathsep.join([str(_ROOT / "tests" / "faults" / "full_disk"), str(_ROOT)]),
        "TINY_FAULT": str(model),
        "FULL_DISK_WHEN": str(disk),
        "FULL_DISK": str(folder / "data" / "objects"),
        # A worker that stands still is noticed within the time that the fault lasts.
        "CAMSERVE_IMAGING_DEADLINE_S": "2",
    }
    with Service(folder, models_dir, settings) as service:

        def hit(role: str, number: int) -> None:
            os.kill(service.pids()[role][0], number)

        def limit(size: int) -> None:
            url = json.loads((folder / "data" / "run" / "stack.json").read_text())["redis_url"]
            with redis.Redis.from_url(url) as client:
                client.config_set("maxmemory", size)

        def broken_model(name: str, how: str, *, quick: bool = False) -> Fault:
            begin = partial(model.write_text, how)
            return Fault(name, begin, model.unlink, model=_FAULTY, expected=frozenset({"internal"}), quick=quick)

        worker = "imaging worker"
        yield (
            service,
            [
                Fault("Valkey killed", partial(hit, "Valkey", signal.SIGKILL), seconds=0.0, quick=True),
                Fault(
                    "Valkey paused",
                    partial(hit, "Valkey", signal.SIGSTOP),
                    partial(hit, "Valkey", signal.SIGCONT),
                    seconds=30.0,
                ),
                Fault("Valkey full", partial(limit, 1), partial(limit, 0), quick=True),
                Fault("disk of the objects full", disk.touch, disk.unlink, stores=True),
                broken_model("model raises", "raise", quick=True),
                broken_model("model out of memory", "memory"),
                broken_model("model gives NaN", "nan"),
                Fault("imaging worker killed", partial(hit, worker, signal.SIGKILL), seconds=0.0),
                Fault(
                    "imaging worker hangs", partial(hit, worker, signal.SIGSTOP), expected=frozenset({"image.rejected"})
                ),
                Fault("Envoy killed", partial(hit, "Envoy", signal.SIGKILL), seconds=0.0, expected=frozenset({BROKEN})),
            ],
        )


@contextmanager
def with_parts_elsewhere(place: Place) -> Iterator[tuple[Service, Sequence[Fault]]]:
    """The stack with its state in one of two Valkeys and its objects in a bucket, both behind a network that fails."""
    folder = place.folder / "faults-elsewhere"
    bucket_dir = place.folder / "bucket"
    bucket_dir.mkdir()
    with (
        valkey(place.folder / "valkey-a") as primary,
        valkey(place.folder / "valkey-b") as other,
        s3_server(bucket_dir) as bucket,
        fault_proxy("127.0.0.1", primary.port) as store,
        fault_proxy("127.0.0.1", int(bucket.url.rpartition(":")[2])) as objects,
    ):
        own = S3Server(f"http://127.0.0.1:{objects.port}").environment("faults")
        own["redis_url"] = f"redis://127.0.0.1:{store.port}"
        other.follow(primary)

        def promote() -> None:
            other.ask("REPLICAOF", "NO", "ONE")
            store.target = ("127.0.0.1", other.port)

        models_dir = write_models(place.folder / "elsewhere-models", place.shapes, [SHAPES])
        settings = {f"CAMSERVE_{name.upper()}": value for name, value in own.items()}
        with Service(folder, models_dir, settings) as service:
            yield (
                service,
                [
                    Fault(
                        "Valkey slow by 0.3 s",
                        partial(setattr, store, "delay_s", 0.3),
                        partial(setattr, store, "delay_s", 0.0),
                    ),
                    Fault("Valkey fails over", primary.kill, promote, seconds=2.0),
                    Fault(
                        "bucket answers 503",
                        partial(setattr, objects, "answer", _BUSY),
                        partial(setattr, objects, "answer", None),
                        stores=True,
                    ),
                    Fault(
                        "bucket slow by 0.5 s",
                        partial(setattr, objects, "delay_s", 0.5),
                        partial(setattr, objects, "delay_s", 0.0),
                        stores=True,
                    ),
                ],
            )


SYSTEMS: tuple[System, ...] = (on_one_machine, with_parts_elsewhere)
