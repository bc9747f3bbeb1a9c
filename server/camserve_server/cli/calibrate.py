"""`camserve models calibrate`: a temperature fitted to labelled pictures, and a version that has it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from camserve_server.base.config import Settings
from camserve_server.base.cores import cores
from camserve_server.base.errors import ApiError, OperatorError
from camserve_server.cli.model_routes import check_no_alias
from camserve_server.core.calibration import Fitted, fit, score
from camserve_server.engine.calibration import BINS, Reliability
from camserve_server.engine.device import choose_device, prepare_thread
from camserve_server.engine.engine import EngineSettings
from camserve_server.engine.folders import earlier_versions, find_folders
from camserve_server.engine.golden import GoldenFile
from camserve_server.engine.imaging import ImagingPool
from camserve_server.engine.labelled_pictures import find_labelled, some
from camserve_server.engine.manifest import NAME_PATTERN, Calibration, UnloadableError, read_manifest
from camserve_server.engine.model import ModelVersion, load_version
from camserve_server.engine.names import check_apart
from camserve_server.engine.recalibration import golden_at, stage_recalibrated
from camserve_server.engine.scoring import Scorer
from camserve_server.engine.staging import publish, staging_folder
from camserve_server.part_settings import engine_settings, imaging_settings

Say = Callable[[str], None]

_SHOWN = 3


def calibrate(
    settings: Settings,
    name: str,
    version: str,
    pictures: Path,
    new_version: str | None = None,
    calibration_version: str | None = None,
    *,
    say: Say,
    warn: Say,
) -> None:
    """Fits a temperature for a version to a folder or CSV file of labelled pictures, and says what it does.

    With `new_version` that one is written to the models of the data folder. Raises OperatorError for what does not go.
    """
    folders = {
        folder.name: folder
        for folder in find_folders(engine_settings(settings).models_dirs)
        if folder.parent.name == name
    }
    if version not in folders:
        raise OperatorError(
            f"{name} has no version {version}, only {', '.join(folders)}" if folders else f"there is no model {name}"
        )
    calibration_version = _calibration_version(calibration_version, list(folders.values()))
    if new_version is not None:
        _check_free(settings, name, new_version, folders)
    asyncio.run(_calibrate(settings, folders[version], pictures, new_version, calibration_version, say, warn))


async def _calibrate(
    settings: Settings,
    folder: Path,
    pictures: Path,
    new_version: str | None,
    calibration_version: str,
    say: Say,
    warn: Say,
) -> None:
    async with _scorer(settings, folder) as scorer:
        ids = [label.id for label in scorer.model.labels]
        found = await asyncio.to_thread(find_labelled, pictures, ids)
        with _progress(len(found)) as note:
            scored = await score(scorer, found, note)
        if scored.refused:
            shown = "".join(f"\n  {path}: {why}" for path, why in scored.refused[:_SHOWN])
            warn(f"{len(scored.refused)} pictures are left out, such as{shown}")
        fitted = await asyncio.to_thread(fit, scorer.model, scored)
        for line in report(scorer.model, fitted):
            say(line)
        if new_version is None:
            say("Nothing is written: --as VERSION writes a version with this temperature.")
            return
        if not fitted.helps:
            raise OperatorError("nothing is written: the temperature in force does as well")
        calibration = Calibration(temperature=fitted.temperature, version=calibration_version)
        place = await _write(settings, scorer, folder, new_version, calibration, fitted)
    say(f"{folder.parent.name} {new_version}, calibration {calibration_version}, is in {place}.")
    say("Running servers load it; no alias leads to it.")


def report(model: ModelVersion, fitted: Fitted) -> list[str]:
    """Returns what people are told of a temperature."""
    before, after = fitted.before, fitted.after
    missing = [class_id for class_id, pictures in fitted.pictures_of_class.items() if not pictures]
    columns = f"{'pictures':>12}{'stated':>9}{'right':>9}"
    return [
        f"{model.name} {model.version}, calibration {model.calibration_version}, on {before.pictures} pictures",
        *([f"classes without pictures: {some(missing)}"] if missing else []),
        "",
        f"{'':13}{'before':>10}{'after':>10}",
        f"{'temperature':13}{fitted.temperature_before:>10.4f}{fitted.temperature:>10.4f}",
        f"{'accuracy':13}{before.accuracy:>10.2%}{after.accuracy:>10.2%}",
        f"{'NLL':13}{before.nll:>10.4f}{after.nll:>10.4f}",
        f"{f'ECE, {BINS} bins':13}{before.ece:>10.4f}{after.ece:>10.4f}",
        "",
        f"{'confidence':12}{'before':>30}{'after':>30}",
        f"{'':12}{columns}{columns}",
        *_bins(before, after),
        "",
    ]


def _bins(before: Reliability, after: Reliability) -> list[str]:
    sides = [{round(each.low * BINS): each for each in reliability.bins} for reliability in (before, after)]
    lines = []
    for number in sorted(set().union(*sides)):
        cells = [side.get(number) for side in sides]
        shown = [
            f"{each.pictures:>12}{each.confidence:>9.3f}{each.accuracy:>9.3f}" if each else f"{0:>12}{'':>18}"
            for each in cells
        ]
        lines.append(f"{number / BINS:.3f}-{(number + 1) / BINS:.3f} {''.join(shown)}".rstrip())
    return lines


def _calibration_version(wanted: str | None, folders: list[Path]) -> str:
    """Returns the name of the new calibration: the one that is wanted, or the number after the highest."""
    known = set()
    for folder in folders:
        try:
            known.add(read_manifest(folder).calibration.version)
        except UnloadableError:
            continue
    if wanted in known:
        raise OperatorError(f"there is a calibration {wanted} of the model already")
    return wanted or str(max((int(each) for each in known if each.isdecimal()), default=0) + 1)


def _check_free(settings: Settings, name: str, version: str, folders: dict[str, Path]) -> None:
    if not re.match(NAME_PATTERN, version):
        raise OperatorError(f"{version} cannot name a version: up to 64 letters, digits, and . _ - within")
    if version in folders:
        raise OperatorError(f"{name} {version} is there already, and versions do not change")
    try:
        check_apart(engine_settings(settings).models_dirs, name, version)
    except UnloadableError as error:
        raise OperatorError(f"{version} cannot name a version: {error}") from None
    check_no_alias(settings, name, version)


@asynccontextmanager
async def _scorer(settings: Settings, folder: Path) -> AsyncIterator[Scorer]:
    """Gives the version of a folder, loaded in a thread of its own, and workers that decode for it."""
    wanted = engine_settings(settings)
    device, threads = choose_device(wanted.device), wanted.torch_threads or cores()
    pool = ImagingPool(imaging_settings(settings))
    with ThreadPoolExecutor(1, initializer=lambda: prepare_thread(device, threads)) as thread:
        # Golden answers, which it writes anew, are those of float32.
        model = await _load(thread, wanted, folder, precise=True)
        await pool.start()
        try:
            yield Scorer(model, pool, thread, model.max_batch or wanted.max_batch)
        finally:
            await pool.close()


async def _load(thread: Executor, wanted: EngineSettings, folder: Path, *, precise: bool) -> ModelVersion:
    """Loads a version, `precise` in float32; raises OperatorError where it could not serve or is not as published."""

    def load() -> ModelVersion:
        earlier = earlier_versions(wanted.models_dirs, folder)
        device = choose_device(wanted.device)
        return load_version(
            folder,
            device,
            max_batch=wanted.max_batch,
            weights_dir=wanted.weights_dir,
            earlier=earlier,
            precise=precise,
        )

    model = await asyncio.get_running_loop().run_in_executor(thread, load)
    if model.state != "ready":
        raise OperatorError(f"{model.name} {model.version} cannot be loaded: {model.reason}")
    if model.golden == "failed":
        raise OperatorError(f"{model.name} {model.version} fails its golden inputs: {model.golden_reason}")
    return model


async def _write(
    settings: Settings, scorer: Scorer, folder: Path, version: str, calibration: Calibration, fitted: Fitted
) -> Path:
    """Writes the new version, loads it as a replica would, and puts it in its place once it is right."""
    golden = await _golden(scorer, folder, calibration.temperature)
    figures = {"from_version": scorer.model.version} | fitted.figures()
    models_dir = settings.data_dir / "models"
    with staging_folder(models_dir) as staging:
        staged = await asyncio.to_thread(
            stage_recalibrated, folder, Path(staging), version, calibration, golden=golden, figures=figures
        )
        await _load(scorer.thread, engine_settings(settings), staged, precise=False)
        return publish(staged, models_dir)


async def _golden(scorer: Scorer, folder: Path, temperature: float) -> GoldenFile | None:
    named = read_manifest(folder).golden
    if named is None:
        return None
    golden = GoldenFile.model_validate_json((folder / named.file).read_bytes())
    scores = await scorer.score([folder / case.image for case in golden.cases])
    rows = [row for row in scores if not isinstance(row, ApiError)]
    if len(rows) < len(scores):
        raise OperatorError("the version's golden inputs cannot be decoded")
    return golden_at(golden, rows, [label.id for label in scorer.model.labels], temperature)


@contextmanager
def _progress(pictures: int) -> Iterator[Callable[[int], None]]:
    """Shows how many pictures are done, on a terminal only."""
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("pictures", total=pictures)
        yield lambda done: bar.advance(task, done)
