"""Puts the edge's files and the bundled models into the wheel; a checkout finds them beside the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDERS = ("clients/web/site", "docs/api", "envoy", "models")
# Pages about the folders, and the edge's check of itself: nothing that a server reads.
LEFT_OUT = (".md", ".sh")


class BundleHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the folders that `camserve_server.base.bundle` looks for."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Leaves editable installs alone: a copy would go stale."""
        if version == "editable":
            return
        for folder in FOLDERS:
            for path in sorted((Path(self.root) / folder).rglob("*")):
                if path.is_file() and path.suffix not in LEFT_OUT:
                    name = path.relative_to(self.root).as_posix()
                    build_data["force_include"][name] = f"camserve_server/bundle/{name}"
