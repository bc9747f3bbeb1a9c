"""Section 4: InferRequest and InferResponse."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, GRPC, REST, Section
from camserve_conformance.kit import Kit, image
from camserve_conformance.pictures import HEIGHT, WIDTH, picture
from camserve_conformance.shapes import INFERENCE, RECEIPT, expect_shape

section = Section("infer", "4. Messages: InferRequest and InferResponse")

# A float32 that was printed and summed.
_CLOSE = 1e-4


async def _plain(kit: Kit) -> Answer:
    """Returns an answer without a heatmap, which checks share."""

    async def make() -> Answer:
        answer = await kit.infer()
        answer.need()
        return answer

    answer: Answer = await kit.once("plain inference", make)
    return answer


@section.check("InferResponse has its members, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await _plain(kit)
    expect_shape(answer, answer.body, INFERENCE)


@section.check("`model` says what was asked.", ways=BOTH)
async def model(kit: Kit) -> None:
    answer = await _plain(kit)
    answer.expect_equal("model", answer.body["model"], await kit.model())


@section.check("`model_version` defaults to stable, and the answer names the version, not the alias.", ways=BOTH)
async def stable(kit: Kit) -> None:
    answer = await _plain(kit)
    answer.expect_equal("model_version", answer.body["model_version"], (await kit.version())["version"])


@section.check("A pinned version answers.", ways=BOTH)
async def pinned(kit: Kit) -> None:
    version = (await kit.version())["version"]
    answer = await kit.infer(model_version=version)
    answer.expect_equal("model_version", answer.need()["model_version"], version)


@section.check("`labels_version` and `calibration_version` are those of the version.", ways=BOTH)
async def labels(kit: Kit) -> None:
    answer = await _plain(kit)
    version = await kit.version()
    for name in ("labels_version", "calibration_version"):
        answer.expect_equal(name, answer.body[name], version[name])


@section.check("`image` tells the width and height in pixels.", ways=BOTH)
async def image_size(kit: Kit) -> None:
    answer = await _plain(kit)
    told = answer.body["image"]
    answer.expect_equal("the size", (told["width"], told["height"]), (WIDTH, HEIGHT))


@section.check("`image` tells the media type that the bytes show.", ways=BOTH)
async def image_type(kit: Kit) -> None:
    answer = await _plain(kit)
    answer.expect_equal("media_type", answer.body["image"]["media_type"], "image/png")


@section.check("`image` tells the SHA-256 of the bytes.", ways=BOTH)
async def image_digest(kit: Kit) -> None:
    answer = await _plain(kit)
    digest = hashlib.sha256(picture("star.png")).hexdigest()
    answer.expect_equal("sha256", answer.body["image"]["sha256"], digest)


@section.check("`timings_ms` are no less than 0, and no part is longer than the total.", ways=BOTH)
async def timings(kit: Kit) -> None:
    answer = await _plain(kit)
    told = answer.body["timings_ms"]
    answer.expect(min(told.values()) >= 0, f"a time is below 0: {told}")
    # Each is rounded by itself.
    answer.expect(told["inference"] <= told["total"] + 1, f"a part is longer than the total: {told}")


@section.check("`classes` are in descending order.", ways=BOTH)
async def descending(kit: Kit) -> None:
    answer = await _plain(kit)
    probabilities = [each["prob"] for each in answer.body["classes"]]
    answer.expect(probabilities == sorted(probabilities, reverse=True), f"the order is {probabilities}")


@section.check("Probabilities are 0 to 1, and sum to no more than 1.", ways=BOTH)
async def probabilities(kit: Kit) -> None:
    answer = await _plain(kit)
    told = [each["prob"] for each in answer.body["classes"]]
    answer.expect(all(0 <= each <= 1 for each in told), f"a probability is none: {told}")
    answer.expect(sum(told) <= 1 + _CLOSE, f"the probabilities sum to {sum(told)}")


@section.check("`top_k` defaults to 5.", ways=BOTH)
async def top_k_default(kit: Kit) -> None:
    answer = await _plain(kit)
    answer.expect_equal("the number of classes", len(answer.body["classes"]), min(5, (await kit.version())["classes"]))


@section.check("`top_k` limits the classes.", ways=BOTH)
async def top_k(kit: Kit) -> None:
    answer = await kit.infer(classify={"top_k": 1})
    answer.expect_equal("the number of classes", len(answer.need()["classes"]), 1)


@section.check("`top_k` may be 1000.", ways=BOTH)
async def top_k_most(kit: Kit) -> None:
    answer = await kit.infer(classify={"top_k": 1000})
    answer.expect(answer.ok, f"top_k 1000 answered {answer.status} {answer.code}")


@section.check("`prob_threshold` leaves out less probable classes.", ways=BOTH)
async def threshold(kit: Kit) -> None:
    answer = await kit.infer(classify={"prob_threshold": 0.2})
    told = [each["prob"] for each in answer.need()["classes"]]
    answer.expect(all(each >= 0.2 - _CLOSE for each in told), f"classes below the threshold: {told}")


@section.check("Without a heatmap asked for, `heatmap` is absent.", ways=BOTH)
async def no_heatmap(kit: Kit) -> None:
    answer = await _plain(kit)
    answer.expect("heatmap" not in answer.body, "there is a member `heatmap`")


@section.check("What may be absent is omitted, never null.")
async def no_nulls(kit: Kit) -> None:
    answer = await _plain(kit)
    empty = [name for name, value in answer.body.items() if value is None]
    answer.expect(not empty, f"null: {', '.join(empty)}")


@section.check("Arrays appear when they are empty.", ways=(REST,))
async def empty_arrays(kit: Kit) -> None:
    answer = await kit.infer(classify={"prob_threshold": 1})
    answer.expect(isinstance(answer.need().get("classes"), list), "there is no array `classes`")


@section.check("Unknown JSON fields are ignored.")
async def unknown_fields(kit: Kit) -> None:
    answer = await kit.infer(camserve_conformance={"a": 1})
    answer.expect(answer.ok, f"an unknown field answered {answer.status} {answer.code}")


@section.check("`resize.longest_side` shrinks the image before it is classified.", ways=BOTH)
async def resize(kit: Kit) -> None:
    answer = await kit.infer(resize={"longest_side": 60}, grad_cam={"enabled": True}, response={"heatmap": "inline"})
    heatmap = answer.need()["heatmap"]
    answer.expect_equal("the longest side drawn", max(heatmap["width"], heatmap["height"]), 60)


@section.check("An image may be named by its `storage_id`.", ways=BOTH)
async def storage_id(kit: Kit) -> None:
    upload = await kit.upload()
    message = {"model": await kit.model(), "image": {"storage_id": upload["storage_id"]}}
    answer = await kit.call("Infer", message)
    answer.expect(answer.ok, f"a storage_id answered {answer.status} {answer.code}")
    digest = hashlib.sha256(picture("star.png")).hexdigest()
    answer.expect_equal("sha256", answer.need()["image"]["sha256"], digest)


@section.check("`image.media_type` may be declared.", ways=BOTH)
async def media_type(kit: Kit) -> None:
    named = image("star.png") | {"media_type": "image/png"}
    answer = await kit.call("Infer", {"model": await kit.model(), "image": named})
    answer.expect(answer.ok, f"a declared media type answered {answer.status} {answer.code}")


@section.check("A job's receipt is flat: request_id, job_id, status, counts.submitted, estimated_wait_ms.", ways=BOTH)
async def receipt(kit: Kit) -> None:
    answer = await _receipt(kit)
    expect_shape(answer, answer.need(), RECEIPT)


@section.check("A call that became a job has the status queued.", ways=BOTH)
async def receipt_status(kit: Kit) -> None:
    answer = await _receipt(kit)
    answer.expect_equal("status", answer.need()["status"], "queued")


@section.check("A call that became a job counts one image submitted.", ways=BOTH)
async def receipt_counts(kit: Kit) -> None:
    answer = await _receipt(kit)
    answer.expect_equal("counts.submitted", answer.need()["counts"]["submitted"], 1)


async def _receipt(kit: Kit) -> Answer:
    message = {"model": await kit.model(), "image": image("star.png"), "classify": {"top_k": 3}}
    return await kit.call("Infer", message, headers={"prefer": "respond-async"})


async def _form(kit: Kit, parts: list[tuple[str, Any]]) -> Answer:
    """Sends a form whose parts have that order."""
    return await kit.rest.request("POST", "/v1/infer", files=parts)


def _file() -> tuple[str, Any]:
    return ("image", ("star.png", picture("star.png"), "image/png"))


@section.check("A form's part `request` holds JSON of InferRequest.")
async def form_json(kit: Kit) -> None:
    said = json.dumps({"model": await kit.model(), "classify": {"top_k": 2}})
    answer = await _form(kit, [_file(), ("request", (None, said))])
    answer.expect(answer.ok, f"a form with a part `request` answered {answer.status} {answer.code}")
    answer.expect_equal("the number of classes", len(answer.body["classes"]), 2)


@section.check("A form's fields are dotted, such as classify.top_k.")
async def form_dotted(kit: Kit) -> None:
    parts = [_file(), ("model", (None, await kit.model())), ("classify.top_k", (None, "3"))]
    answer = await _form(kit, parts)
    answer.expect(answer.ok, f"a form with dotted fields answered {answer.status} {answer.code}")
    answer.expect_equal("the number of classes", len(answer.body["classes"]), 3)


@section.check("A form's parts may come in any order.")
async def form_order(kit: Kit) -> None:
    parts = [("classify.top_k", (None, "4")), ("model", (None, await kit.model())), _file()]
    answer = await _form(kit, parts)
    answer.expect(answer.ok, f"a form that ends with the image answered {answer.status} {answer.code}")
    answer.expect_equal("the number of classes", len(answer.body["classes"]), 4)


@section.check("A form with both `request` and dotted fields is 400.")
async def form_both(kit: Kit) -> None:
    said = json.dumps({"model": await kit.model()})
    answer = await _form(kit, [_file(), ("request", (None, said)), ("classify.top_k", (None, "3"))])
    answer.expect_equal("the status", answer.status, 400)


@section.check("A raw body takes the dotted names as query parameters.", ways=BOTH)
async def raw_query(kit: Kit) -> None:
    fields = {"model": await kit.model(), "classify": {"top_k": 2}}
    answer = await kit.send("InferUpload", picture("star.png"), "image/png", fields)
    answer.expect(answer.ok, f"a raw body with options answered {answer.status} {answer.code}")
    answer.expect_equal("the number of classes", len(answer.body["classes"]), 2)


@section.check("A raw body takes ?request=<JSON>.")
async def raw_request(kit: Kit) -> None:
    said = {"request": json.dumps({"model": await kit.model(), "classify": {"top_k": 2}})}
    answer = await kit.send("InferUpload", picture("star.png"), "image/png", said)
    answer.expect(answer.ok, f"a raw body with ?request= answered {answer.status} {answer.code}")
    answer.expect_equal("the number of classes", len(answer.body["classes"]), 2)


@section.check("In InferUpload the options count in the first message only, body.data in every one.", ways=(GRPC,))
async def upload_in_pieces(kit: Kit) -> None:
    data = picture("star.bmp") + bytes(100_000)  # what follows a BMP's pixels is not part of it
    answer = await kit.send("InferUpload", data, "image/bmp", {"model": await kit.model()})
    digest = hashlib.sha256(data).hexdigest()
    answer.expect_equal("sha256", answer.need()["image"]["sha256"], digest)


@section.check("`bytes` are base64.")
async def base64_bytes(kit: Kit) -> None:
    said = base64.b64encode(picture("baseline.jpg")).decode()
    answer = await kit.call("Infer", {"model": await kit.model(), "image": {"bytes": said}})
    digest = hashlib.sha256(picture("baseline.jpg")).hexdigest()
    answer.expect_equal("sha256", answer.need()["image"]["sha256"], digest)
