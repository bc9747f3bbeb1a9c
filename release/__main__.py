"""Makes a release in `build/release`: builds, checks, lists the parts, signs, verifies, installs and tries it.

A rehearsal needs neither a tag nor a section of the changelog, and signs with a key that it throws away.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release.build import PROJECTS, ReleaseError, build, version
from release.lock import FOLDER, ROOT
from release.notes import notes
from release.sbom import parts
from release.sign import NOTES, SIGNER, sign, verify, write_sums
from release.tried import try_release

SIGNERS = ROOT / "release" / "allowed_signers"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument("--to", type=Path, default=ROOT / "build" / "release", help="a folder, which is emptied")
    parser.add_argument("--key", type=Path, help="the key of OpenSSH that signs, one of release/allowed_signers")
    parser.add_argument("--rehearse", action="store_true", help="of a commit that is not to be released")
    parser.add_argument("--seen", type=Path, help="in a rehearsal: installed packages to take in place of the locks'")
    arguments = parser.parse_args()
    if bool(arguments.key) == arguments.rehearse or (arguments.seen and not arguments.rehearse):
        parser.error("give a --key, or --rehearse; --seen is for rehearsals")
    try:
        if not arguments.rehearse:
            _may_be_released()
        make(arguments.to, key=arguments.key, dependencies=arguments.seen)
    except ReleaseError as error:
        sys.exit(f"release: {error}")


def make(to: Path, *, key: Path | None, dependencies: Path | None = None) -> None:
    """Makes the release of the last commit; without a key it is a rehearsal."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for path in build(to):
        print(f"built, and built again: {path.name}", flush=True)
    for project in PROJECTS:
        wheel = next(to.glob(f"{project.file_name}-{version()}-*.whl"))
        (to / f"{project.file_name}-{version()}.cdx.json").write_text(parts(wheel, project))
    for lock in ("build", *(project.lock for project in PROJECTS)):
        shutil.copy(FOLDER / f"{lock}.txt", to / f"requirements-{lock}.txt")
    (to / NOTES).write_text(notes(version() if key else "Unreleased"))
    write_sums(to)
    if key:
        sign(to, key)
        verify(to, SIGNERS)
    else:
        _sign_for_show(to)
    print("signed and verified", flush=True)
    try_release(to, dependencies=dependencies)
    print(f"installed and tried: {to}")


def _may_be_released() -> None:
    tag = f"v{version()}"
    if subprocess.check_output(["git", "status", "--porcelain"], cwd=ROOT):
        raise ReleaseError("there are changes that are not committed")
    if tag not in subprocess.check_output(["git", "tag", "--points-at", "HEAD"], cwd=ROOT, text=True).split():
        raise ReleaseError(f"the last commit has no tag {tag}")
    if not SIGNERS.exists():
        raise ReleaseError("release/allowed_signers names nobody yet (docs/releasing.md)")


def _sign_for_show(to: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        key, signers = Path(folder) / "key", Path(folder) / "signers"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        signers.write_text(f'{SIGNER} namespaces="{SIGNER}" {key.with_suffix(".pub").read_text()}')
        sign(to, key)
        verify(to, signers)


if __name__ == "__main__":
    main()
