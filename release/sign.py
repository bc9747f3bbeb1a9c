"""Sums of a release's files and their signatures, made and verified by OpenSSH's `ssh-keygen -Y`."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from release.build import ReleaseError

# Whose signatures count, and for what: a signature for anything else does not pass for one of a release.
SIGNER = "camserve-release"
SUMS = "SHA256SUMS"
NOTES = "RELEASE_NOTES.md"


def write_sums(folder: Path) -> None:
    """Writes the SHA-256 of every file of a folder, but for sums and signatures, as `sha256sum --check` reads it."""
    files = sorted(path for path in folder.iterdir() if path.name != SUMS and path.suffix != ".sig")
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files]
    (folder / SUMS).write_text("".join(lines))


def sign(folder: Path, key: Path) -> None:
    """Signs the sums and the notes with a private key of OpenSSH, or the public one of a key that an agent holds."""
    for name in (SUMS, NOTES):
        (folder / f"{name}.sig").unlink(missing_ok=True)
        _keygen("sign", "-n", SIGNER, "-f", str(key), str(folder / name))


def verify(folder: Path, signers: Path) -> None:
    """Raises ReleaseError unless sums and notes are signed by one of the signers, and every file has its sum."""
    for name in (SUMS, NOTES):
        where = ("-I", SIGNER, "-n", SIGNER, "-f", str(signers), "-s", str(folder / f"{name}.sig"))
        _keygen("verify", *where, input=(folder / name).read_bytes())
    for line in (folder / SUMS).read_text().splitlines():
        digest, name = line.split("  ", 1)
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ReleaseError(f"{name} is not the file that was signed")


def _keygen(does: str, *arguments: str, input: bytes = b"") -> None:  # noqa: A002
    done = subprocess.run(["ssh-keygen", "-Y", does, *arguments], input=input, capture_output=True, check=False)
    if done.returncode != 0:
        raise ReleaseError(f"ssh-keygen -Y {does}: {(done.stderr or done.stdout).decode().strip()}")
