"""A store that a sentinel watches: its primary dies, and its replica takes over."""

from __future__ import annotations

import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_cluster import api, check_taken_over
from tests.e2e.test_jobs import create, entry, finished
from tests.faults.sentinel import watched

pytestmark = pytest.mark.timeout(240)


def test_a_primary_that_dies_is_followed_by_its_replica_and_its_jobs_are_there(tmp_path):
    with watched(tmp_path / "servers") as servers:
        running = start_stack(tmp_path / "stack", redis_url=servers.url, job_lease_s=3)
        try:
            with api(running, "acme") as client:
                job_id = create(client, [entry("a")]).json()["job_id"]
                finished(client, job_id)
                servers.replica.wait_for(servers.primary)
                servers.primary.kill()
                check_taken_over(client, job_id)
        finally:
            stop_stack(running)
