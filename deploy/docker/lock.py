"""Locks what the image installs, with hashes: `python deploy/docker/lock.py`; needs uv, which PyPI has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
# As the Dockerfile's image has it.
PYTHON = "3.12"
# PyTorch and what only its CUDA build needs: a smaller image takes the CPU build instead, from another index.
_TORCH = re.compile(r"(torch|torchvision|triton|nvidia-[\w-]+|cuda-[\w-]+)==")


def main() -> None:
    """Writes requirements.txt and requirements-torch.txt, and requirements-build.txt for building the package."""
    (FOLDER / "requirements-build.txt").write_text(locked("-", asked="hatchling>=1.27\n"))
    entries = re.findall(r"^\S.*\n(?:    .*\n)*", locked("pyproject.toml"), re.MULTILINE)
    for name, torch in (("requirements.txt", False), ("requirements-torch.txt", True)):
        (FOLDER / name).write_text("".join(entry for entry in entries if bool(_TORCH.match(entry)) == torch))


def locked(source: str, asked: str = "") -> str:
    """Returns what a source asks for and what that needs, as requirements with hashes."""
    command = ["uv", "pip", "compile", source, "--universal", "--generate-hashes", "--no-header", "--no-annotate"]
    command += ["--quiet", "--python-version", PYTHON]
    return subprocess.run(command, cwd=ROOT, check=True, input=asked, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
