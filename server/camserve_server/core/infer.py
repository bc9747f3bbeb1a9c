"""One image in, classes and a heatmap out: the stages of a prediction in their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Literal

import numpy as np

from camserve_server.base import tracing
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import STAGE_SECONDS
from camserve_server.core.antivirus import Antivirus
from camserve_server.core.batch_memory import BatchMemory
from camserve_server.core.gate import Gate
from camserve_server.core.heatmaps import Heatmaps
from camserve_server.core.infer_options import BatchInput, InferOptions
from camserve_server.core.infer_result import BatchOutcome, ClassScore, InferResult, Timings
from camserve_server.core.links import Links
from camserve_server.core.model_figures import ModelFigures
from camserve_server.core.shadows import Shadows
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.engine.engine import Engine, Explain
from camserve_server.engine.imaging import DecodeRequest, ImagingPool
from camserve_server.engine.model import ModelVersion

BATCH_LIMIT = 256

Lane = Literal["unary", "stream"]


class InferService:
    """Predicts: decode, batch, forward, explain, render, store."""

    def __init__(
        self,
        engine: Engine,
        imaging: ImagingPool,
        links: Links,
        antivirus: Antivirus,
        gate: Gate,
        shadows: Shadows,
        figures: ModelFigures,
        *,
        timeout_s: float,
        batch_width: int,
    ) -> None:
        self._engine = engine
        self._antivirus = antivirus
        self._gate = gate
        self._shadows = shadows
        self._figures = figures
        self._imaging = imaging
        self._heatmaps = Heatmaps(imaging, links)
        self._timeout_s = timeout_s
        self._batch_width = batch_width

    def check(self, tenant: str, options: InferOptions) -> ModelVersion:
        """Refuses what can be refused before any byte of the image is read; returns the version that will answer.

        Too many calls are no reason to refuse while they are too many for the time budget: then a job is made of one.
        Raises ApiError: MODEL_*, PARAM_INVALID (target), PARAM_LAYER_NOT_FOUND, CIRCUIT_OPEN, SERVICE_OVERLOADED.
        """
        version = self.validate(options)
        self._check_room(tenant, version)
        return version

    def check_room(self, tenant: str, options: InferOptions) -> None:
        """Refuses what has no chance of an answer now; raises ApiError: MODEL_*, CIRCUIT_OPEN, SERVICE_OVERLOADED."""
        self._check_room(tenant, self._engine.resolve(options.model, options.model_version))

    def _check_room(self, tenant: str, version: ModelVersion) -> None:
        # A version that keeps failing gets no calls, and must not look better for that.
        with self._figures.errors(version, "answer"):
            self._engine.check_circuit(version)
        if self.in_time(tenant, version, self._timeout_s):
            self._gate.check(version.key, tenant)

    def in_time(self, tenant: str, version: ModelVersion, budget_s: float) -> bool:
        """Returns whether an image that came now would have its turn within the budget, as far as can be told."""
        return self._imaging.wait_s(_share(version, tenant, background=False)) + self._engine.wait_s(version) < budget_s

    def budget_s(self, time_left_s: float | None) -> float:
        """Returns the time budget of a call whose caller waits that long."""
        return self._timeout_s if time_left_s is None else min(self._timeout_s, time_left_s)

    def validate(self, options: InferOptions) -> ModelVersion:
        """Refuses what `check` refuses, but for a full queue and an open circuit: what is asked for may wait."""
        version = self._engine.resolve(options.model, options.model_version)
        if options.heatmap:
            _target_index(version, options.heatmap.target)
            _check_layer(version, options.heatmap.layer)
        return version

    def validate_each(self, inputs: Sequence[BatchInput]) -> None:
        """As `validate` for every input; the error's field says which."""
        seen: set[InferOptions] = set()
        for at, entry in enumerate(inputs):
            if entry.options in seen:
                continue
            seen.add(entry.options)
            try:
                self.validate(entry.options)
            except ApiError as error:
                raise error.at(f"inputs[{at}]") if "field" in error.details else error from None

    def check_circuit(self, options: InferOptions) -> None:
        """Raises ApiError: MODEL_*, and CIRCUIT_OPEN while the version keeps failing."""
        self._engine.check_circuit(self._engine.resolve(options.model, options.model_version))

    def lacks(self, model: str, version: str) -> bool:
        """Returns whether the version cannot answer here and now, though it may later or on another replica.

        A version that is retired answers nowhere, and is not lacking.
        """
        try:
            self._engine.resolve(model, version)
        except ApiError:
            return not self._engine.is_retired(model, version)
        return False

    async def infer(
        self,
        tenant: str,
        image: SharedBuffer,
        options: InferOptions,
        *,
        time_left_s: float | None = None,
        defer_above_px: int | None = None,
    ) -> InferResult:
        """Returns the answer for `image` within the time budget; a full queue refuses at once.

        Raises ApiError: those of `check`, everything the imaging workers refuse, TIMEOUT_EXCEEDED; DeferredError
        for a sound image of more than `defer_above_px` pixels.
        """
        return await self._within(
            self.budget_s(time_left_s), tenant, image, options, "unary", defer_above_px=defer_above_px
        )

    async def infer_batch(self, tenant: str, inputs: list[BatchInput]) -> AsyncGenerator[BatchOutcome]:
        """Yields every input's outcome as it completes; closing the iterator cancels the rest."""
        pending, memory = iter(inputs), BatchMemory()
        running: set[asyncio.Task[BatchOutcome]] = set()
        try:
            while True:
                while len(running) < self._batch_width and (entry := next(pending, None)):
                    running.add(asyncio.create_task(self._outcome(tenant, entry, memory)))
                if not running:
                    return
                done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    yield task.result()
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    async def infer_queued(
        self, tenant: str, image: SharedBuffer, options: InferOptions, *, keep_until: float
    ) -> InferResult:
        """Returns the answer for an image of a job, whenever the device has time for it.

        The heatmap is stored and kept until `keep_until` (unix seconds). Raises ApiError as `infer` does, without a
        time budget.
        """
        return await self._within(None, tenant, image, options, "stream", keep_until=keep_until)

    async def _outcome(self, tenant: str, entry: BatchInput, memory: BatchMemory) -> BatchOutcome:
        try:
            async with memory.opened(entry.image) as image:
                result = await self._within(None, tenant, image, entry.options, "stream")
            return BatchOutcome(entry.id, result=result)
        except ApiError as error:
            return BatchOutcome(entry.id, error=error)

    async def _within(
        self,
        budget_s: float | None,
        tenant: str,
        image: SharedBuffer,
        options: InferOptions,
        lane: Lane,
        *,
        keep_until: float | None = None,
        defer_above_px: int | None = None,
    ) -> InferResult:
        try:
            async with asyncio.timeout(budget_s):
                if lane == "stream":
                    return await self._predict(tenant, image, options, lane, budget_s, keep_until, defer_above_px)
                with self._gate.entered(self.check(tenant, options).key, tenant):
                    return await self._predict(tenant, image, options, lane, budget_s, keep_until, defer_above_px)
        except TimeoutError:
            raise ApiError(Reason.TIMEOUT_EXCEEDED) from None

    async def _predict(
        self,
        tenant: str,
        image: SharedBuffer,
        options: InferOptions,
        lane: Lane,
        budget_s: float | None,
        keep_until: float | None,
        defer_above_px: int | None,
    ) -> InferResult:
        version = self._engine.resolve(options.model, options.model_version)
        with self._figures.errors(version, "answer"):
            self._engine.check_circuit(version)
        with self._engine.kept(version):
            return await self._predict_with(version, tenant, image, options, lane, budget_s, keep_until, defer_above_px)

    async def _predict_with(
        self,
        version: ModelVersion,
        tenant: str,
        image: SharedBuffer,
        options: InferOptions,
        lane: Lane,
        budget_s: float | None,
        keep_until: float | None,
        defer_above_px: int | None,
    ) -> InferResult:
        started = time.monotonic()
        deadline = None if budget_s is None else started + budget_s
        wanted, background = options.heatmap, keep_until is not None
        target = _target_index(version, wanted.target) if wanted else None
        share = _share(version, tenant, background=background)
        await self._antivirus.check(image)
        with tracing.part("decode", {"camserve.bytes": image.size}):
            decoded = await self._imaging.decode(
                image,
                _decode_request(version, options, defer_above_px),
                share=share,
                background=background,
            )
            tracing.took(("imaging worker", decoded.decode_ms))
        with decoded as picture:
            with (
                tracing.part("predict", {"camserve.model": version.name, "camserve.model_version": version.version}),
                self._figures.errors(version, "answer", deadline_monotonic=deadline),
            ):
                prediction = await self._engine.predict(
                    version,
                    picture.pixels,
                    Explain(wanted.layer, wanted.method, target) if wanted else None,
                    tenant=tenant,
                    lane=lane,
                    deadline_monotonic=deadline,
                )
                tracing.note({"camserve.batch_size": prediction.batch_size})
                tracing.took(
                    ("queue", prediction.queue_ms),
                    ("inference", prediction.inference_ms),
                    ("cam", prediction.cam_ms),
                )
            self._figures.count(version, "answer", prediction)
            rendered = (
                await self._heatmaps.render(picture, prediction, wanted, share=share, background=background)
                if wanted
                else None
            )
            if lane == "unary":
                self._shadows.offer(version, prediction, options, image, picture)
        heatmap = None
        if wanted and rendered:
            label = version.labels[prediction.target or 0].id
            heatmap = await self._heatmaps.hand_over(
                tenant, rendered, wanted, prediction.layer or "", label, inline=options.inline, keep_until=keep_until
            )
        timings = Timings(
            queue=prediction.queue_ms,
            inference=prediction.inference_ms,
            total=(time.monotonic() - started) * 1000,
            decode=picture.decode_ms,
            cam=prediction.cam_ms,
            render=rendered.render_ms if rendered else 0.0,
        )
        for stage in ("queue", "inference", "decode", "cam", "render"):
            STAGE_SECONDS.labels(stage).observe(getattr(timings, stage) / 1000, tracing.exemplar())
        return InferResult(
            model=version.name,
            model_version=version.version,
            labels_version=version.labels_version,
            calibration_version=version.calibration_version,
            width=picture.width,
            height=picture.height,
            media_type=picture.media_type,
            sha256=picture.sha256,
            classes=_top_classes(version, prediction.probs, options),
            heatmap=heatmap,
            timings=timings,
            content_sha256=version.content_hash,
        )


