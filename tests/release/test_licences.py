"""What `make licences` allows, and what was decided."""

from __future__ import annotations

from email.message import Message
from fnmatch import fnmatch
from importlib.metadata import Distribution, PathDistribution

import pytest
from release.licences import LISTS, Decision, Rules, is_allowed, licence_of, rules
from release.lock import FOLDER, pins

SOME = frozenset({"MIT", "BSD-3-Clause", "Apache-2.0 WITH LLVM-exception"})


@pytest.mark.parametrize(
    "expression",
    [
        "MIT",
        "MIT AND BSD-3-Clause",
        "GPL-3.0-only OR MIT",
        "MIT AND (GPL-3.0-only OR BSD-3-Clause)",
        "Apache-2.0 WITH LLVM-exception AND MIT",
    ],
)
def test_allowed(expression: str):
    assert is_allowed(expression, SOME)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "GPL-3.0-only",
        "MIT AND GPL-3.0-only",
        "GPL-3.0-only OR LGPL-3.0-only",
        "(MIT OR GPL-3.0-only) AND GPL-3.0-only",
        "Apache-2.0",
        "MIT BSD-3-Clause",
        "MIT AND",
        "(MIT",
        "MIT WITH something",
    ],
)
def test_not_allowed(expression: str):
    assert not is_allowed(expression, SOME)


def package(tmp_path, **fields: str | list[str]) -> Distribution:
    said = Message()
    for name, value in fields.items():
        for each in value if isinstance(value, list) else [value]:
            said[name.replace("_", "-")] = each
    (tmp_path / "METADATA").write_text(said.as_string())
    return PathDistribution(tmp_path)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT OR X", "License": "BSD"}, "MIT OR X"),
        ({"License": "Apache 2.0"}, "Apache-2.0"),
        ({"License": "Strange"}, "Strange"),
        ({"Classifier": ["License :: OSI Approved", "License :: OSI Approved :: MIT License"]}, "MIT"),
        ({"Classifier": ["License :: OSI Approved :: MIT License", "License :: Other"]}, "MIT AND Other"),
        ({"Classifier": ["Topic :: Software"]}, "nothing"),
    ],
)
def test_what_metadata_say(fields, licence: str, tmp_path):
    assert licence_of(package(tmp_path, **fields), rules().words) == licence


def test_a_decision_holds_for_one_licence_only_and_some_only_in_development():
    ours = Rules(SOME, {}, (Decision("a-*", "LGPL-3.0-only", "why"), Decision("b", "MPL-2.0", "why", only_dev=True)))
    assert ours.refusal("a-b", "LGPL-3.0-only", runs=True) is None
    assert "'GPL-3.0-only'" in (ours.refusal("a-b", "GPL-3.0-only", runs=False) or "")
    assert ours.refusal("b", "MPL-2.0", runs=False) is None
    assert ours.refusal("b", "MPL-2.0", runs=True) == "may only be used in development"
    assert "nothing was decided" in (ours.refusal("c", "Strange", runs=True) or "")


def test_decisions_are_about_packages_that_there_are_and_say_why():
    names = {name for locks in LISTS.values() for lock in locks for name, _ in pins(lock)}
    for decision in rules().decisions:
        assert any(fnmatch(name, decision.name) for name in names), decision.name
        assert len(decision.why) > 30


def test_every_lock_is_looked_at():
    assert {lock for locks in LISTS.values() for lock in locks} == {path.stem for path in FOLDER.glob("*.txt")}
