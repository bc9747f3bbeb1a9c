"""Section 1: what is refused, what ids look like, and the other ways through the edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

from camserve_conformance.answer import OK
from camserve_conformance.check import BOTH, GRPC, Section
from camserve_conformance.kit import Kit, image
from camserve_conformance.outcomes import SkippedError, ViolationError
from camserve_conformance.pictures import picture
from camserve_conformance.shapes import ID

section = Section("edges", "1. Surface: what is refused, and ids")

_UNKNOWN = "/v1/camserve-conformance"
# Of the right form but for its length.
_SHORT = {"job": "job_short", "img": "img_short", "obj": "obj_short", "wh": "wh_short"}
# An empty message in the framing of grpc-web.
_EMPTY_FRAME = bytes(5)


@section.check("An unknown path answers 404 route.not_found.")
async def unknown_path(kit: Kit) -> None:
    (await kit.rest.request("GET", _UNKNOWN)).expect_refusal("route.not_found")


@section.check("A known path with another verb answers 405 method.not_allowed.")
async def other_verb(kit: Kit) -> None:
    (await kit.rest.request("PUT", "/v1/jobs")).expect_refusal("method.not_allowed")


@section.check("A 405 names the verbs that there are in Allow, and not the one that it refuses.")
async def allow(kit: Kit) -> None:
    answer = await kit.rest.request("PUT", "/v1/jobs")
    verbs = {verb.strip() for verb in answer.headers.get("allow", "").split(",")}
    answer.expect({"GET", "POST"} <= verbs, f"Allow is {answer.headers.get('allow')!r}, without GET or POST")
    answer.expect("PUT" not in verbs, f"Allow is {answer.headers.get('allow')!r}, with the verb that was refused")


@section.check("A wrong request media type answers 415 media.unsupported.")
async def request_type(kit: Kit) -> None:
    answer = await kit.rest.request("POST", "/v1/jobs", headers={"content-type": "text/plain"}, content=b"{}")
    answer.expect_refusal("media.unsupported")


@section.check("Anonymous callers get 401 before they could learn that a path is unknown.")
async def anonymous_unknown_path(kit: Kit) -> None:
    answer = await kit.rest.request("GET", _UNKNOWN, token=None)
    answer.expect_equal("the status", answer.status, 401)


@section.check("Anonymous callers get 401 before 405.")
async def anonymous_other_verb(kit: Kit) -> None:
    answer = await kit.rest.request("PUT", "/v1/jobs", token=None)
    answer.expect_equal("the status", answer.status, 401)


@section.check("Anonymous callers get 401 before 415.")
async def anonymous_request_type(kit: Kit) -> None:
    answer = await kit.rest.request(
        "POST", "/v1/jobs", token=None, headers={"content-type": "text/plain"}, content=b"{}"
    )
    answer.expect_equal("the status", answer.status, 401)


@section.check("A job id that does not match the pattern of ids answers 404.", ways=BOTH)
async def malformed_job_id(kit: Kit) -> None:
    answer = await kit.call("GetJob", {"job_id": _SHORT["job"]})
    answer.expect_equal("the status", answer.status, 404, "NOT_FOUND")


@section.check("A storage id that does not match the pattern of ids answers 404.", ways=BOTH)
async def malformed_storage_id(kit: Kit) -> None:
    answer = await kit.call("GetUpload", {"storage_id": _SHORT["img"]})
    answer.expect_equal("the status", answer.status, 404, "NOT_FOUND")


@section.check("A webhook id that does not match the pattern of ids answers 404.", ways=BOTH)
async def malformed_webhook_id(kit: Kit) -> None:
    answer = await kit.call("GetWebhook", {"webhook_id": _SHORT["wh"]})
    answer.expect_equal("the status", answer.status, 404, "NOT_FOUND")


@section.check("An object id that does not match the pattern of ids answers 404.")
async def malformed_object_id(kit: Kit) -> None:
    answer = await kit.rest.request("GET", f"/v1/objects/{_SHORT['obj']}", params={"token": "x"})
    answer.expect_equal("the status", answer.status, 404)


@section.check("Job ids match ^[a-z]+_[0-9A-Za-z]{16,40}$.", ways=BOTH)
async def job_ids(kit: Kit) -> None:
    answer = await kit.create_job([{"id": "a", "image": image("star.png")}])
    answer.expect(ID.fullmatch(answer.need()["job_id"]), "job_id does not match the pattern of ids")


@section.check("Storage ids match ^[a-z]+_[0-9A-Za-z]{16,40}$.", ways=BOTH)
async def storage_ids(kit: Kit) -> None:
    answer = await kit.send("UploadImage", picture("star.png"), "image/png")
    answer.expect(ID.fullmatch(answer.need()["storage_id"]), "storage_id does not match the pattern of ids")


@section.check("Object ids match ^[a-z]+_[0-9A-Za-z]{16,40}$.")
async def object_ids(kit: Kit) -> None:
    answer = await kit.infer(grad_cam={"enabled": True}, response={"heatmap": "url"})
    path = answer.need()["heatmap"]["url"].partition("?")[0]
    if not path.startswith(kit.options.links + "/v1/objects/"):
        raise SkippedError("links to objects lead to a bucket of their own")
    answer.expect(ID.fullmatch(path.rpartition("/")[2]), "the object id of the link does not match the pattern of ids")


@section.check("A raw REST upload needs Content-Length or Content-MD5, else 411 upload.length_required.")
async def length_required(kit: Kit) -> None:
    answer = await kit.rest.request(
        "POST", "/v1/uploads", headers={"content-type": "image/png"}, content=_in_pieces(picture("star.png"))
    )
    kit.note("UploadImage", answer)
    answer.expect_refusal("upload.length_required")


@section.check("A native upload needs size_bytes, else upload.length_required.", ways=(GRPC,))
async def size_required(kit: Kit) -> None:
    answer = await kit.native.call("UploadImage", {}, data=picture("star.png"), media_type="image/png")
    kit.note("UploadImage", answer)
    answer.expect_refusal("upload.length_required")


@section.check("Multipart commits only after its closing boundary.")
async def closing_boundary(kit: Kit) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
    cut = head + picture("star.png") + b"\r\n--b\r\n"
    answer = await kit.rest.request(
        "POST", "/v1/uploads", headers={"content-type": "multipart/form-data; boundary=b"}, content=cut
    )
    kit.note("UploadImage", answer)
    answer.expect(not answer.ok, f"a form without its closing boundary was stored: {answer.status}")


@section.check("grpc-web works through the edge.")
async def grpc_web(kit: Kit) -> None:
    answer = await kit.rest.request(
        "POST",
        "/camserve.v1.HealthService/GetHealth",
        token=None,
        headers={"content-type": "application/grpc-web+proto", "x-grpc-web": "1"},
        content=_EMPTY_FRAME,
    )
    answer.expect_equal("the status", answer.status, 200)
    answer.expect(b"grpc-status:0" in answer.content.replace(b" ", b""), "the trailer frame does not say grpc-status 0")


@section.check("A preflight of an allowed origin is answered before authentication.", needs=("origin",))
async def preflight(kit: Kit) -> None:
    headers = {
        "origin": kit.options.origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    answer = await kit.rest.request("OPTIONS", "/v1/infer", token=None, headers=headers)
    answer.expect(answer.ok, f"the preflight answered {answer.status}")
    allowed = answer.headers.get("access-control-allow-origin")
    answer.expect_equal("Access-Control-Allow-Origin", allowed, kit.options.origin)


@section.check("Origins that are not on the list are not allowed.")
async def foreign_origin(kit: Kit) -> None:
    answer = await kit.rest.request(
        "GET", "/v1/health", token=None, headers={"origin": "https://camserve-conformance.invalid"}
    )
    answer.expect_equal("Access-Control-Allow-Origin", answer.headers.get("access-control-allow-origin"), None)


@section.check("grpc.health.v1.Health answers without a token on the gRPC port.", ways=(GRPC,), needs=("native_port",))
async def grpc_health(kit: Kit) -> None:
    status, answer = await kit.native.raw("/grpc.health.v1.Health/Check", b"")
    if (status, answer) != (OK, b"\x08\x01"):
        raise ViolationError(f"the health service answered {status} {answer!r}, not SERVING")


@section.check("Server reflection answers without a token on the gRPC port.", ways=(GRPC,), needs=("native_port",))
async def reflection(kit: Kit) -> None:
    listing = b"\x3a\x00"  # ServerReflectionRequest.list_services
    path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    status, answer = await kit.native.raw(path, listing, streams=True)
    if status != OK or b"camserve.v1.InferenceService" not in answer:
        raise ViolationError(f"reflection answered {status}, without camserve.v1.InferenceService")


@section.check("AdminService has no place on the public gRPC port.", ways=(GRPC,))
async def no_admin(kit: Kit) -> None:
    path = "/camserve.v1.AdminService/ListTenants"
    status, _ = await kit.native.raw(path, b"", token=kit.options.token)
    if status not in ("UNIMPLEMENTED", "NOT_FOUND"):
        raise ViolationError(f"AdminService answered {status}")


async def _in_pieces(data: bytes) -> AsyncIterator[bytes]:
    half = len(data) // 2
    yield data[:half]
    yield data[half:]
