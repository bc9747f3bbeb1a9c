"""Whether what a command printed is what its page shows, in which `…` stands for anything."""

from __future__ import annotations

import json
import re
from typing import Any

ANYTHING = "…"


def is_shown(language: str, shown: str, printed: str) -> bool:
    """Compares a `text` block word by word and a `json` block value by value.

    In JSON the string `…` stands for any value, as a member's name for any further members, and as the last element of
    a list for any further elements.
    """
    if language == "json":
        try:
            return _same(json.loads(shown), json.loads(printed))
        except ValueError:
            return False
    return _matches(" ".join(shown.split()), " ".join(printed.split()))


def _same(shown: Any, printed: Any) -> bool:
    if isinstance(shown, str):
        return shown == ANYTHING or (isinstance(printed, str) and _matches(shown, printed))
    if isinstance(shown, dict):
        if not isinstance(printed, dict):
            return False
        named = shown.keys() - {ANYTHING}
        enough = named <= printed.keys() if ANYTHING in shown else named == printed.keys()
        return enough and all(_same(shown[name], printed[name]) for name in named)
    if isinstance(shown, list):
        if not isinstance(printed, list):
            return False
        if shown[-1:] == [ANYTHING]:
            shown, printed = shown[:-1], printed[: len(shown) - 1]
        return len(shown) == len(printed) and all(map(_same, shown, printed))
    return type(shown) is type(printed) and bool(shown == printed)


def _matches(shown: str, printed: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, shown.split(ANYTHING))), printed, re.DOTALL) is not None
