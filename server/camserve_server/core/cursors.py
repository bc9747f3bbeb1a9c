"""Cursors: where a listing goes on, opaque to callers and of use in that listing only."""

from __future__ import annotations

import base64
import binascii

from camserve_server.base.errors import ApiError, Reason
from camserve_server.stores.sealing import Sealer

# Longer than any of ours; what is longer need not be looked at.
_MOST_CHARACTERS = 512


class Cursors:
    """Makes and reads cursors; `listing` names tenant, collection and filters."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def make(self, listing: str, position: str) -> str:
        """Returns the cursor of a position."""
        return _encoded(self._sealer.seal(position.encode(), listing))

    def read(self, listing: str, cursor: str) -> str:
        """Returns the position; raises ApiError(CURSOR_INVALID) for an altered cursor or another listing's."""
        if len(cursor) > _MOST_CHARACTERS:
            raise ApiError(Reason.CURSOR_INVALID)
        try:
            sealed = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
            if _encoded(sealed) != cursor:
                # Bits that say nothing were altered, or padding was added.
                raise ApiError(Reason.CURSOR_INVALID)
            return self._sealer.open(sealed, listing).decode()
        except (ApiError, binascii.Error, ValueError):
            raise ApiError(Reason.CURSOR_INVALID) from None


def _encoded(sealed: bytes) -> str:
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()
