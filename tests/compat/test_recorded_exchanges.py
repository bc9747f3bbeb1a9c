"""REST callers of the first release are answered as they were: nothing missing, renamed or of another type."""

from __future__ import annotations

import json
import re

import pytest
from tests.compat.exchanges import RECORDED, Caller, differences, play
from tests.compat.release import routes

EXCHANGES = json.loads(RECORDED.read_text())["exchanges"]


@pytest.fixture(scope="module")
def caller(stack):
    def camserve(*arguments: str) -> str:
        done = stack.camserve(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return Caller(stack.edge_url, camserve)


@pytest.mark.parametrize("name", EXCHANGES)
def test_an_exchange_of_the_first_release_is_answered_as_it_was(caller, name):
    assert differences(EXCHANGES[name]["answer"], play(caller, EXCHANGES, name)) == []


def test_every_route_of_the_release_was_recorded_with_success():
    good = [each["request"] for each in EXCHANGES.values() if each["answer"]["status"] < 300]
    played = {(each["method"], each["path"].partition("?")[0].replace("${heatmap}", "/v1/objects/x")) for each in good}
    for verb, template in routes():
        pattern = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(template))
        assert any(verb == method and re.fullmatch(pattern, path) for method, path in played), (verb, template)
