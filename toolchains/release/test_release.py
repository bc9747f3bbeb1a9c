"""A release as its readers get it: what it is made of, and that none but its signers can make one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from release.build import PROJECTS, ReleaseError, check_wheel, version
from release.lock import ROOT, pins
from release.sign import NOTES, SIGNER, SUMS, sign, verify, write_sums
from tests.docs.snippets import blocks

OURS = "toolchains/release/test_release.py"
PAGE = ROOT / "docs" / "supply-chain.md"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """A key to throw away, and beside it `signers`, which names it."""
    path = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    (tmp_path / "signers").write_text(f'{SIGNER} namespaces="{SIGNER}" {path.with_suffix(".pub").read_text()}')
    return path


@pytest.fixture
def signed(rehearsed: Path, key: Path, tmp_path: Path) -> Path:
    """A copy of the release, signed with the key."""
    folder = tmp_path / "signed"
    shutil.copytree(rehearsed, folder)
    sign(folder, key)
    return folder


def test_a_release_has_everything_that_its_page_names(rehearsed):
    number = version()
    expected = {SUMS, f"{SUMS}.sig", NOTES, f"{NOTES}.sig", "requirements-build.txt"}
    for project in PROJECTS:
        name = f"{project.file_name}-{number}"
        expected |= {f"{name}-py3-none-any.whl", f"{name}.tar.gz", f"{name}.cdx.json"}
        expected.add(f"requirements-{project.lock}.txt")
    assert {path.name for path in rehearsed.iterdir()} == expected


def test_the_lists_of_parts_name_every_pin_and_who_asks_for_it(rehearsed):
    for project in PROJECTS:
        parts = json.loads((rehearsed / f"{project.file_name}-{version()}.cdx.json").read_text())
        named = {(each["name"], each["version"]) for each in parts["components"]}
        assert named == set(pins(project.lock))
        asked = {reference for each in parts["dependencies"] for reference in each["dependsOn"]}
        assert asked == {each["purl"] for each in parts["components"]}
        assert parts["metadata"]["component"]["name"] == project.name


def test_what_is_signed_is_verified_as_the_page_says(signed, tmp_path):
    verify(signed, tmp_path / "signers")
    scripts = [block.text for block in blocks(PAGE) if block.run_by == OURS]
    assert len(scripts) == 1
    for script in scripts:
        here = script.replace("release/allowed_signers", str(tmp_path / "signers"))
        subprocess.run(["sh", "-eu", "-c", here], cwd=signed, check=True)


@pytest.mark.parametrize("name", ["*.whl", "*.tar.gz", "*.cdx.json", "requirements-run.txt", NOTES, SUMS])
def test_an_altered_file_is_found(name: str, signed, tmp_path):
    path = next(signed.glob(name))
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    with pytest.raises(ReleaseError):
        verify(signed, tmp_path / "signers")


def test_sums_of_altered_files_need_the_key_again(signed, tmp_path):
    (signed / "requirements-run.txt").write_text("camserve-evil==1\n")
    write_sums(signed)
    with pytest.raises(ReleaseError, match="ssh-keygen -Y verify"):
        verify(signed, tmp_path / "signers")


def test_a_stranger_cannot_sign_nor_a_signer_for_another_purpose(signed, key, tmp_path):
    stranger = tmp_path / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(stranger)], check=True)
    sign(signed, stranger)
    with pytest.raises(ReleaseError):
        verify(signed, tmp_path / "signers")
    (signed / f"{SUMS}.sig").unlink()
    subprocess.run(["ssh-keygen", "-Y", "sign", "-n", "file", "-f", str(key), str(signed / SUMS)], check=True)
    with pytest.raises(ReleaseError):
        verify(signed, tmp_path / "signers")


@pytest.mark.parametrize("change", ["add", "leave out", "alter"])
def test_a_wheel_with_other_files_than_the_commit_is_found(change: str, rehearsed, tmp_path):
    """What the wheel of the commit holds is laid out, and one file of it is not as in another wheel."""
    project = PROJECTS[1]
    whole = next(rehearsed.glob(f"{project.file_name}-*.whl"))
    tree, wheel = tmp_path / "tree", tmp_path / whole.name
    with zipfile.ZipFile(whole) as archive, zipfile.ZipFile(wheel, "w") as other:
        archive.extractall(tree / project.folder / "src")
        for name in archive.namelist():
            touched = name == "camserve_client/auth.py"
            if not (touched and change == "leave out"):
                other.writestr(name, archive.read(name) + (b"#" if touched and change == "alter" else b""))
        if change == "add":
            other.writestr("camserve_client/more.py", b"")
    check_wheel(whole, project, tree)
    with pytest.raises(ReleaseError, match=r"more\.py|auth\.py"):
        check_wheel(wheel, project, tree)


@pytest.mark.parametrize("arguments", [[], ["--rehearse", "--key", "key"], ["--seen", "x", "--key", "key"]])
def test_a_release_is_with_a_key_or_a_rehearsal(arguments: list[str]):
    tools = str(ROOT / "build" / "tools" / "bin" / "python")
    done = subprocess.run([tools, "-m", "release", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.search("--key|--seen", done.stderr)
