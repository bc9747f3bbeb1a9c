"""`camserve top`: what it shows of a running service, and of one that is not there."""

from __future__ import annotations

import re
import threading

import httpx
import pytest
from tests.conftest import Stack, free_ports
from tests.images import encoded

from camserve_server.cli.scrape import Look, Span, quantile

pytestmark = pytest.mark.timeout(120)


def test_a_page_shows_replica_versions_and_tenant(stack: Stack) -> None:
    done = threading.Event()
    codes: set[int] = set()
    large = encoded(3000, 2000, "JPEG")

    def call() -> None:
        headers = stack.headers(tenant="watched") | {"content-type": "image/jpeg"}
        while not done.is_set():
            answer = httpx.post(
                f"{stack.edge_url}/v1/infer",
                params={"model": "shapes"},
                content=large,
                headers=headers,
                timeout=60,
            )
            codes.add(answer.status_code)

    callers = [threading.Thread(target=call) for _ in range(4)]
    for caller in callers:
        caller.start()
    try:
        # At the moment of a page the tenant may have no call under way.
        while True:
            seen = stack.camserve("top", "--once", "--interval", "1")
            if seen.returncode or re.search(r"^watched\s+[1-9]", seen.stdout, re.MULTILINE):
                break
    finally:
        done.set()
        for caller in callers:
            caller.join()
    assert (seen.returncode, seen.stderr, codes) == (0, "", {200})
    (replica,) = re.findall(rf"^127.0.0.1:{stack.metrics_port}\s+([0-9.]+)\s", seen.stdout, re.MULTILINE)
    assert float(replica) > 0
    (state, images) = re.findall(r"^shapes 2\s+(\w+)\s+([0-9.]+)\s", seen.stdout, re.MULTILINE)[0]
    assert (state, float(images) > 0) == ("ready", True)


def test_a_replica_that_does_not_answer_is_said_to(stack: Stack) -> None:
    (port,) = free_ports(1)
    seen = stack.camserve("top", "--once", "--interval", "0.2", "--metrics", f"http://127.0.0.1:{port}/metrics")
    assert seen.returncode == 0
    assert re.search(rf"^127.0.0.1:{port}\s+no answer", seen.stdout, re.MULTILINE)


def buckets(name: str, *counts: tuple[str, int]) -> str:
    return f"# TYPE {name} histogram\n" + "".join(f'{name}_bucket{{le="{le}"}} {count}\n' for le, count in counts)


def test_quantiles_are_of_what_came_between_two_looks() -> None:
    before = Look(buckets("t", ("1", 100), ("2", 100), ("+Inf", 100)), 0.0)
    after = Look(buckets("t", ("1", 100), ("2", 110), ("+Inf", 110)), 1.0)
    grown = [Span(before, after).buckets("t")]
    assert quantile(0.5, grown) == pytest.approx(1.5)
    assert quantile(1.0, grown * 2) == pytest.approx(2.0)
    assert quantile(0.5, [Span(after, after).buckets("t")]) is None


def test_a_counter_that_began_anew_counts_whole() -> None:
    before, after = Look("# TYPE c counter\nc_total 9\n", 0.0), Look("# TYPE c counter\nc_total 4\n", 2.0)
    assert Span(before, after).rate("c_total") == pytest.approx(2.0)
