"""Results that outlive their call are read again, those of older releases too."""

from __future__ import annotations

from dataclasses import asdict

import orjson

from camserve_server.core.infer_result import ClassScore, InferResult, Timings
from camserve_server.core.stored_results import decode_outcome, encode_result
from camserve_server.rpc.answers import batch_result

TIMINGS = Timings(1, 2, 3, 4, 5, 6)
CLASSES = [ClassScore("star", "Star", 0.9)]
RESULT = InferResult("shapes", "2", "1", "june", 8, 8, "image/png", "00", CLASSES, None, TIMINGS, "ab")


async def test_a_stored_result_says_by_which_labels_and_calibration_it_came():
    outcome, _ = await decode_outcome("a", encode_result(RESULT, inline=False), "acme", None)
    message = batch_result(outcome.result)
    assert (message.labels_version, message.calibration_version) == ("1", "june")


async def test_a_result_that_an_older_release_stored_is_read():
    fields = asdict(RESULT) | {"classes": [("star", "Star", 0.9)]}
    del fields["content_sha256"]
    outcome, _ = await decode_outcome("a", orjson.dumps({"result": fields}), "acme", None)
    message = batch_result(outcome.result)
    assert not message.HasField("content_sha256")
    assert (message.labels_version, message.calibration_version) == ("1", "june")
