"""An event loop in a thread, for children whose main thread waits for orders."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Thread
from typing import Any, TypeVar

import uvloop

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on uvloop, as the server does, and waits for them."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        Thread(target=self._run, daemon=True).start()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Returns what the coroutine returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
