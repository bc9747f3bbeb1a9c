"""Section 4: uploads, presigned ones, and the objects to which links lead."""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, GRPC, Section
from camserve_conformance.checks.surface import linked_heatmap
from camserve_conformance.kit import Kit
from camserve_conformance.outcomes import SkippedError
from camserve_conformance.pictures import HEIGHT, WIDTH, picture
from camserve_conformance.shapes import PRESIGNED, UPLOAD, expect_shape, moment

section = Section("uploads", "4. Messages: uploads")
objects = Section("objects", "4. Messages: objects and signed links")


async def _uploaded(kit: Kit) -> Answer:
    """Returns the answer to an upload, which checks share."""

    async def make() -> Answer:
        answer = await kit.send("UploadImage", picture("star.png"), "image/png")
        answer.need()
        return answer

    answer: Answer = await kit.once("uploaded", make)
    return answer


@section.check("Upload has its members, of their types.", ways=BOTH)
async def shape(kit: Kit) -> None:
    answer = await _uploaded(kit)
    expect_shape(answer, answer.body, UPLOAD)


@section.check("An upload tells its bytes, as an int64.", ways=BOTH)
async def size(kit: Kit) -> None:
    answer = await _uploaded(kit)
    answer.expect_equal("size_bytes", int(answer.body["size_bytes"]), len(picture("star.png")))


@section.check("An upload tells its SHA-256.", ways=BOTH)
async def digest(kit: Kit) -> None:
    answer = await _uploaded(kit)
    answer.expect_equal("sha256", answer.body["sha256"], hashlib.sha256(picture("star.png")).hexdigest())


@section.check("An upload tells its media type, width and height.", ways=BOTH)
async def described(kit: Kit) -> None:
    answer = await _uploaded(kit)
    told = tuple(answer.body[name] for name in ("media_type", "width", "height"))
    answer.expect_equal("the description", told, ("image/png", WIDTH, HEIGHT))


@section.check("An upload expires after it was made.", ways=BOTH)
async def expires(kit: Kit) -> None:
    answer = await _uploaded(kit)
    told = answer.body["created_at"], answer.body["expires_at"]
    answer.expect(moment(told[0]) < moment(told[1]), f"it was made at {told[0]} and expires at {told[1]}")


@section.check("GET answers what the upload answered.", ways=BOTH)
async def got(kit: Kit) -> None:
    made = await _uploaded(kit)
    answer = await kit.call("GetUpload", {"storage_id": made.body["storage_id"]})
    answer.expect_equal("the upload", answer.need(), made.body)


@section.check("After DELETE an upload is upload.not_found.", ways=BOTH)
async def deleted(kit: Kit) -> None:
    storage_id = (await kit.send("UploadImage", picture("star.png"), "image/png")).need()["storage_id"]
    (await kit.call("DeleteUpload", {"storage_id": storage_id})).need()
    answer = await kit.call("GetUpload", {"storage_id": storage_id})
    answer.expect_equal("the error's code", answer.code, "upload.not_found")


@section.check("204 has no body.")
async def no_body(kit: Kit) -> None:
    storage_id = (await kit.send("UploadImage", picture("star.png"), "image/png")).need()["storage_id"]
    answer = await kit.call("DeleteUpload", {"storage_id": storage_id})
    answer.need()
    answer.expect_equal("the body", answer.content, b"")


@section.check("An upload may be larger than one message.", ways=(GRPC,))
async def in_pieces(kit: Kit) -> None:
    data = picture("star.bmp") + bytes(200_000)  # what follows a BMP's pixels is not part of it
    answer = await kit.send("UploadImage", data, "image/bmp")
    answer.expect_equal("size_bytes", int(answer.need()["size_bytes"]), len(data))


@section.check("A native upload of fewer bytes than declared is refused.", ways=(GRPC,))
async def truncated(kit: Kit) -> None:
    data = picture("star.png")
    declared = {"size_bytes": len(data) + 1}
    answer = await kit.native.call("UploadImage", declared, data=data, media_type="image/png")
    kit.note("UploadImage", answer)
    answer.expect(not answer.ok, "an upload was stored that is shorter than declared")


async def _presign(kit: Kit) -> Answer:
    data = picture("star.png")
    digest = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
    declared = {"media_type": "image/png", "size_bytes": len(data), "content_md5": digest}
    return await kit.call("PresignUpload", declared)


async def _put(kit: Kit, link: dict[str, object], data: bytes) -> Answer:
    headers = {str(name): str(value) for name, value in dict(link["headers"]).items()}  # type: ignore[call-overload]
    return await kit.rest.request(
        str(link["method"]), str(link["upload_url"]), token=None, headers=headers, content=data
    )


