"""`make bench-clients` measures every client; what it finds depends on the machine, but for the memory of an upload."""

from __future__ import annotations

import re

import pytest
from benchmarks.clients.__main__ import FOLDERS, Plan, measure
from benchmarks.clients.gigabyte import size_bytes

# A picture of 52 MB.
FEW = Plan(rounds=1, upload_rounds=1, calls=32, height_px=800)
pytestmark = pytest.mark.timeout(1800)


def test_every_client_is_measured(capsys):
    found = measure(FEW, FOLDERS, print).figures
    assert found["missing"] == {}
    assert {one["language"] for one in found["overhead"]} == {"Python", "Go", "TypeScript (Node)", "Java"}
    uploads = {one["language"]: one for one in found["uploads"]}
    assert uploads.keys() >= {"Python", "Go", "TypeScript (Node)", "Java, -Xmx40m", "Rust", "C++"}
    # As shipped Java's virtual machine lets garbage grow.
    grown = {name: one["peak_mb"] - one["idle_mb"] for name, one in uploads.items() if name != "Java"}
    assert {name: mb for name, mb in grown.items() if mb > size_bytes(FEW.height_px) / 1e6} == {}
    said = capsys.readouterr().out
    assert len(re.findall(r"^\| (?:Python|Go|TypeScript|Java|Rust|C\+\+)", said, re.MULTILINE)) == 11


def test_a_missing_toolchain_is_told(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    found = measure(FEW, ["cpp", "go"], print)
    assert set(found.figures["missing"]) == {"Go", "C++"}
    assert [verdict.passes for verdict in found.verdicts] == [False, False, False]
    said = capsys.readouterr().out
    assert said.count("not measured: no go") == 2
    assert said.count("not measured: no cmake") == 1
