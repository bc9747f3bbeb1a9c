"""Puts the edge's files and the bundled models into the wheel; a checkout finds them beside the package."""

from __future__ import annotations

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class BundleHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the folders that `camserve_server.base.bundle` looks for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leaves editable installs alone: a copy would go stale."""
        if version != "editable":
            for folder in ("clients/web/site", "docs/api", "envoy", "models"):
                build_data["force_include"][folder] = f"camserve_server/bundle/{folder}"
