"""New versions are written aside and come to their place in one step, whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from camserve_server.base.errors import OperatorError

_PREFIX = ".staging-"
# Whoever has just made a folder has not locked it yet.
_LEAST_AGE_S = 60.0


@contextlib.contextmanager
def staging_folder(models_dir: Path) -> Iterator[str]:
    """Gives a folder on the same file system, whose name and depth no search for versions finds, and removes it.

    Removes what processes that were killed have left besides.
    """
    models_dir.mkdir(parents=True, exist_ok=True)
    for left in models_dir.glob(f"{_PREFIX}*"):
        _remove_left(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=models_dir, ignore_cleanup_errors=True) as folder:
        with _opened(folder) as descriptor:
            # Where the file system has no locks nobody removes what others left either.
            with contextlib.suppress(OSError):
                _lock(descriptor)
            yield folder


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


def _remove_left(folder: Path) -> None:
    """Removes a staging folder that no living process holds."""
    with contextlib.suppress(OSError):
        if time.time() - folder.stat().st_mtime < _LEAST_AGE_S:
            return
        with _opened(folder) as descriptor:
            _lock(descriptor)
            shutil.rmtree(folder)


@contextlib.contextmanager
def _opened(folder: str | Path) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Locks an open folder until it is closed or its process ends; raises OSError where another process has it."""
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
