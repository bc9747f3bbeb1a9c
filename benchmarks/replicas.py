"""Three replicas behind the edge beside one: each has the same small part of a core, as on machines of their own."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.driver import Driver
from benchmarks.processes import descendants
from benchmarks.report import Verdict, number, table
from benchmarks.sections import Findings, Place, Plan
from benchmarks.service import SHAPES, Service, write_models

_COUNTS = (1, 3)
# What is left of two cores is for the edge, the store and the callers.
_CORES = 0.25
_CALLERS = 12
_PERIOD_US = 20_000
# Linux' first interface to groups of processes, whose controllers can be used one by one.
_GROUPS = Path("/sys/fs/cgroup/cpu")


@dataclass(frozen=True, slots=True)
class Scaled:
    """Pictures a second through the edge, with heatmaps or without; `ratio` is the median of the rounds' own."""

    cam: bool
    one_per_s: float
    three_per_s: float
    ratio: float
    errors: int


def _possible() -> bool:
    """Returns whether this process may limit the processor time of others."""
    return os.access(_GROUPS, os.W_OK) and (_GROUPS / "cpu.cfs_quota_us").exists()


def replicas(place: Place, plan: Plan) -> Findings:
    """What replicas add."""
    if not _possible():
        place.progress("replicas: not measured, this needs root and Linux' first cgroups")
        return Findings([])
    found = _measure(place, 2 if plan.quick else 2 * plan.rounds, 3.0 if plan.quick else 8.0)
    rows = [
        (_title(one), number(one.one_per_s), number(one.three_per_s), number(one.ratio), str(one.errors))
        for one in found
    ]
    header = ("load", "one replica", "three", "ratio", "errors")
    print(table(f"Pictures a second through the edge, {_CORES:g} of a core for each replica", header, rows))
    return Findings(
        [asdict(one) for one in found],
        [Verdict(f"three replicas / one, {_title(one)}", one.ratio, 2.7, at_least=True) for one in found],
    )


def _title(one: Scaled) -> str:
    return f"{SHAPES}, {'with' if one.cam else 'no'} CAM"


def _measure(place: Place, rounds: int, seconds: float) -> list[Scaled]:
    models_dir = write_models(place.folder / "replicas-models", place.shapes, [SHAPES])
    rates: defaultdict[tuple[bool, int], list[float]] = defaultdict(list)
    errors: defaultdict[bool, int] = defaultdict(int)
    with ExitStack() as opened:
        services = {}
        for count in _COUNTS:
            place.progress(f"starting a service of {count}")
            settings = {"CAMSERVE_REPLICA_COUNT": str(count), "CAMSERVE_TORCH_THREADS": "1"}
            services[count] = opened.enter_context(Service(place.folder / f"replicas-{count}", models_dir, settings))
        for service in services.values():
            for pid in service.pids()["replica"]:
                opened.enter_context(_limited(pid))
        load = opened.enter_context(Driver("load", place.folder))
        load.hello()
        for turn in range(rounds):
            place.progress(f"round {turn + 1} of {rounds}")
            for cam in (True, False):
                for count in _COUNTS if turn % 2 == 0 else reversed(_COUNTS):
                    sample = load.ask(
                        picture=str(place.photo()),
                        model=SHAPES,
                        cam=cam,
                        concurrency=_CALLERS,
                        warm_up_s=0.25 * seconds,
                        seconds=seconds,
                        way="upload",
                        target=services[count].grpc_target,
                        port=services[count].edge_port,
                        token=services[count].token,
                    )
                    rates[cam, count].append(1000 / sample["ms_per_image"])
                    errors[cam] += sum(sample["errors"].values())
    return [
        Scaled(
            cam,
            median(rates[cam, 1]),
            median(rates[cam, 3]),
            median(three / one for one, three in zip(rates[cam, 1], rates[cam, 3], strict=True)),
            errors[cam],
        )
        for cam in (True, False)
    ]


@contextmanager
def _limited(pid: int) -> Iterator[None]:
    """Gives a replica with its imaging workers their part of a core."""
    group = _GROUPS / f"camserve-{pid}"
    group.mkdir()
    try:
        (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
        (group / "cpu.cfs_quota_us").write_text(str(int(_CORES * _PERIOD_US)))
        for each in descendants(pid):
            (group / "cgroup.procs").write_text(str(each))
        yield
    finally:
        for each in descendants(pid):
            with suppress(OSError):
                (_GROUPS / "cgroup.procs").write_text(str(each))
        group.rmdir()
