"""One image over REST: answered at once, or made a job of."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from tests.conftest import start_stack, stop_stack
from tests.e2e.test_jobs import finished
from tests.images import encoded, star_png

SYNC_BYTES, SYNC_PX = 200_000, 1_000_000


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    stack = start_stack(
        tmp_path_factory.mktemp("stack"), sync_image_bytes=SYNC_BYTES, sync_pixels=SYNC_PX, imaging_workers=1
    )
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as client:
        yield client
    stop_stack(stack)


def upload(api, data, media_type, **headers):
    return api.post(
        "/v1/infer", params={"model": "shapes"}, content=data, headers={"content-type": media_type, **headers}
    )


def ends_well(api, answer):
    assert answer.status_code == 202, answer.text
    receipt = answer.json()
    assert (receipt["status"], receipt["counts"]) == ("queued", {"submitted": 1})
    assert answer.headers["location"].endswith(f"/v1/jobs/{receipt['job_id']}")
    job = finished(api, receipt["job_id"])
    assert job["status"] == "succeeded"
    return job


def test_an_image_of_many_bytes_becomes_a_job(api):
    data = star_png() + bytes(SYNC_BYTES)
    job = ends_well(api, upload(api, data, "image/png"))
    assert job["result"]["classes"][0]["id"] == "star"


def test_an_image_of_many_pixels_becomes_a_job(api):
    data = encoded(1001, 1000, "JPEG", quality=10)
    assert len(data) < SYNC_BYTES
    job = ends_well(api, upload(api, data, "image/jpeg"))
    assert job["result"]["image"] == job["result"]["image"] | {"width": 1001, "height": 1000}


def test_an_image_of_as_many_pixels_as_allowed_is_answered_at_once(api):
    answer = upload(api, encoded(1000, 1000, "JPEG", quality=10), "image/jpeg")
    assert answer.status_code == 200
    assert not {"job_id", "status", "counts", "estimated_wait_ms"} & set(answer.json())


def test_a_large_image_that_is_broken_is_refused_at_once(api):
    answer = upload(api, encoded(1200, 1200, "JPEG", quality=10), "image/png")
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "media.mismatch")


def test_respond_async_is_heard_over_rest(api):
    answer = upload(api, star_png(), "image/png", prefer="respond-async")
    assert answer.headers["preference-applied"] == "respond-async"
    ends_well(api, answer)


def test_a_queue_too_long_for_the_budget_makes_jobs(make_stack):
    # So long a wait that no call is refused for want of room.
    stack = make_stack(sync_timeout_s=0.4, imaging_workers=1, queue_wait_s=60)
    data = encoded(3000, 2000, "JPEG", quality=60)
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(), timeout=60) as api:
        with ThreadPoolExecutor(40) as callers:
            answers = list(callers.map(lambda _: upload(api, data, "image/jpeg"), range(200)))
        assert {answer.status_code for answer in answers} <= {200, 202, 504}
        receipts = [answer for answer in answers if answer.status_code == 202]
        assert receipts
        ends_well(api, receipts[0])
