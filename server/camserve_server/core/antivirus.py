"""Images looked at by a virus scanner before anything else opens them."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Self

import structlog

from camserve_server.base.breaker import Breaker, Turn
from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.telemetry import SCANS
from camserve_server.engine.buffers import SharedBuffer
from camserve_server.outbound.clamd import Clamd, NoVerdictError, Scan, ScanError

_log = structlog.get_logger("antivirus")
_PIECE_BYTES = 256 * 1024


class Antivirus:
    """Asks a scanner; without one every image passes. `fail_open` lets images pass of which there is no verdict.

    A scanner that keeps failing is left alone for a while, and there is no verdict at once.
    """

    def __init__(self, clamd: Clamd | None, clock: Clock, *, fail_open: bool) -> None:
        self._clamd = clamd
        self._fail_open = fail_open
        # What is not there has no state to show.
        on_change = None if clamd else _show_nothing
        self._breaker = Breaker("antivirus", "clamd", monotonic=clock.monotonic, on_change=on_change)

    async def works(self) -> bool:
        """Returns whether the scanner answers; after a pause it is the call that tries."""
        try:
            with self._breaker.guard(_blame):
                if self._clamd:
                    await self._clamd.ping()
        except (ApiError, ScanError):
            return False
        return True

    async def check(self, image: SharedBuffer) -> None:
        """Raises ApiError as `Inspection.end` does."""
        if self._clamd is None:
            return
        view = image.view()
        with self.inspection() as inspection:
            for start in range(0, len(view), _PIECE_BYTES):
                await inspection.feed(view[start : start + _PIECE_BYTES])
            await inspection.end()

    def inspection(self) -> Inspection:
        """Returns what an image is fed to while it comes."""
        return Inspection(self._clamd, self._breaker, fail_open=self._fail_open)


class Inspection:
    """One image on its way through the scanner; close it."""

    def __init__(self, clamd: Clamd | None, breaker: Breaker, *, fail_open: bool) -> None:
        self._clamd = clamd
        self._breaker = breaker
        self._fail_open = fail_open
        self._turn: Turn | None = None
        self._scan: Scan | None = None
        self._failed: ScanError | ApiError | None = None

    @property
    def asks(self) -> bool:
        """Whether the scanner still wants to see bytes."""
        return self._clamd is not None and self._failed is None

    async def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Shows the scanner the next bytes."""
        if self._clamd is None or self._failed:
            return
        try:
            if self._scan is None:
                self._turn = self._breaker.enter()
                with self._waiting():
                    self._scan = await self._clamd.begin()
            with self._waiting():
                await self._scan.feed(data)
        except (ScanError, ApiError) as error:
            self._failed = error

    async def end(self) -> None:
        """Raises ApiError: IMAGE_REJECTED when something was found; without a verdict UPSTREAM_FAILED.

        Where the scanner was not even asked that is CIRCUIT_OPEN.
        """
        if self._clamd is None:
            return
        try:
            clean = await self._verdict()
        except (ScanError, ApiError) as error:
            self._judge(error)
            SCANS.labels("failed").inc()
            _log.error("the virus scanner gave no verdict", cause=repr(error), passes=self._fail_open)
            if self._fail_open:
                return
            raise error if isinstance(error, ApiError) else ApiError(Reason.UPSTREAM_FAILED) from None
        self._judge(None)
        SCANS.labels("clean" if clean else "found").inc()
        if not clean:
            raise ApiError(Reason.IMAGE_REJECTED)

    def close(self) -> None:
        """Hangs up."""
        if self._turn:
            self._turn.left()
        if self._scan:
            self._scan.close()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    def _judge(self, error: ScanError | ApiError | None) -> None:
        if self._turn is None:
            return
        if isinstance(error, ScanError) and _blame(error):
            self._turn.failed()
        else:
            self._turn.succeeded()

    def _waiting(self) -> AbstractContextManager[None]:
        """Surrounds a wait for the scanner: whoever leaves because it hangs tells that it does."""
        return self._breaker.patience(self._turn) if self._turn else nullcontext()

    async def _verdict(self) -> bool:
        if self._failed:
            raise self._failed
        if self._scan is None:
            raise ScanError("nothing was shown")
        with self._waiting():
            return await self._scan.is_clean()


def _blame(error: Exception) -> bool:
    # A scanner that answers works, even where it has no verdict: what it was shown may have been too large for it.
    return isinstance(error, ScanError) and not isinstance(error, NoVerdictError)


def _show_nothing() -> None:
    pass