def check_inputs(ids: Sequence[str], limit: int = BATCH_LIMIT) -> None:
    """Raises ApiError: BATCH_EMPTY, BATCH_TOO_LARGE, BATCH_DUPLICATE_ID."""
    if not ids:
        raise ApiError(Reason.BATCH_EMPTY)
    if len(ids) > limit:
        raise ApiError(Reason.BATCH_TOO_LARGE, limit=limit, actual=len(ids))
    if len(set(ids)) < len(ids):
        raise ApiError(Reason.BATCH_DUPLICATE_ID)


def _share(version: ModelVersion, tenant: str, *, background: bool) -> str:
    """Names whose turn a picture takes: callers' by tenant and model, those of jobs by tenant."""
    return tenant if background else " ".join((*version.key, tenant))


def _decode_request(version: ModelVersion, options: InferOptions, defer_above_px: int | None) -> DecodeRequest:
    wanted = options.heatmap
    return DecodeRequest(
        input=version.input,
        declared_media_type=options.media_type,
        file_name=options.file_name,
        expected_md5=options.md5,
        longest_side_px=options.longest_side_px,
        base_side=(wanted.size or "input") if wanted and wanted.overlay else None,
        defer_above_px=defer_above_px,
    )


def _target_index(version: ModelVersion, target: str | None) -> int | None:
    if target is None:
        return None
    for index, (class_id, _) in enumerate(version.labels):
        if class_id == target:
            return index
    raise ApiError(Reason.PARAM_INVALID, "The model has no class of this id.", field="grad_cam.target")


def _check_layer(version: ModelVersion, layer: str) -> None:
    if layer != "auto" and layer not in version.layers:
        raise ApiError(Reason.PARAM_LAYER_NOT_FOUND, field="grad_cam.layer")


def _top_classes(version: ModelVersion, probs: np.ndarray, options: InferOptions) -> list[ClassScore]:
    # A stable sort on the negated values keeps equal probabilities in the order of the labels.
    order = np.argsort(-probs, kind="stable")[: options.top_k]
    return [
        ClassScore(version.labels[index].id, version.labels[index].label, float(probs[index]))
        for index in order
        if probs[index] >= options.prob_threshold
    ]
