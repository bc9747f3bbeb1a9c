"""Which models there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.model_routes import ModelRoutes
from camserve_server.engine.engine import Engine
from camserve_server.engine.model import ModelVersion
from camserve_server.stores.model_routes import Deprecation


class Models:
    """The models of this replica, in the order in which people look for them."""

    def __init__(self, engine: Engine, routes: ModelRoutes) -> None:
        self._engine = engine
        self._routes = routes

    def all(self) -> dict[str, list[ModelVersion]]:
        """Returns every model's versions, newest first, by name; each with the aliases that lead to it now."""
        grouped: dict[str, list[ModelVersion]] = {}
        for version in sorted(self._engine.models(), key=lambda version: version.name):
            grouped.setdefault(version.name, []).append(version)
        return {
            name: sorted(self._routed(name, versions), key=lambda version: _natural(version.version), reverse=True)
            for name, versions in grouped.items()
        }

    def versions(self, name: str) -> list[ModelVersion]:
        """Returns one model's versions, newest first; raises ApiError(MODEL_NOT_FOUND)."""
        found = self.all().get(name)
        if not found:
            raise ApiError(Reason.MODEL_NOT_FOUND)
        return found

    def deprecations(self, name: str) -> Mapping[str, Deprecation]:
        """Returns when a model's versions end, of those of which that is known."""
        return self._routes.of(name).routes.deprecations

    def _routed(self, name: str, versions: list[ModelVersion]) -> list[ModelVersion]:
        aliases = self._routes.aliases(name)
        return [
            replace(each, aliases=tuple(alias for alias, version in aliases.items() if version == each.version))
            for each in versions
        ]


def _natural(version: str) -> list[tuple[int, str]]:
    """Returns a key that sorts `10` after `9`."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", version)]
