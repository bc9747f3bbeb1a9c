"""Section 4: jobs, from their creation to their results."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, Section
from camserve_conformance.checks.tenancy import finished_job
from camserve_conformance.kit import Kit, image
from camserve_conformance.outcomes import BlockedError
from camserve_conformance.shapes import JOB, JOB_ITEM, PAGE, RECEIPT, RESULT, expect_shape, moment

section = Section("jobs", "4. Messages: jobs")

_METADATA = {"order": 7, "nested": {"list": [1, "two", None, True]}}
_STATES = {"queued", "running", "succeeded", "failed", "canceled", "expired"}
# Enough that a job has not ended when its cancellation comes; more and more are tried.
_INPUTS = (16, 64, 256)
_MOST_METADATA_BYTES = 16 * 1024


def _inputs(*names: str, of: str = "star.png") -> list[dict[str, Any]]:
    return [{"id": name, "image": image(of)} for name in names]


async def _receipt(kit: Kit) -> Answer:
    """Returns the receipt of a job of three inputs, which checks share."""

    async def make() -> Answer:
        answer = await kit.create_job(_inputs("a", "b", "c"))
        answer.need()
        return answer

    answer: Answer = await kit.once("receipt", make)
    return answer


async def _one(kit: Kit) -> Answer:
    """Returns a job of one good input that has ended, which checks share."""

    async def make() -> Answer:
        created = await kit.create_job(_inputs("only"), metadata=_METADATA, ttl_hours=2)
        return await kit.ended(created.need()["job_id"])

    answer: Answer = await kit.once("job of one", make)
    return answer


async def _mixed(kit: Kit, *pictures: str) -> Answer:
    inputs = [{"id": f"{place}", "image": image(name)} for place, name in enumerate(pictures)]
    created = await kit.create_job(inputs)
    return await kit.ended(created.need()["job_id"])


@section.check("A receipt has job_id, status, counts.submitted, estimated_wait_ms and request_id.", ways=BOTH)
async def receipt(kit: Kit) -> None:
    answer = await _receipt(kit)
    expect_shape(answer, answer.body, RECEIPT)


@section.check("A receipt says queued.", ways=BOTH)
async def receipt_status(kit: Kit) -> None:
    answer = await _receipt(kit)
    answer.expect_equal("status", answer.body["status"], "queued")


@section.check("A receipt counts the inputs.", ways=BOTH)
async def receipt_counts(kit: Kit) -> None:
    answer = await _receipt(kit)
    answer.expect_equal("counts.submitted", answer.body["counts"]["submitted"], 3)


@section.check("The receipt's request_id equals Request-Id.", ways=BOTH)
async def receipt_request_id(kit: Kit) -> None:
    answer = await _receipt(kit)
    answer.expect_equal("request_id", answer.body["request_id"], answer.request_id)


@section.check("A job has its members, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await _one(kit)
    expect_shape(answer, answer.body, JOB)
    answer.expect(answer.body["status"] in _STATES, f"status is {answer.body['status']!r}")


@section.check("A job with a good item is succeeded.", ways=BOTH)
async def succeeded(kit: Kit) -> None:
    answer = await _mixed(kit, "star.png", "truncated.png")
    answer.expect_equal("status", answer.body["status"], "succeeded")


@section.check("A job of which all items are bad is failed.", ways=BOTH)
async def failed(kit: Kit) -> None:
    answer = await _mixed(kit, "truncated.png")
    answer.expect_equal("status", answer.body["status"], "failed")


@section.check("`result_summary` counts items, succeeded and failed.", ways=BOTH)
async def summary(kit: Kit) -> None:
    answer = await _mixed(kit, "star.png", "truncated.png", "star.png")
    answer.expect_equal("result_summary", answer.body["result_summary"], {"items": 3, "succeeded": 2, "failed": 1})


@section.check("A job that has ended says when it was submitted, started and completed, in this order.", ways=BOTH)
async def times(kit: Kit) -> None:
    answer = await _one(kit)
    told = [answer.body.get(name, "") for name in ("submitted_at", "started_at", "completed_at")]
    answer.expect(all(told), f"a time is missing: {told}")
    answer.expect(moment(told[0]) <= moment(told[1]) <= moment(told[2]), f"the order is {told}")


@section.check("`ttl_hours` says how long after its submission a job expires.", ways=BOTH)
async def ttl(kit: Kit) -> None:
    answer = await _one(kit)
    kept = moment(answer.body["expires_at"]) - moment(answer.body["submitted_at"])
    answer.expect(abs(kept - timedelta(hours=2)) < timedelta(minutes=1), f"it expires after {kept}, not 2 h")


@section.check("`ttl_hours` may be 1 to 720: 0 is refused.", ways=BOTH)
async def ttl_least(kit: Kit) -> None:
    answer = await kit.create_job(_inputs("a"), ttl_hours=0)
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("`ttl_hours` may be 1 to 720: 721 is refused.", ways=BOTH)
async def ttl_most(kit: Kit) -> None:
    answer = await kit.create_job(_inputs("a"), ttl_hours=721)
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("`metadata` is echoed.", ways=BOTH)
async def metadata(kit: Kit) -> None:
    answer = await _one(kit)
    answer.expect_equal("metadata", answer.body.get("metadata"), _METADATA)


@section.check("`metadata` beyond 16 KB is refused.", ways=BOTH)
async def metadata_most(kit: Kit) -> None:
    answer = await kit.create_job(_inputs("a"), metadata={"text": "x" * _MOST_METADATA_BYTES})
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("`model_version` is resolved at submission.", ways=BOTH)
async def version(kit: Kit) -> None:
    answer = await _one(kit)
    answer.expect_equal("model_version", answer.body["model_version"], (await kit.version())["version"])


@section.check("`results_url` leads to the results, and starts with CAMSERVE_PUBLIC_URL.", ways=BOTH)
async def results_url(kit: Kit) -> None:
    answer = await _one(kit)
    wanted = f"{kit.options.links}/v1/jobs/{answer.body['job_id']}/results"
    answer.expect_equal("results_url", answer.body["results_url"], wanted)


@section.check("A job with one input has its `result` when it is done.", ways=BOTH)
async def result(kit: Kit) -> None:
    answer = await _one(kit)
    expect_shape(answer, answer.body.get("result"), RESULT, "result")


@section.check("`job_type` is inference: another is refused.", ways=BOTH)
async def job_type(kit: Kit) -> None:
    answer = await kit.create_job(_inputs("a"), job_type="camserve-conformance")
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("An input's id may have 128 characters.", ways=BOTH)
async def longest_id(kit: Kit) -> None:
    answer = await kit.create_job(_inputs("x" * 128))
    answer.expect(answer.ok, f"an id of 128 characters answered {answer.status} {answer.code}")


@section.check("An input's id has 128 characters at most.", ways=BOTH)
async def too_long_id(kit: Kit) -> None:
    answer = await kit.create_job(_inputs("x" * 129))
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("An input's id is not empty.", ways=BOTH)
async def empty_id(kit: Kit) -> None:
    answer = await kit.create_job(_inputs(""))
    answer.expect_equal("the status", answer.status, 400, "INVALID_ARGUMENT")


@section.check("A job may hold every option that one image may have.", ways=BOTH)
async def options(kit: Kit) -> None:
    one = {
        **_inputs("a")[0],
        "grad_cam": {"enabled": True, "format": "npy"},
        "classify": {"top_k": 2},
        "resize": {"longest_side": 64},
    }
    created = await kit.create_job([one], response={"heatmap": "inline"})
    answer = await kit.ended(created.need()["job_id"])
    found = answer.body["result"]
    answer.expect_equal("the number of classes", len(found["classes"]), 2)
    answer.expect_equal("the heatmap's type", found["heatmap"]["type"], "npy")


async def _results(kit: Kit) -> Answer:
    """Returns the results of a job with a broken image among its three, which checks share."""

    async def make() -> Answer:
        ended = await _mixed(kit, "star.png", "truncated.png", "baseline.jpg")
        answer = await kit.call("ListJobResults", {"job_id": ended.need()["job_id"]})
        answer.need()
        return answer

    answer: Answer = await kit.once("results", make)
    return answer


@section.check("Results have items and page, of their types.", ways=BOTH)
async def results(kit: Kit) -> None:
    answer = await _results(kit)
    expect_shape(answer, answer.body, {"items": [JOB_ITEM], "page": PAGE})


@section.check("Results list every input, in the order of the request.", ways=BOTH)
async def results_order(kit: Kit) -> None:
    answer = await _results(kit)
    answer.expect_equal("the order", [item["id"] for item in answer.body["items"]], ["0", "1", "2"])


@section.check("A result that is there is succeeded, with `result`.", ways=BOTH)
async def good_result(kit: Kit) -> None:
    answer = await _results(kit)
    item = answer.body["items"][0]
    answer.expect_equal("status", item["status"], "succeeded")
    answer.expect("result" in item, "there is no `result`")


@section.check("An image that failed is failed, with `error`.", ways=BOTH)
async def bad_result(kit: Kit) -> None:
    answer = await _results(kit)
    item = answer.body["items"][1]
    answer.expect_equal("status", item["status"], "failed")
    answer.expect("error" in item, "there is no `error`")


@section.check("Pending inputs are listed, with their status.", ways=BOTH)
async def pending(kit: Kit) -> None:
    created = await kit.create_job(_inputs("a", "b", "c"))
    answer = await kit.call("ListJobResults", {"job_id": created.need()["job_id"]})
    items = answer.need()["items"]
    answer.expect_equal("the inputs", [item["id"] for item in items], ["a", "b", "c"])
    answer.expect(all(item["status"] in _STATES for item in items), "an item has no status of the contract")


async def _canceled(kit: Kit) -> Answer:
    """Returns what cancelled a job that had not ended, which checks share."""

    async def make() -> Answer:
        storage_id = (await kit.upload())["storage_id"]
        for count in _INPUTS:
            inputs = [{"id": f"{place}", "image": {"storage_id": storage_id}} for place in range(count)]
            created = await kit.create_job(inputs)
            answer = await kit.call("CancelJob", {"job_id": created.need()["job_id"]})
            if answer.code != "job.already_completed":
                return answer
        raise BlockedError(f"a job of {_INPUTS[-1]} images ended before it could be canceled")

    answer: Answer = await kit.once("canceled job", make)
    return answer


@section.check("DELETE on a job answers 200.", ways=BOTH)
async def cancel(kit: Kit) -> None:
    (await _canceled(kit)).expect_status(200)


@section.check("DELETE on a job answers with the job, canceled.", ways=BOTH)
async def cancel_body(kit: Kit) -> None:
    answer = await _canceled(kit)
    expect_shape(answer, answer.need(), JOB)
    answer.expect_equal("status", answer.body["status"], "canceled")


@section.check("DELETE on a canceled job answers 200 again.", ways=BOTH)
async def cancel_again(kit: Kit) -> None:
    job_id = (await _canceled(kit)).need()["job_id"]
    answer = await kit.call("CancelJob", {"job_id": job_id})
    answer.expect(answer.ok, f"the second time answered {answer.status} {answer.code}")


@section.check("A canceled job stays canceled.", ways=BOTH)
async def cancel_is_final(kit: Kit) -> None:
    job_id = (await _canceled(kit)).need()["job_id"]
    answer = await kit.call("GetJob", {"job_id": job_id})
    answer.expect_equal("status", answer.need()["status"], "canceled")


@section.check("A job that is not the caller's is job.not_found in its results too.", ways=BOTH)
async def unknown_results(kit: Kit) -> None:
    answer = await kit.call("ListJobResults", {"job_id": "job_" + "0" * 21})
    answer.expect_equal("the error's code", answer.code, "job.not_found")


@section.check("A finished job is found by its id.", ways=BOTH)
async def by_id(kit: Kit) -> None:
    job_id = await finished_job(kit)
    answer = await kit.call("GetJob", {"job_id": job_id})
    answer.expect_equal("job_id", answer.need()["job_id"], job_id)
