"""New versions are written aside and come to their place in one step, whole."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

from camserve_server.base.errors import OperatorError


def staging_folder(models_dir: Path) -> tempfile.TemporaryDirectory[str]:
    """Returns a folder on the same file system, whose name and depth no search for versions finds."""
    models_dir.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".staging-", dir=models_dir, ignore_cleanup_errors=True)


def publish(staged: Path, models_dir: Path) -> Path:
    """Moves a staged `<name>/<version>` to its place and returns that; raises OperatorError when that does not go."""
    place = models_dir / staged.parent.name / staged.name
    place.parent.mkdir(exist_ok=True)
    try:
        return staged.rename(place)
    except OSError:
        with contextlib.suppress(OSError):
            place.parent.rmdir()
        raise OperatorError(f"{staged} cannot be moved to {place}: is a version there by now?") from None
