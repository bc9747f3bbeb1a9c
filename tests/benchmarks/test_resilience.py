"""A minute of `make resilience`: what must never happen, whatever the machine is."""

from __future__ import annotations

import pytest
from benchmarks.resilience.__main__ import measure
from benchmarks.resilience.plan import Plan

pytestmark = [pytest.mark.timeout(400), pytest.mark.alone]


def test_nothing_fails_otherwise_than_documented_and_nothing_is_left_behind():
    found = measure(Plan(seed=1, quick=True), ["limits", "faults", "rolling", "routes", "cancel"], print)
    # Figures with another target depend on the machine.
    absolute = [verdict for findings in found.values() for verdict in findings.verdicts if verdict.target == 0]
    assert len(absolute) >= 14
    assert [verdict.name for verdict in absolute if not verdict.passes] == []
