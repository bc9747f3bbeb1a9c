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
    """Writes requirements.txt and requirements-torch.txt."""
    command = ["uv", "pip", "compile", "pyproject.toml", "--universal", "--generate-hashes", "--no-header"]
    command += ["--no-annotate", "--quiet", "--python-version", PYTHON]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    entries = re.findall(r"^\S.*\n(?:    .*\n)*", text, re.MULTILINE)
    for name, torch in (("requirements.txt", False), ("requirements-torch.txt", True)):
        (FOLDER / name).write_text("".join(entry for entry in entries if bool(_TORCH.match(entry)) == torch))


if __name__ == "__main__":
    main()
