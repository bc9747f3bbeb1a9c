"""Section 4: InferBatch, and the streams of it and of WatchJob."""

from __future__ import annotations

from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, REST, Section
from camserve_conformance.checks.tenancy import finished_job
from camserve_conformance.kit import Kit, image
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.rest import SSE
from camserve_conformance.shapes import INT32, JOB, JOB_ITEM, RESULT, STRING, SUMMARY, expect_shape

section = Section("batch", "4. Messages: InferBatch and streams")

_KINDS = {"item", "status", "heartbeat", "done", "error"}


def _readable(answer: Answer) -> Answer:
    if not isinstance(answer.need(), list):
        raise BlockedError("the answer cannot be read as a stream")
    return answer


async def _batch(kit: Kit) -> Answer:
    """Returns a batch of two good images and one that is none, which checks share."""

    async def make() -> Answer:
        inputs: list[dict[str, Any]] = [{"id": name, "image": image("star.png")} for name in ("a", "b")]
        inputs.append({"id": "broken", "image": image("truncated.png")})
        return _readable(await kit.call("InferBatch", {"model": await kit.model(), "inputs": inputs}))

    answer: Answer = await kit.once("batch", make)
    return answer


async def _watched(kit: Kit) -> Answer:
    async def make() -> Answer:
        return _readable(await kit.call("WatchJob", {"job_id": await finished_job(kit)}))

    answer: Answer = await kit.once("watched job", make)
    return answer


def _of(answer: Answer, kind: str) -> list[dict[str, Any]]:
    return [event for event in answer.body if event["event"] == kind]


@section.check("Every object of a batch's stream says its event.", ways=BOTH)
async def events(kit: Kit) -> None:
    answer = await _batch(kit)
    expect_shape(answer, answer.body, [{"event": STRING}])
    unknown = {event["event"] for event in answer.body} - _KINDS
    answer.expect(not unknown, f"events of other kinds: {unknown}")


@section.check("A batch's stream ends with `done`, and has it nowhere else.", ways=BOTH)
async def done_last(kit: Kit) -> None:
    answer = await _batch(kit)
    kinds = [event["event"] for event in answer.body]
    answer.expect(kinds[-1] == "done" and kinds.count("done") == 1, f"the events are {kinds}")


@section.check("A batch has an item for each input.", ways=BOTH)
async def items(kit: Kit) -> None:
    answer = await _batch(kit)
    answer.expect_equal("the items", sorted(event["item"]["id"] for event in _of(answer, "item")), ["a", "b", "broken"])


@section.check("A batch's item has its members, of their types.", ways=BOTH)
async def item_shape(kit: Kit) -> None:
    answer = await _batch(kit)
    for event in _of(answer, "item"):
        expect_shape(answer, event["item"], {"id": STRING, "status": STRING, "result?": RESULT}, "item")


@section.check("An image that is none fails alone, with its error.", ways=BOTH)
async def broken_item(kit: Kit) -> None:
    answer = await _batch(kit)
    found = {event["item"]["id"]: event["item"] for event in _of(answer, "item")}
    answer.expect_equal("the status of the broken image", found["broken"]["status"], "failed")
    answer.expect_equal("its error's code", found["broken"].get("error", {}).get("code"), "image.decoding_failed")


@section.check("The summary of a batch counts items, succeeded and failed.", ways=BOTH)
async def summary(kit: Kit) -> None:
    answer = await _batch(kit)
    told = _of(answer, "done")[0].get("summary")
    expect_shape(answer, told, SUMMARY, "summary")
    answer.expect_equal("the summary", told, {"items": 3, "succeeded": 2, "failed": 1})


@section.check("The data of each server-sent event is one object of the stream.")
async def sse(kit: Kit) -> None:
    message = {"model": await kit.model(), "inputs": [{"id": "a", "image": image("star.png")}]}
    answer = await kit.rest.request("POST", "/v1/infer:batch", json=message, headers={"accept": SSE})
    answer.need()
    answer.expect(isinstance(answer.body, list), "the stream cannot be read as events with JSON data")
    answer.expect_equal("the last event", answer.body[-1].get("event"), "done")


@section.check("InferBatch refuses the header Idempotency-Key.", ways=BOTH)
async def no_key(kit: Kit) -> None:
    message = {"model": await kit.model(), "inputs": [{"id": "a", "image": image("star.png")}]}
    answer = await kit.call("InferBatch", message, key="camserve-conformance")
    answer.expect_refusal("idempotency.key_invalid")


@section.check("A job's stream ends with `done`, and has it nowhere else.", ways=BOTH)
async def watch_done_last(kit: Kit) -> None:
    answer = await _watched(kit)
    kinds = [event["event"] for event in answer.body]
    answer.expect(kinds[-1] == "done" and kinds.count("done") == 1, f"the events are {kinds}")


@section.check("A job's stream has an item for each input, those already finished included.", ways=BOTH)
async def watch_items(kit: Kit) -> None:
    answer = await _watched(kit)
    answer.expect_equal("the items", sorted(event["item"]["id"] for event in _of(answer, "item")), ["a", "b"])


@section.check("A job's stream carries job, item and summary, of their types.", ways=BOTH)
async def watch_shape(kit: Kit) -> None:
    answer = await _watched(kit)
    expect_shape(answer, answer.body, [{"job?": JOB, "item?": JOB_ITEM, "summary?": {"items": INT32}}], "the stream")


@section.check("A stream that is refused is an error, not a stream.", ways=(REST,))
async def refused(kit: Kit) -> None:
    answer = await kit.call("InferBatch", {"model": "camserve-conformance", "inputs": [{"id": "a"}]})
    answer.expect_equal(
        "the content type", answer.headers.get("content-type", "").partition(";")[0], "application/json"
    )
