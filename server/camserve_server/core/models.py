"""Which models there are."""

from __future__ import annotations

import re

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.engine import Engine
from camserve_server.engine.model import ModelVersion


class Models:
    """The models of this replica, in the order in which people look for them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> dict[str, list[ModelVersion]]:
        """Returns every model's versions, newest first, by name."""
        grouped: dict[str, list[ModelVersion]] = {}
        for version in sorted(self._engine.models(), key=lambda version: version.name):
            grouped.setdefault(version.name, []).append(version)
        return {
            name: sorted(versions, key=lambda version: _natural(version.version), reverse=True)
            for name, versions in grouped.items()
        }

    def versions(self, name: str) -> list[ModelVersion]:
        """Returns one model's versions, newest first; raises ApiError(MODEL_NOT_FOUND)."""
        found = self.all().get(name)
        if not found:
            raise ApiError(Reason.MODEL_NOT_FOUND)
        return found


def _natural(version: str) -> list[tuple[int, str]]:
    """Returns a key that sorts `10` after `9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", version)]
