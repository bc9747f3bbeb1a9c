"""What `make audit` makes of what pip-audit reports."""

from __future__ import annotations

import datetime

from packaging.version import Version
from release.audit import Ignored, ignored, judge, rounds
from release.lock import pins, wanted

TODAY = datetime.date(2026, 11, 27)
ADVISORY = {"id": "PYSEC-1", "aliases": ["CVE-1", "GHSA-1"], "fix_versions": ["2.1"], "description": "…"}
REPORT = {
    "dependencies": [
        {"name": "good", "version": "1.0", "vulns": []},
        {"name": "bad", "version": "2.0", "vulns": [ADVISORY]},
        {"name": "absent", "skip_reason": "not found"},
    ]
}


def leave(*, package: str = "bad", id: str = "CVE-1", days: int = 0) -> list[Ignored]:  # noqa: A002
    return [Ignored(id, package, "why", TODAY + datetime.timedelta(days))]


def test_what_is_found_is_named_with_what_mends_it():
    verdict = judge(REPORT, [], TODAY)
    assert verdict.found == ("bad 2.0: PYSEC-1, fixed in 2.1",)
    assert verdict.known == 2


def test_a_package_of_which_nothing_is_known_is_not_taken_for_a_good_one():
    assert judge(REPORT, [], TODAY).unknown == ("absent",)
    assert judge({"dependencies": REPORT["dependencies"][2:]}, [], TODAY).known == 0


def test_what_is_left_aside_is_so_by_any_of_its_names_until_its_day():
    for known in ("PYSEC-1", "CVE-1", "GHSA-1"):
        assert judge(REPORT, leave(id=known), TODAY).found == ()
    assert judge(REPORT, leave(), TODAY).ignored == ("bad 2.0: PYSEC-1, fixed in 2.1",)
    assert judge(REPORT, leave(days=-1), TODAY).found
    assert judge(REPORT, leave(package="good"), TODAY).found
    assert judge(REPORT, leave(id="CVE-2"), TODAY).found


def test_every_pin_is_asked_about_once():
    asked = [pin for each in rounds() for pin in each]
    assert len(asked) == len(set(asked))
    assert set(asked) == {f"{name}=={version}" for lock in wanted() for name, version in pins(lock)}
    assert all(Version(pin.partition("==")[2]) for pin in asked)
    for each in rounds():
        names = [pin.partition("==")[0] for pin in each]
        assert len(names) == len(set(names))


def test_what_is_left_aside_says_why():
    assert all(len(each.why) > 30 for each in ignored())
