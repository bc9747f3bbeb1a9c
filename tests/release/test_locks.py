"""The locks hold what the projects ask for, on every platform, and agree with each other."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from release.lock import FOLDER, HEAD, PYTHONS, ROOT, head, wanted

LOCKS = sorted(wanted())
SYSTEMS = {"x86_64": "linux", "aarch64": "linux", "arm64": "darwin"}


def pins(lock: str) -> list[Requirement]:
    lines = (FOLDER / f"{lock}.txt").read_text().splitlines()
    return [Requirement(line.removesuffix(" \\")) for line in lines if re.match(r"[a-z0-9]", line)]


def environments() -> Iterator[dict[str, str]]:
    for python in PYTHONS:
        for machine, system in SYSTEMS.items():
            yield {
                "python_version": python,
                "python_full_version": f"{python}.9",
                "platform_machine": machine,
                "sys_platform": system,
                "platform_python_implementation": "CPython",
                "implementation_name": "cpython",
                "os_name": "posix",
            }


def held(lock: str, environment: dict[str, str]) -> dict[str, str]:
    """Returns the versions that a platform installs; no package twice."""
    versions: dict[str, str] = {}
    for pin in pins(lock):
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in versions, f"{lock}: {pin.name} twice"
            versions[pin.name] = str(pin.specifier).removeprefix("==")
    return versions


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_was_written_for_what_is_asked_now(lock: str):
    text = (FOLDER / f"{lock}.txt").read_text()
    assert text.startswith(head(wanted()[lock])), (
        f"requirements/{lock}.txt is older than pyproject.toml: run `make lock`"
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_every_platform_gets_what_is_asked(lock: str):
    for environment in environments():
        versions = held(lock, environment)
        for asked in map(Requirement, wanted()[lock]):
            if asked.marker is None or asked.marker.evaluate(environment):
                assert versions[canonicalize_name(asked.name)] in asked.specifier, (asked, environment)


def test_locks_agree_so_that_they_go_into_one_environment():
    for environment in environments():
        versions: dict[str, str] = {}
        for lock in LOCKS:
            for name, version in held(lock, environment).items():
                assert versions.setdefault(name, version) == version, (lock, name)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_has_hashes_and_no_lock_names_a_place(lock: str):
    text = (FOLDER / f"{lock}.txt").read_text()
    for block in re.split(r"\n(?=[a-z0-9])", text)[1:]:
        assert re.search(r"\\\n    --hash=sha256:[0-9a-f]{64}", block), block.splitlines()[0]
    assert "://" not in text
    assert "-index" not in text
    assert "find-links" not in text


def test_every_extra_of_the_server_has_a_lock_and_nothing_else_does():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras) < set(LOCKS)
    assert {path.stem for path in FOLDER.glob("*.txt")} == set(LOCKS)
    assert HEAD in (FOLDER / "run.txt").read_text()


def test_the_wheels_carry_the_licence():
    for project in ("clients/python", "conformance"):
        assert (ROOT / project / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
