"""The version of this package, as it is installed and as servers hear of it."""

from __future__ import annotations

VERSION = "0.1.0"
USER_AGENT = f"camserve-client/{VERSION}"
