"""The models that the replica has: every version found in the model folders, by name and alias."""

from __future__ import annotations

from dataclasses import replace

import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.folders import Key, version_order
from camserve_server.engine.manifest import DEFAULT_ALIAS
from camserve_server.engine.model import ModelVersion

# Large ones take longer to load, and whoever comes too early is told so again.
_LOADING_RETRY_S = 5

_log = structlog.get_logger("models")


class Catalog:
    """Versions by name and version; an alias belongs to one version of a model.

    Where several versions claim an alias, one that is ready has it, of these one whose golden inputs have not failed,
    of these the latest in version order; the others are listed without. So a version that comes while the replica runs
    takes an alias over once it can answer as it should. What is a version's name is nobody's alias, and the default
    alias is no version's name.
    """

    def __init__(self) -> None:
        self._claiming: dict[Key, ModelVersion] = {}
        self._versions: dict[Key, ModelVersion] = {}

    def get(self, key: Key) -> ModelVersion | None:
        """Returns what is known of a version, None when there is none of that name."""
        return self._versions.get(key)

    def named(self, name: str, version: str) -> ModelVersion | None:
        """Returns the version that a caller means by that name, None where it can only be an alias."""
        return None if version == DEFAULT_ALIAS else self._versions.get((name, version))

    def set(self, model: ModelVersion) -> None:
        """Adds a version or replaces what is known of it."""
        self._claiming[model.key] = model
        self._share_aliases(model.name)

    def remove(self, key: Key) -> None:
        """Forgets a version."""
        self._claiming.pop(key, None)
        self._versions.pop(key, None)
        self._share_aliases(key[0])

    def models(self) -> list[ModelVersion]:
        """Returns every version by name, then version; those that cannot serve as well."""
        return sorted(self._versions.values(), key=lambda model: (model.name, version_order(model.version)))

    def find(self, name: str, version_or_alias: str) -> ModelVersion:
        """Returns the version, which may be unable to serve, but is not retired.

        Raises ApiError MODEL_NOT_FOUND, MODEL_VERSION_NOT_FOUND, and MODEL_UNAVAILABLE for the default alias of a
        model of which no version can serve.
        """
        versions = [model for model in self._versions.values() if model.name == name]
        if not versions:
            raise ApiError(Reason.MODEL_NOT_FOUND)
        model = self.named(name, version_or_alias) or next(
            (model for model in versions if version_or_alias in model.aliases), None
        )
        if model is not None and model.state != "retired":
            return model
        in_use = [model for model in versions if model.state != "retired"]
        # Of a version whose manifest cannot be read nobody knows the aliases.
        if in_use and version_or_alias == DEFAULT_ALIAS and not any(model.state == "ready" for model in in_use):
            raise ApiError(Reason.MODEL_UNAVAILABLE, why=in_use[-1].reason or in_use[-1].state)
        raise ApiError(Reason.MODEL_VERSION_NOT_FOUND)

    def resolve(self, name: str, version_or_alias: str) -> ModelVersion:
        """Returns the version that serves.

        Raises ApiError as `find` does, and MODEL_UNAVAILABLE with the reason in the detail `why`.
        """
        model = self.find(name, version_or_alias)
        if model.state == "loading":
            raise ApiError(Reason.MODEL_UNAVAILABLE, retry_after_s=_LOADING_RETRY_S, why=model.state)
        if model.state != "ready":
            raise ApiError(Reason.MODEL_UNAVAILABLE, why=model.reason or model.state)
        return model

    def _share_aliases(self, name: str) -> None:
        claiming = [model for model in self._claiming.values() if model.name == name]
        names = {model.version for model in claiming} - {DEFAULT_ALIAS}
        holders: dict[str, ModelVersion] = {}
        for model in sorted(claiming, key=_claim):
            if model.state == "retired":
                continue
            for alias in model.aliases:
                if alias in names:
                    _log.warning("an alias that is a version's name leads nowhere", model=name, alias=alias)
                    continue
                if alias in holders and model.state == holders[alias].state == "ready":
                    _log.warning("two versions claim an alias", model=name, alias=alias)
                holders[alias] = model
        for model in claiming:
            held = tuple(alias for alias in model.aliases if holders.get(alias) is model)
            self._versions[model.key] = model if held == model.aliases else replace(model, aliases=held)


def _claim(model: ModelVersion) -> tuple[bool, bool, list[tuple[int, int, str]]]:
    """Returns a key by which the version that has the best claim to an alias comes last."""
    return (model.state == "ready", model.golden != "failed", version_order(model.version))
