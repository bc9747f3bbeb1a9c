"""How a tenant's rate stands, as headers."""

from __future__ import annotations

from camserve_server.core.limits import Standing

# With a refusal for want of room: for so many ms the edge refuses the tenant's calls for one image by itself, a fifth
# of what they may wait, so that those admitted last a while longer.
HOLD_OFF = {"x-camserve-shed": "100"}


def rate_headers(standing: Standing) -> dict[str, str]:
    """Returns the headers of an answer, plain integers: the bucket's size, what is left of it, and when it is full."""
    return {
        "x-ratelimit-limit": str(standing.limit),
        "x-ratelimit-remaining": str(standing.remaining),
        "x-ratelimit-reset": str(standing.reset_s),
    }