@section.check("Presign answers storage_id, upload_url, method, headers and expires_at.", ways=BOTH)
async def presigned(kit: Kit) -> None:
    answer = await _presign(kit)
    expect_shape(answer, answer.need(), PRESIGNED)


@section.check("The presigned upload's URL starts with CAMSERVE_PUBLIC_URL.", ways=BOTH)
async def presigned_prefix(kit: Kit) -> None:
    answer = await _presign(kit)
    url = answer.need()["upload_url"]
    if "/v1/objects/" not in url:
        raise SkippedError("links to objects lead to a bucket of their own")
    prefix = kit.options.links + "/v1/objects/"
    answer.expect(url.startswith(prefix), f"the link does not start with {prefix}")


@section.check("A presigned upload is PUT, while its link has not expired.", ways=BOTH)
async def presigned_method(kit: Kit) -> None:
    answer = await _presign(kit)
    answer.expect_equal("method", answer.need()["method"], "PUT")
    answer.expect(moment(answer.body["expires_at"]) > datetime.now(UTC), "the link has expired")


@section.check("An image that was put to a presigned link is found under its storage_id.", ways=BOTH)
async def presigned_works(kit: Kit) -> None:
    link = (await _presign(kit)).need()
    (await _put(kit, link, picture("star.png"))).need()
    answer = await kit.call("GetUpload", {"storage_id": link["storage_id"]})
    answer.expect(answer.ok, f"the upload answered {answer.status} {answer.code}")


@section.check("A presigned link does not take another image than the one declared.")
async def presigned_other(kit: Kit) -> None:
    link = (await _presign(kit)).need()
    answer = await _put(kit, link, picture("star.png")[:-1] + b"\0")
    answer.expect(not answer.ok, f"another image was taken: {answer.status}")


def _altered(url: str) -> str:
    """Returns a link with another token."""
    start, _, token = url.rpartition("token=")
    if not start:
        raise SkippedError("links to objects lead to a bucket of their own")
    return f"{start}token={token[:5]}{'A' if token[5] != 'A' else 'B'}{token[6:]}"


@objects.check("A link whose token was altered is 403 signature.invalid.")
async def altered(kit: Kit) -> None:
    answer = await kit.rest.request("GET", _altered(await linked_heatmap(kit)), token=None)
    answer.expect_refusal("signature.invalid")


@objects.check("A presigned link whose token was altered is 403.")
async def altered_put(kit: Kit) -> None:
    link = (await _presign(kit)).need()
    answer = await _put(kit, {**link, "upload_url": _altered(link["upload_url"])}, picture("star.png"))
    answer.expect_equal("the status", answer.status, 403)


@objects.check("A link's token is not for another object.")
async def other_object(kit: Kit) -> None:
    link = await linked_heatmap(kit)
    other = (await kit.infer(grad_cam={"enabled": True}, response={"heatmap": "url"})).need()["heatmap"]["url"]
    mixed = other.partition("?")[0] + "?" + link.partition("?")[2]
    answer = await kit.rest.request("GET", mixed, token=None)
    answer.expect(not answer.ok, "a link's token opens another object")


@objects.check("A link without its token opens nothing.")
async def no_token(kit: Kit) -> None:
    answer = await kit.rest.request("GET", (await linked_heatmap(kit)).partition("?")[0], token=None)
    answer.expect(not answer.ok, "an object is open to anybody")


@objects.check("An object has the media type of its format.")
async def media_type(kit: Kit) -> None:
    answer = await kit.rest.request("GET", await linked_heatmap(kit), token=None)
    answer.need()
    answer.expect_equal("Content-Type", answer.headers.get("content-type"), "image/png")


@objects.check("A part says which it is in Content-Range.")
async def content_range(kit: Kit) -> None:
    link = await linked_heatmap(kit)
    whole = len((await kit.rest.request("GET", link, token=None)).content)
    answer = await kit.rest.request("GET", link, token=None, headers={"range": "bytes=4-"})
    answer.need()
    told = answer.headers.get("content-range")
    answer.expect_equal("Content-Range", told, f"bytes 4-{whole - 1}/{whole}")


@objects.check("ObjectService.Download streams the same object over gRPC.", ways=(GRPC,))
async def download(kit: Kit) -> None:
    link = await linked_heatmap(kit)
    start, _, token = link.partition("?token=")
    if not token:
        raise SkippedError("links to objects lead to a bucket of their own")
    whole = await kit.rest.request("GET", link, token=None)
    whole.need()
    answer = await kit.native.call("Download", {"object_id": start.rpartition("/")[2], "token": token}, token=None)
    answer.expect(answer.ok, f"Download answered {answer.status} {answer.code}")
    answer.expect_equal("the object", answer.content == whole.content, True)
