"""How a tenant's rate stands, as headers."""

from __future__ import annotations

from camserve_server.core.limits import Standing


def rate_headers(standing: Standing) -> dict[str, str]:
    """Returns the headers of an answer, plain integers: the bucket's size, what is left of it, and when it is full."""
    return {
        "x-ratelimit-limit": str(standing.limit),
        "x-ratelimit-remaining": str(standing.remaining),
        "x-ratelimit-reset": str(standing.reset_s),
    }
