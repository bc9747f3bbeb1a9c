"""Refuses new calls while the server stops."""

from __future__ import annotations

from camserve_server.base.errors import ApiError, Reason
from camserve_server.rpc.call import Call, Proceed


class Draining:
    """A gate that closes once."""

    def __init__(self) -> None:
        self._closed = False

    def close(self) -> None:
        """Refuses every call from now on; running ones go on."""
        self._closed = True

    async def __call__(self, call: Call, proceed: Proceed) -> None:
        """Raises ApiError(SERVICE_DRAINING) once closed."""
        if self._closed:
            raise ApiError(Reason.SERVICE_DRAINING)
        await proceed()
