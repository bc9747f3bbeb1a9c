"""Jobs: submitted, followed, listed and canceled."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from clients.python.tests.pictures import SQUARE, STAR, noise

from camserve_client import CamserveError, Input

pytestmark = pytest.mark.timeout(180)
NO_JOB = "job_0000000000000000000000"


async def test_a_job_is_followed_to_its_end(client):
    job = await client.submit({"a": STAR, "b": b"nothing"}, model="shapes", cam=True, metadata={"order": 7, "x": [1.5]})
    told = []
    ended = await job.wait(on_info=told.append)
    assert (ended.status, ended.final) == ("succeeded", True)
    assert (ended.result_summary.items, ended.result_summary.succeeded, ended.result_summary.failed) == (2, 1, 1)
    assert ended.metadata == {"order": 7, "x": [1.5]}
    assert ended.submitted_at <= ended.started_at <= ended.completed_at <= ended.expires_at
    assert told[-1] == ended
    items = [item async for item in job.results()]
    assert [(item.id, item.status) for item in items] == [("a", "succeeded"), ("b", "failed")]
    assert items[0].result.top.id == "star"
    assert items[1].error.code == "image.invalid_format"
    assert (await client.fetch(items[0].result.heatmap)).to_pil().size == (160, 160)
    assert (await job.wait()).status == "succeeded"


async def test_images_are_told_of_as_they_are_finished_and_once(client):
    job = await client.submit([STAR, SQUARE] * 10, model="shapes")
    names = [item.id async for item in job.watch()]
    assert sorted(names, key=int) == [str(number) for number in range(20)]
    # The same when it is over.
    assert repr(client.job(job.id)) == f"AsyncJob({job.id!r})"
    assert len([item async for item in client.job(job.id).watch()]) == 20


async def test_the_only_image_of_a_job_is_in_its_info(client):
    info = await (await client.submit([STAR], model="shapes", ttl_hours=2)).wait()
    assert info.result.top.id == "star"
    assert timedelta(hours=1.9) < info.expires_at - info.submitted_at < timedelta(hours=2.1)


async def test_a_job_of_which_all_failed_says_why(client):
    info = await (await client.submit([b"nothing"], model="shapes")).wait()
    assert (info.status, info.error.code, info.error.status) == ("failed", "image.invalid_format", 400)


async def test_large_images_are_uploaded_and_kept_by_the_job(client):
    job = await client.submit({"large": noise(1800), "photo": noise(1300), "small": STAR}, model="shapes")
    assert (await job.wait()).result_summary.succeeded == 3


async def test_the_same_key_has_the_same_job_although_images_are_uploaded_for_it(client):
    inputs = {"large": noise(1800), "photo": noise(1801), "small": STAR}
    first, again = [await client.submit(inputs, model="shapes", idempotency_key="k") for _ in range(2)]
    assert first.id == again.id
    assert (await again.wait()).result_summary.succeeded == 3
    with pytest.raises(CamserveError) as refused:
        await client.submit(inputs | {"photo": noise(1802)}, model="shapes", idempotency_key="k")
    assert refused.value.code == "idempotency.key_reused"


async def test_a_refused_upload_refuses_the_job(client):
    with pytest.raises(CamserveError) as refused:
        await client.submit([bytes(9_000_000)], model="shapes")
    assert refused.value.code == "image.invalid_format"


async def test_jobs_are_listed_newest_first_and_by_filters(client):
    before = datetime.now(UTC)
    made = [(await client.submit([STAR], model="shapes")).id for _ in range(3)]
    assert [info.job_id async for info in client.jobs()] == made[::-1]
    await client.job(made[-1]).wait()
    assert made[-1] in [info.job_id async for info in client.jobs(status="succeeded", model="shapes")]
    assert [info async for info in client.jobs(model="none")] == []
    assert len([info async for info in client.jobs(created_after=before - timedelta(minutes=1))]) == 3
    assert [info async for info in client.jobs(created_before=before - timedelta(minutes=1))] == []


async def test_more_results_than_a_page_has_come_in_order(client):
    job = await client.submit([Input(STAR, f"n{number}") for number in range(230)], model="shapes", top_k=1)
    await job.wait()
    assert [item.id async for item in job.results()] == [f"n{number}" for number in range(230)]


async def test_a_job_under_a_key_is_made_once(client):
    first, again = [await client.submit([STAR], model="shapes", idempotency_key="k") for _ in range(2)]
    assert first.id == again.id


async def test_a_canceled_job_is_final(client):
    job = await client.submit([noise(700)] * 5, model="shapes")
    canceled = None
    with suppress(CamserveError):
        # Unless it was faster.
        canceled = await job.cancel()
    ended = await job.wait()
    if canceled:
        assert canceled.status == ended.status == (await job.cancel()).status == "canceled"
    else:
        assert ended.status == "succeeded"


async def test_an_unknown_job_is_not_waited_for(client):
    job = client.job(NO_JOB)
    for asking in (job.info(), job.wait(), job.cancel()):
        with pytest.raises(CamserveError) as refused:
            await asking
        assert (refused.value.code, refused.value.status) == ("job.not_found", 404)
    with pytest.raises(CamserveError):
        assert [item async for item in job.watch()]


async def test_waiting_ends_when_its_time_is_over(client):
    job = await client.submit([noise(900)] * 3, model="shapes")
    with pytest.raises(CamserveError) as late:
        await job.wait(timeout_s=1e-4)
    assert late.value.code == "timeout.exceeded"
    assert (await job.wait()).status == "succeeded"


async def test_what_is_no_id_is_not_there(client):
    for call, code in (
        (client.job("nope").info(), "job.not_found"),
        (client.job("nope").wait(), "job.not_found"),
        (client.get_upload("nope"), "upload.not_found"),
        (client.webhooks.get("nope"), "webhook.not_found"),
    ):
        with pytest.raises(CamserveError) as refused:
            await call
        assert (refused.value.code, refused.value.status) == (code, 404)
