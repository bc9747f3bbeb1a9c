"""Inputs of jobs that were stored a moment ago, still in memory for a worker of this process."""

from __future__ import annotations

import asyncio

from camserve_server.base.errors import ApiError
from camserve_server.engine.buffers import SharedBuffer

_KEPT_S = 30.0


class WarmInputs:
    """Keeps up to `limit_bytes` for half a minute; who takes an input closes it.

    It only saves reading and decrypting what was written just now: an input that is not here is in the store.
    """

    def __init__(self, *, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._kept: dict[str, SharedBuffer] = {}
        self._bytes = 0

    def keep(self, object_id: str, image: SharedBuffer) -> None:
        """Keeps the image for a while, if there is room; the caller's stays the caller's."""
        if self._bytes + image.size > self._limit_bytes:
            return
        try:
            shared = image.share()
        except ApiError:
            return  # the memory set aside for images is needed for others
        self._kept[object_id] = shared
        self._bytes += shared.size
        asyncio.get_running_loop().call_later(_KEPT_S, self.drop, object_id)

    def take(self, object_id: str) -> SharedBuffer | None:
        """Returns the image if it is here, which it is no longer then."""
        image = self._kept.pop(object_id, None)
        if image is not None:
            self._bytes -= image.size
        return image

    def drop(self, object_id: str) -> None:
        """Lets go of an image."""
        if image := self.take(object_id):
            image.close()

    def close(self) -> None:
        """Lets go of all."""
        for object_id in list(self._kept):
            self.drop(object_id)
