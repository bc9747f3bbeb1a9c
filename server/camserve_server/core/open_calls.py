"""How many calls are open, whatever they do: send slowly, read slowly, or watch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from camserve_server.base.errors import ApiError, Reason

# Of one public method at once; a message that is there already takes a place for a moment only.
_STRANGERS = 256
# Single messages of which a part came and the rest is late: each may be an image, and nobody sees how much is there.
_HALF_SENT = 64
_HALF_SENT_OF_TENANT = 16


class OpenCalls:
    """Bounds what one tenant, or callers without a token, can hold of the connections and memory that all share."""

    def __init__(self, most_of_tenant: int) -> None:
        self._most = most_of_tenant
        self._tenants: Counter[str] = Counter()
        self._strangers: Counter[str] = Counter()
        self._half_sent: Counter[str] = Counter()

    @contextmanager
    def of_tenant(self, tenant: str) -> Iterator[None]:
        """Counts a call for as long as it is open; raises ApiError(CONCURRENCY_EXCEEDED) for one too many."""
        if self._tenants[tenant] >= self._most:
            raise ApiError(
                Reason.CONCURRENCY_EXCEEDED,
                "Too many calls of the tenant are open, watching or half sent.",
                limit=self._most,
            )
        with _counted(self._tenants, tenant):
            yield

    @contextmanager
    def of_stranger(self, method: str) -> Iterator[None]:
        """Counts a call to a public method until its message is there; raises ApiError(SERVICE_OVERLOADED)."""
        if self._strangers[method] >= _STRANGERS:
            raise ApiError(Reason.SERVICE_OVERLOADED)
        with _counted(self._strangers, method):
            yield

    @contextmanager
    def of_half_sent(self, tenant: str) -> Iterator[None]:
        """Counts a single message that is long in coming; `tenant` is empty for strangers.

        Raises ApiError CONCURRENCY_EXCEEDED for one too many of the tenant, SERVICE_OVERLOADED of all.
        """
        if self._half_sent[tenant] >= _HALF_SENT_OF_TENANT:
            raise ApiError(
                Reason.CONCURRENCY_EXCEEDED,
                "Too many messages of the tenant are half sent: large images go as streams.",
                limit=_HALF_SENT_OF_TENANT,
            )
        if self._half_sent.total() >= _HALF_SENT:
            raise ApiError(Reason.SERVICE_OVERLOADED)
        with _counted(self._half_sent, tenant):
            yield


@contextmanager
def _counted(counts: Counter[str], name: str) -> Iterator[None]:
    counts[name] += 1
    try:
        yield
    finally:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]
