"""The janitor's sweeps: one that fails keeps no other from running."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.janitor import Janitor

SWEEPS = ["remove_expired", "mend_ring", "mend", "expire_due"]


class Stores:
    """Has nothing to sweep; one kind of sweep fails."""

    def __init__(self, failing=None, due=()):
        self.failing = failing
        self.due = list(due)
        self.counts = Counter()
        self.asked_twice = {name: asyncio.Event() for name in SWEEPS}

    def __getattr__(self, name):
        async def sweep(**_):
            self.counts[name] += 1
            if self.counts[name] == 2:
                self.asked_twice[name].set()
            if name == self.failing:
                raise ApiError(Reason.STORE_UNAVAILABLE)
            return self.due.pop(0) if name == "expire_due" and self.due else 0

        return sweep


@pytest.mark.parametrize("failing", SWEEPS)
async def test_a_sweep_that_fails_is_made_again_and_keeps_no_other_from_running(monkeypatch, failing):
    monkeypatch.setattr("camserve_server.core.janitor._JOBS_INTERVAL_S", 0)
    stores = Stores(failing)
    janitor = Janitor(stores, stores, stores, FakeClock(), objects_interval_s=0)
    janitor.start()
    for asked_twice in stores.asked_twice.values():
        await asked_twice.wait()
    await janitor.stop()


async def test_of_many_jobs_that_are_due_a_round_ends_many_pages():
    stores = Stores(due=[100] * 3 + [1, 100])
    janitor = Janitor(stores, stores, stores, FakeClock(), objects_interval_s=1000)
    janitor.start()
    while len(stores.due) > 1:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    # The fourth page was not full, so the rest is for the next round, two seconds later.
    assert stores.due == [100]
    await janitor.stop()
