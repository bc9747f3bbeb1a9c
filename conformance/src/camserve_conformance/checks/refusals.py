"""Section 6: the codes of the table, each with a request that meets it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, REST, Section
from camserve_conformance.kit import Kit, image
from camserve_conformance.pictures import claimed_png, picture, plain_png

section = Section("codes", "6. Errors: the codes")

_NOWHERE = "camserve-conformance"
_NO_IMAGE = b"this is no image of any kind that anybody knows"
_SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
_PDF = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<<>>\nendobj\n"


def _carried(data: bytes, **declared: str) -> dict[str, str]:
    return {"bytes": base64.b64encode(data).decode(), **declared}


async def _infer(kit: Kit, named: dict[str, Any] | None, **fields: Any) -> Answer:
    source = {} if named is None else {"image": named}
    return await kit.call("Infer", {"model": await kit.model(), **source, **fields})


def _refused(
    code: str, when: str, ask: Callable[[Kit], Awaitable[Answer]], *, ways: tuple[str, ...] = BOTH, name: str = ""
) -> None:
    async def is_refused(kit: Kit) -> None:
        (await ask(kit)).expect_refusal(code)

    section.add(name or code.replace(".", "_"), f"{when} is {code}, with its status and type.", is_refused, ways=ways)


def _refused_image(code: str, when: str, data: bytes, *, name: str = "") -> None:
    async def ask(kit: Kit) -> Answer:
        return await _infer(kit, _carried(data))

    _refused(code, when, ask, name=name)


def _refused_option(code: str, when: str, *, name: str = "", **fields: Any) -> None:
    async def ask(kit: Kit) -> Answer:
        return await _infer(kit, image("star.png"), **fields)

    _refused(code, when, ask, name=name)


_refused_option("param.invalid", "A colour map that there is not", grad_cam={"enabled": True, "colormap": _NOWHERE})
_refused_option("param.out_of_range", "top_k above 1000", classify={"top_k": 1001})
_refused_option("param.out_of_range", "top_k below 1", classify={"top_k": 0}, name="top_k_least")
_refused_option("param.out_of_range", "prob_threshold above 1", classify={"prob_threshold": 1.5}, name="threshold_most")
_refused_option(
    "param.out_of_range",
    "A heatmap's size beyond the cap of 4096",
    grad_cam={"enabled": True, "resolution": {"width": 4097, "height": 10}},
    name="resolution_most",
)
_refused_option(
    "param.out_of_range", "alpha above 1", grad_cam={"enabled": True, "overlay": True, "alpha": 1.1}, name="alpha_most"
)
_refused_option("param.layer_not_found", "A layer that the model lacks", grad_cam={"enabled": True, "layer": _NOWHERE})
_refused_option("model.version_not_found", "A version that there is not", model_version=_NOWHERE)


async def _no_source(kit: Kit) -> Answer:
    return await _infer(kit, None)


async def _two_sources(kit: Kit) -> Answer:
    return await _infer(kit, {**image("star.png"), "storage_id": "img_" + "0" * 20})


_refused("image.source_required", "No source of an image", _no_source)


@section.check("Several sources of an image are 400, whoever notices.")
async def several_sources(kit: Kit) -> None:
    (await _two_sources(kit)).expect_refusal("image.source_required", "json.malformed")


_refused_image("image.invalid_format", "Bytes without a known signature", _NO_IMAGE)
_refused_image("image.decoding_failed", "A truncated image", picture("truncated.png"))
_refused_image("image.animated_not_supported", "An animated PNG", picture("animated.png"))
_refused_image(
    "image.animated_not_supported", "A TIFF of several pages", picture("pages.tif"), name="tiff_of_several_pages"
)
_refused_image("media.unsupported", "A GIF", picture("star.gif"))
_refused_image("media.unsupported", "A WEBP", picture("star.webp"), name="webp")
_refused_image("media.unsupported", "An SVG", _SVG, name="svg")
_refused_image("media.unsupported", "A PDF", _PDF, name="pdf")
_refused_image("image.aspect_ratio", "An image of which one side is more than 200 times the other", plain_png(2020, 10))


async def _too_large(kit: Kit) -> Answer:
    side = int((await kit.call("GetLimits")).need()["max_side_px"]) + 1
    return await _infer(kit, _carried(claimed_png(side, side // 2)))


_refused("image.too_large", "An image with a side beyond max_side_px", _too_large)


async def _bad_digest(kit: Kit) -> Answer:
    return await _infer(kit, {**image("star.png"), "content_md5": "***"})


async def _other_digest(kit: Kit) -> Answer:
    digest = hashlib.md5(b"another image", usedforsecurity=False).digest()
    return await _infer(kit, {**image("star.png"), "content_md5": base64.b64encode(digest).decode()})


async def _mismatch(kit: Kit) -> Answer:
    return await _infer(kit, {**image("star.png"), "media_type": "image/jpeg"})


async def _mismatched_upload(kit: Kit) -> Answer:
    return await kit.send("UploadImage", picture("star.png"), "image/jpeg")


async def _mismatched_name(kit: Kit) -> Answer:
    file = ("photo.jpg", picture("star.png"), "application/octet-stream")
    answer = await kit.rest.request("POST", "/v1/uploads", files={"image": file})
    kit.note("UploadImage", answer)
    return answer


_refused("image.base64_invalid", "A digest that is no base64", _bad_digest)
_refused("image.md5_mismatch", "Another digest than the image's", _other_digest)
_refused("media.mismatch", "A declared type that the bytes contradict", _mismatch)
_refused("media.mismatch", "An upload of another type than declared", _mismatched_upload, name="mismatch_of_upload")
_refused(
    "media.mismatch", "A file name that the bytes contradict", _mismatched_name, ways=(REST,), name="mismatch_of_name"
)


def _refused_url(code: str, when: str, url: str, name: str = "") -> None:
    async def ask(kit: Kit) -> Answer:
        return await _infer(kit, {"url": url})

    _refused(code, when, ask, name=name)


_refused_url("image.url_not_allowed", "An image at http", "http://example.com/image.png")
_refused_url("image.url_not_allowed", "An image at a private address", "https://10.255.255.1/a.png", "private_address")
_refused_url("image.url_not_allowed", "An image at a link-local address", "https://169.254.169.254/a.png", "link_local")
_refused_url("image.fetch_failed", "An image at a name that there is not", f"https://{_NOWHERE}.invalid/a.png")


def _refused_webhook(when: str, url: str, name: str = "") -> None:
    async def ask(kit: Kit) -> Answer:
        return await kit.call("CreateWebhook", {"url": url, "events": ["job.expired"]})

    _refused("webhook.url_not_allowed", when, ask, name=name)


_refused_webhook("A webhook at http", "http://example.com/events")
_refused_webhook("A webhook at a private address", "https://10.255.255.1/events", "private_webhook")


async def _callback_not_allowed(kit: Kit) -> Answer:
    inputs = [{"id": "a", "image": image("star.png")}]
    return await kit.create_job(inputs, callback_url="http://example.com/events")


_refused("webhook.url_not_allowed", "A callback_url at http", _callback_not_allowed, name="callback_not_allowed")


async def _empty(kit: Kit) -> Answer:
    return await kit.create_job([])


async def _twins(kit: Kit) -> Answer:
    return await kit.create_job([{"id": "a", "image": image("star.png")}] * 2)


async def _too_many(kit: Kit) -> Answer:
    most = (await kit.call("GetLimits")).need()["max_batch_size"]
    named = {"storage_id": (await kit.upload())["storage_id"]}
    return await kit.create_job([{"id": f"{place}", "image": named} for place in range(most + 1)])


async def _empty_batch(kit: Kit) -> Answer:
    return await kit.call("InferBatch", {"model": await kit.model(), "inputs": []})


_refused("batch.empty", "A job without inputs", _empty)
_refused("batch.empty", "A batch without inputs", _empty_batch, name="empty_batch")
_refused("batch.duplicate_id", "A job with one id twice", _twins)
_refused("batch.too_large", "A job of more inputs than max_batch_size", _too_many)


async def _no_cursor(kit: Kit) -> Answer:
    return await kit.call("ListJobs", {"cursor": _NOWHERE})


async def _no_model(kit: Kit) -> Answer:
    return await kit.call("Infer", {"model": _NOWHERE, "image": image("star.png")})


async def _no_model_told(kit: Kit) -> Answer:
    return await kit.call("GetModel", {"model": _NOWHERE})


async def _no_job(kit: Kit) -> Answer:
    return await kit.call("GetJob", {"job_id": "job_" + "2" * 20})


async def _no_upload(kit: Kit) -> Answer:
    return await kit.call("GetUpload", {"storage_id": "img_" + "2" * 20})


async def _no_image(kit: Kit) -> Answer:
    return await _infer(kit, {"storage_id": "img_" + "2" * 20})


async def _no_webhook(kit: Kit) -> Answer:
    return await kit.call("GetWebhook", {"webhook_id": "wh_" + "2" * 20})


_refused("cursor.invalid", "A cursor that is none", _no_cursor)
_refused("model.not_found", "A model that there is not", _no_model)
_refused("model.not_found", "A model that is asked about and there is not", _no_model_told, name="model_not_told")
_refused("job.not_found", "A job that never was", _no_job)
_refused("upload.not_found", "An upload that never was", _no_upload)
_refused("upload.not_found", "An image by an upload that never was", _no_image, name="image_not_uploaded")
_refused("webhook.not_found", "A webhook that never was", _no_webhook)


async def _above_limit(kit: Kit) -> Answer:
    most = int((await kit.call("GetLimits")).need()["max_image_bytes"])
    return await kit.call("PresignUpload", {"media_type": "image/png", "size_bytes": most + 1})


_refused("upload.too_large", "An upload beyond max_image_bytes", _above_limit)


@section.check("upload.too_large tells limit_mb and actual_mb.", ways=BOTH)
async def limit_details(kit: Kit) -> None:
    answer = await _above_limit(kit)
    details = answer.error.get("details", {})
    answer.expect({"limit_mb", "actual_mb"} <= details.keys(), f"details are {details}")


async def _large_body(kit: Kit) -> Answer:
    most = int((await kit.call("GetLimits")).need()["max_json_bytes"])
    return await kit.rest.announce("POST", "/v1/jobs", most + 1, "application/json")


_refused("body.too_large", "A JSON body that is announced to be beyond max_json_bytes", _large_body, ways=(REST,))
