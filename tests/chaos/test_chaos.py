from __future__ import annotations

import pytest
from tests.chaos.run import Plan, chaos
from tests.chaos.system import COMPONENTS


@pytest.mark.alone
@pytest.mark.timeout(420)
def test_promises_are_kept_while_every_component_is_killed_paused_and_restarted():
    report = chaos(Plan(seed=1, kills=1, pauses=1, restarts=1), print)
    assert report.violations == []
    assert report.figures["jobs acknowledged"] > 20
    for component in COMPONENTS:
        assert report.figures[f"{component} kill"] == 1
