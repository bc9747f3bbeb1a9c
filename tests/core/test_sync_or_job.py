"""Which calls a job is made of when the queue is too long for them."""

from __future__ import annotations

import pytest

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.infer_options import ImageSource, InferOptions
from camserve_server.core.job_intake import Receipt
from camserve_server.core.sync_or_job import SyncOrJob

RECEIPT = Receipt("job_1", "shapes", "2", 1, 0)


class LongQueue:
    """Would answer nothing in time."""

    def check(self, *_):
        return None

    def budget_s(self, time_left_s):
        return time_left_s

    def in_time(self, *_):
        return False


class Intake:
    async def create(self, *_, **__):
        return RECEIPT


def late():
    raise ApiError(Reason.TIMEOUT_EXCEEDED)


async def test_a_call_that_would_not_hear_of_its_job_runs_out_of_time_instead():
    service = SyncOrJob(LongQueue(), Intake(), sync_bytes=1, sync_px=1)
    options = InferOptions(model="shapes", model_version="2")
    assert await service.infer("a", ImageSource(late), options, time_left_s=0.3) is RECEIPT
    with pytest.raises(ApiError) as refused:
        await service.infer("a", ImageSource(late), options, time_left_s=0.2)
    assert refused.value.reason is Reason.TIMEOUT_EXCEEDED
