"""The notes of a release: what CHANGELOG.md says of a version."""

from __future__ import annotations

import re

from release.build import ReleaseError
from release.lock import ROOT


def notes(of: str) -> str:
    """Returns the changelog's section of a version, or of `Unreleased`; raises ReleaseError where there is none."""
    changes = (ROOT / "CHANGELOG.md").read_text()
    section = re.search(rf"^## \[{re.escape(of)}\].*?(?=^## |\Z)", changes, re.DOTALL | re.MULTILINE)
    if section is None or not section[0].partition("\n")[2].strip():
        raise ReleaseError(f"CHANGELOG.md says nothing of {of}")
    return section[0].rstrip() + "\n"
