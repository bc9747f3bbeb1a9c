"""The mapping between two lists of labels, through the real Envoy."""

from __future__ import annotations

import httpx
import pytest

ROUTE = "/v1/models/relabelled/labels"


@pytest.fixture
def api(stack):
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(scopes=("inference.read",)), timeout=30) as client:
        yield client


def test_the_mapping_tells_every_class(api):
    answer = api.get(ROUTE, params={"from": "2026-01", "to": "2026-02"})
    assert answer.status_code == 200
    body = answer.json()
    classes = {entry.pop("id"): entry for entry in body.pop("classes")}
    assert body == {
        "model": "relabelled",
        "from": "2026-01",
        "to": "2026-02",
        "counts": {"kept": 1, "moved": 2, "renamed": 2, "added": 1, "removed": 1},
    }
    assert classes["ant"] == {
        "changes": ["kept"],
        "from": {"index": 0, "label": "ant"},
        "to": {"index": 0, "label": "ant"},
    }
    assert classes["dog"] == {
        "changes": ["moved", "renamed"],
        "from": {"index": 3, "label": "dog"},
        "to": {"index": 4, "label": "domestic dog"},
    }
    assert classes["fox"] == {"changes": ["added"], "to": {"index": 2, "label": "fox"}}
    assert classes["emu"] == {"changes": ["removed"], "from": {"index": 4, "label": "emu"}}


@pytest.mark.parametrize(
    ("params", "status", "code"),
    [
        ({"from": "2026-01", "to": "none"}, 404, "model.version_not_found"),
        ({"from": "2026-01"}, 400, "param.invalid"),
        ({"from": "2026-01", "to": "2026-02", "model": "shapes"}, 400, "param.invalid"),
        ({"from": "2026-01", "to": "2026-02", "colour": "red"}, 400, "param.invalid"),
    ],
)
def test_questions_that_have_no_answer_are_refused(api, params, status, code):
    answer = api.get(ROUTE, params=params)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_model_that_there_is_not_is_told_so(api):
    answer = api.get("/v1/models/none/labels", params={"from": "1", "to": "1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model.not_found")
