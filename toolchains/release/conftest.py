"""A rehearsal of a release of the last commit, with the packages that are installed here."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest
from release.lock import ROOT

TOOLS = ROOT / "build" / "tools" / "bin" / "python"


@pytest.fixture(scope="session")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the release; that it is there means that it was built twice, installed and tried."""
    folder = tmp_path_factory.mktemp("release") / "files"
    command = [str(TOOLS), "-m", "release", "--rehearse", "--seen", sysconfig.get_path("purelib"), "--to", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "installed and tried" in done.stdout
    return folder
