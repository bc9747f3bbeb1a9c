"""The one exception of this package, whoever refused: the service, the way to it, or this client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CONNECTION_FAILED = "connection.failed"
ANSWER_INVALID = "answer.invalid"
CLIENT_CLOSED = "client.closed"
TIMEOUT = "timeout.exceeded"
IN_PROGRESS = "idempotency.in_progress"
_MAY_PASS = frozenset({429, 502, 503, 504})


class CamserveError(Exception):
    """Says why a call failed.

    `code` is one of the catalogue (docs/errors.md), or of this client: `connection.failed` when the service cannot be
    reached or the connection broke, `answer.invalid` when what answered is not the service, `client.closed` when the
    client was closed meanwhile. `status` is the HTTP
    status, over gRPC too, and 0 where nothing answered. `request_id` finds the call in the service's log.
    `retry_after_s` is how long to wait before another attempt, where the service said so. `details` holds facts, such
    as a limit.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        status: int = 0,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.details: Mapping[str, Any] = dict(details or {})

    def __str__(self) -> str:
        facts = {"field": self.details.get("field"), "request": self.request_id}
        told = ", ".join(f"{name} {fact}" for name, fact in facts.items() if fact)
        return f"{self.code}: {self.message}" + (f" ({told})" if told else "")

    @property
    def retryable(self) -> bool:
        """Is true when the same call may succeed later."""
        return self.code in (CONNECTION_FAILED, IN_PROGRESS) or self.status in _MAY_PASS


def closed() -> CamserveError:
    """Returns the error of a call whose client was closed before an answer came."""
    return CamserveError(CLIENT_CLOSED, "The client is closed.", status=499)


def timed_out(after_s: float | None) -> CamserveError:
    """Returns the error of a call whose time is over before an answer came."""
    within = "" if after_s is None else f" within {after_s:.3g} s"
    return CamserveError(TIMEOUT, f"No answer came{within}.", status=504)
