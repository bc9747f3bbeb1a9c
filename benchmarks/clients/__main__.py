"""Measures the clients: `make bench-clients ARGS="--quick --only LANGUAGE --rounds N --out FILE"`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks import machine
from benchmarks.clients.caller import CLIENT, RAW, Caller
from benchmarks.clients.gigabyte import WHOLE_PX, Uploaded, measure_uploads, size_bytes, write_picture
from benchmarks.clients.languages import Language, languages
from benchmarks.clients.overhead import Overhead, measure_overhead
from benchmarks.report import Verdict, number, table
from benchmarks.sections import Findings
from benchmarks.service import SHAPES, Service, write_models
from camserve_server.base import bundle

FOLDERS = tuple(dict.fromkeys(language.folder for language in languages(Path())))
_MOST_OVERHEAD = 1.05
_MOST_GROWTH_MB = 64.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured: rounds of calls and of uploads, the calls of a turn, the picture's height in pixels."""

    rounds: int = 9
    upload_rounds: int = 3
    calls: int = 640
    height_px: int = WHOLE_PX


QUICK = Plan(rounds=3, upload_rounds=1, calls=320, height_px=WHOLE_PX // 4)


def measure(plan: Plan, chosen: Iterable[str], progress: Callable[[str], None]) -> Findings:
    """Builds the callers of the chosen clients, measures them on one stack and prints the tables.

    A client whose tools are missing is in the tables, and misses its targets. Raises BuildError, CallerError and
    ServiceError.
    """
    wanted = set(chosen)
    with TemporaryDirectory(prefix="camserve-clients-") as name:
        folder = Path(name)
        every = [language for language in languages(folder) if language.folder in wanted]
        present = [language for language in every if not language.missing()]
        for language in {one.folder: one for one in present}.values():
            progress(f"building the caller in clients/{language.folder}")
            language.build()
        overheads, uploads = _measured(plan, present, folder, progress) if present else ([], [])
    _print_overheads(every, {one.language: one for one in overheads})
    _print_uploads(every, {one.language: one for one in uploads}, plan)
    figures = {
        "missing": {language.name: language.missing() for language in every if language.missing()},
        "overhead": [asdict(one) for one in overheads],
        "uploads": [asdict(one) for one in uploads],
    }
    return Findings(figures, _verdicts(every, overheads, uploads))


def _measured(
    plan: Plan, present: list[Language], folder: Path, progress: Callable[[str], None]
) -> tuple[list[Overhead], list[Uploaded]]:
    progress("starting the stack")
    small = bundle.MODELS / SHAPES / "2" / "golden" / "star.png"
    models_dir = write_models(folder / "models", bundle.MODELS / SHAPES, [SHAPES])
    # 32 calls at once are never refused, as raw stubs would not call again.
    settings = {"CAMSERVE_QUEUE_WAIT_S": "60", "CAMSERVE_MAX_IMAGE_BYTES": str(size_bytes(plan.height_px))}
    with Service(folder / "service", models_dir, settings) as service:
        progress("calls by raw stubs and by the clients, in turns")
        with _running([one for one in present if one.calls], service, small, folder) as callers:
            overheads = measure_overhead(callers, plan.rounds, plan.calls)
        progress(f"uploads of {size_bytes(plan.height_px) / 1e6:.0f} MB")
        picture = folder / "picture.bmp"
        sha256 = write_picture(picture, plan.height_px)
        with _running(present, service, small, folder) as callers:
            uploads = measure_uploads(callers, service, small, picture, sha256, plan.upload_rounds)
    return overheads, uploads


@contextmanager
def _running(chosen: list[Language], service: Service, picture: Path, folder: Path) -> Iterator[list[Caller]]:
    with ExitStack() as stack:
        yield [stack.enter_context(Caller(language, service, picture, folder)) for language in chosen]


def _print_overheads(every: list[Language], found: dict[str, Overhead]) -> None:
    rows = []
    for language in every:
        if not language.calls:
            continue
        if language.missing():
            rows.append(_not_measured(language, 7))
            continue
        one = found[language.name]
        ratios = sorted(one.ratios())
        figures = [median(one.wall_ms[RAW]), median(one.wall_ms[CLIENT])]
        cpu = [median(one.cpu_ms[RAW]), median(one.cpu_ms[CLIENT])]
        rows.append(
            (
                language.name,
                *(f"{figure:.2f}" for figure in figures),
                f"{median(ratios):.3f}",
                f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
                *(f"{figure:.3f}" for figure in cpu),
                f"{one.cpu_ratio():.2f}",
            )
        )
    header = ("client", "raw, ms", "client, ms", "ratio", "of the rounds", "raw, CPU ms", "client, CPU ms", "ratio")
    print(table("A call, 32 at once, by raw stubs with a key and by the client", header, rows))


def _print_uploads(every: list[Language], found: dict[str, Uploaded], plan: Plan) -> None:
    rows = []
    for language in every:
        if language.missing():
            rows.append(_not_measured(language, 4))
            continue
        one = found[language.name]
        rows.append((language.name, *map(number, (one.idle_mb, one.peak_mb, one.growth_mb, one.mb_s))))
    header = ("client", "idle, MB", "peak, MB", "growth, MB", "MB/s")
    print(table(f"An upload of {size_bytes(plan.height_px) / 1e6:.0f} MB", header, rows))


def _not_measured(language: Language, cells: int) -> tuple[str, ...]:
    return (language.name, f"not measured: no {', '.join(language.missing())}", *[""] * (cells - 1))


def _verdicts(every: list[Language], overheads: list[Overhead], uploads: list[Uploaded]) -> list[Verdict]:
    ratios = {one.language: median(one.ratios()) for one in overheads}
    growths = {one.language: one.growth_mb for one in uploads}
    return [
        Verdict(f"client / raw stubs, 32 at once, {language.name}", ratios.get(language.name, nan), _MOST_OVERHEAD)
        for language in every
        if language.calls
    ] + [
        Verdict(f"growth over an upload, {language.name}", growths.get(language.name, nan), _MOST_GROWTH_MB, " MB")
        for language in every
        if language.held
    ]


def main() -> None:
    """Measures, prints the tables, then the verdicts."""
    parser = argparse.ArgumentParser(prog="make bench-clients", description="What the clients cost.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and a quarter of a gigabyte")
    parser.add_argument("--only", choices=FOLDERS, action="append", help="one client; may be repeated")
    parser.add_argument("--rounds", type=int, default=None, help="rounds of calls; default 9")
    parser.add_argument("--out", type=Path, default=None, help="receives every figure as JSON")
    options = parser.parse_args()
    # As Ctrl-C does: leaves the `with` blocks that end the stack and the callers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = Plan(options.rounds, plan.upload_rounds, plan.calls, plan.height_px)
    started = time.monotonic()

    def progress(text: str) -> None:
        print(f"[{time.monotonic() - started:5.0f} s] {text}", file=sys.stderr, flush=True)

    busy = [machine.busy_cores()]
    print(machine.describe())
    found = measure(plan, options.only or FOLDERS, progress)
    busy.append(machine.busy_cores())
    print(table("Targets", ("figure", "measured", "target", ""), [verdict.row() for verdict in found.verdicts]))
    print(
        f"\nOther programs kept {busy[0]:.1f} cores busy before and {busy[1]:.1f} after; with more than a few tenths,"
        f" only ratios mean anything. {plan.rounds} rounds, {time.monotonic() - started:.0f} s."
    )
    if options.out:
        targets = [{**asdict(verdict), "passes": verdict.passes} for verdict in found.verdicts]
        document = {"machine": machine.describe(), "busy_cores": busy, "targets": targets, **found.figures}
        options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
