"""Notes by which the edge's rate limiter tells the server that it has counted a request already."""

from __future__ import annotations

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError
from camserve_server.core.signing import UrlSigner

# A slow upload arrives at the server as soon as its head has passed the edge.
_VALID_S = 60.0


class CountedNotes:
    """Writes and reads the notes. They never reach a caller, and each counts for its tenant and request alone."""

    def __init__(self, signer: UrlSigner, clock: Clock) -> None:
        self._signer = signer
        self._clock = clock

    def write(self, tenant: str, request_id: str) -> str:
        """Returns a note that the request was counted."""
        return self._signer.sign(tenant, request_id, self._clock.now() + _VALID_S)

    def genuine(self, note: str | None, tenant: str, request_id: str) -> bool:
        """Whether a note says that this request of this tenant was counted."""
        if note is None:
            return False
        try:
            return self._signer.verify(request_id, note, self._clock.now()) == tenant
        except ApiError:
            return False
