"""The headers of what ends, a version or a method (RFC 9745, RFC 8594)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime

from camserve_server.stores.model_routes import Deprecation

_NAMES = ("deprecation", "sunset", "link")


def deprecation_headers(deprecation: Deprecation) -> dict[str, str]:
    """Returns the headers of what is deprecated."""
    headers = {"deprecation": f"@{deprecation.since}"}
    if deprecation.sunset is not None:
        headers["sunset"] = formatdate(deprecation.sunset, usegmt=True)
    if deprecation.link:
        headers["link"] = f'<{deprecation.link}>; rel="deprecation"'
    return headers


def with_one_end(headers: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Returns an answer's headers with the dates of what ends first, those among them or the other ones, never of both.

    What has no end comes last; of two such the one that was deprecated first counts.
    """
    if not other or ("deprecation" in headers and _end(headers) <= _end(other)):
        return dict(headers)
    return {name: value for name, value in headers.items() if name not in _NAMES} | dict(other)


def _end(headers: Mapping[str, str]) -> tuple[float, int]:
    sunset = headers.get("sunset")
    end_s = parsedate_to_datetime(sunset).timestamp() if sunset else math.inf
    return end_s, int(headers["deprecation"].removeprefix("@"))
