"""Section 1: that every row of the table answers, with its status."""

from __future__ import annotations

from camserve_conformance.answer import Answer
from camserve_conformance.check import BOTH, REST, Section
from camserve_conformance.kit import Kit, image
from camserve_conformance.pictures import picture
from camserve_conformance.rest import NDJSON, SSE

section = Section("surface", "1. Surface")


async def _batch(kit: Kit, accept: str | None) -> Answer:
    message = {"model": await kit.model(), "inputs": [{"id": "a", "image": image("star.png")}]}
    headers = {"accept": accept} if accept else {}
    return await kit.rest.request("POST", "/v1/infer:batch", json=message, headers=headers)


async def _presigned(kit: Kit) -> Answer:
    data = picture("star.png")
    answer = await kit.call("PresignUpload", {"media_type": "image/png", "size_bytes": len(data)})
    link = answer.need()
    return await kit.rest.request(link["method"], link["upload_url"], token=None, headers=link["headers"], content=data)


async def linked_heatmap(kit: Kit) -> str:
    """Returns the link to a heatmap that checks share."""

    async def make() -> str:
        answer = await kit.infer(grad_cam={"enabled": True}, response={"heatmap": "url"})
        return str(answer.need()["heatmap"]["url"])

    return str(await kit.by(REST).once("linked heatmap", make))


@section.check("GET /v1/health answers 200 without a token.", ways=BOTH)
async def health(kit: Kit) -> None:
    (await kit.call("GetHealth", token=None)).expect_status(200)


@section.check("GET /.well-known/jwks.json answers 200 without a token.", ways=BOTH)
async def jwks(kit: Kit) -> None:
    (await kit.call("GetJwks", token=None)).expect_status(200)


@section.check("GET /v1/models answers 200.", ways=BOTH)
async def models(kit: Kit) -> None:
    (await kit.call("ListModels")).expect_status(200)


@section.check("GET /v1/models/{model} answers 200.", ways=BOTH)
async def model(kit: Kit) -> None:
    (await kit.call("GetModel", {"model": await kit.model()})).expect_status(200)


@section.check("GET /v1/models/{model}/labels?from=&to= answers 200.", ways=BOTH)
async def labels(kit: Kit) -> None:
    version = await kit.version()
    named = {"model": version["model"], "from": version["labels_version"], "to": version["labels_version"]}
    (await kit.call("GetLabelMapping", named)).expect_status(200)


@section.check("POST /v1/infer with JSON answers 200.", ways=BOTH)
async def infer(kit: Kit) -> None:
    (await kit.infer(classify={"top_k": 1})).expect_status(200)


@section.check("POST /v1/infer with image/*, over gRPC InferUpload, answers 200.", ways=BOTH)
async def infer_upload(kit: Kit) -> None:
    answer = await kit.send("InferUpload", picture("star.png"), "image/png", {"model": await kit.model()})
    answer.expect_status(200)


@section.check("POST /v1/infer with multipart/form-data answers 200.")
async def infer_form(kit: Kit) -> None:
    answer = await kit.rest.request(
        "POST", "/v1/infer", files={"image": picture("star.png")}, data={"model": await kit.model()}
    )
    answer.expect_status(200)


@section.check("POST /v1/infer:batch answers 200 with NDJSON, the default.")
async def batch(kit: Kit) -> None:
    answer = await _batch(kit, None)
    answer.expect_status(200)
    answer.expect_equal("the content type", answer.headers.get("content-type", "").partition(";")[0], NDJSON)


@section.check("POST /v1/infer:batch answers with server-sent events where Accept says text/event-stream.")
async def batch_sse(kit: Kit) -> None:
    answer = await _batch(kit, SSE)
    answer.need()
    answer.expect_equal("the content type", answer.headers.get("content-type", "").partition(";")[0], SSE)


@section.check("POST /v1/jobs answers 202.", ways=BOTH)
async def create_job(kit: Kit) -> None:
    (await kit.create_job([{"id": "a", "image": image("star.png")}])).expect_status(202)


@section.check("POST /v1/jobs answers with the Location of the job.")
async def create_job_location(kit: Kit) -> None:
    answer = await kit.create_job([{"id": "a", "image": image("star.png")}])
    path = f"/v1/jobs/{answer.need()['job_id']}"
    answer.expect_equal("Location", answer.headers.get("location"), path, kit.options.links + path)


@section.check("GET /v1/jobs answers 200.", ways=BOTH)
async def jobs(kit: Kit) -> None:
    (await kit.call("ListJobs", {"limit": 1})).expect_status(200)


@section.check("GET /v1/jobs/{job_id} answers 200.", ways=BOTH)
async def job(kit: Kit) -> None:
    created = await kit.create_job([{"id": "a", "image": image("star.png")}])
    (await kit.call("GetJob", {"job_id": created.need()["job_id"]})).expect_status(200)


@section.check("GET /v1/jobs/{job_id}/results answers 200.", ways=BOTH)
async def job_results(kit: Kit) -> None:
    created = await kit.create_job([{"id": "a", "image": image("star.png")}])
    (await kit.call("ListJobResults", {"job_id": created.need()["job_id"]})).expect_status(200)


@section.check("GET /v1/jobs/{job_id}/events answers 200 with server-sent events.")
async def job_events(kit: Kit) -> None:
    created = await kit.create_job([{"id": "a", "image": image("star.png")}])
    answer = await kit.call("WatchJob", {"job_id": created.need()["job_id"]})
    answer.expect_status(200)
    answer.expect_equal("the content type", answer.headers.get("content-type", "").partition(";")[0], SSE)


@section.check("DELETE /v1/jobs/{job_id} answers 409 job.already_completed for a job that has ended.", ways=BOTH)
async def cancel_ended_job(kit: Kit) -> None:
    created = await kit.create_job([{"id": "a", "image": image("star.png")}])
    job_id = created.need()["job_id"]
    (await kit.ended(job_id)).need()
    (await kit.call("CancelJob", {"job_id": job_id})).expect_refusal("job.already_completed")


@section.check("POST /v1/uploads with a raw image answers 201.", ways=BOTH)
async def upload(kit: Kit) -> None:
    (await kit.send("UploadImage", picture("star.png"), "image/png")).expect_status(201)


@section.check("POST /v1/uploads answers with the Location of the upload.")
async def upload_location(kit: Kit) -> None:
    answer = await kit.send("UploadImage", picture("star.png"), "image/png")
    path = f"/v1/uploads/{answer.need()['storage_id']}"
    answer.expect_equal("Location", answer.headers.get("location"), path, kit.options.links + path)


@section.check("POST /v1/uploads with a form answers 201.")
async def upload_form(kit: Kit) -> None:
    answer = await kit.rest.request("POST", "/v1/uploads", files={"image": picture("star.png")})
    kit.note("UploadImage", answer)
    answer.expect_status(201)


@section.check("POST /v1/uploads:presign answers 201.", ways=BOTH)
async def presign(kit: Kit) -> None:
    (await kit.call("PresignUpload", {"media_type": "image/png", "size_bytes": 1000})).expect_status(201)


@section.check("GET /v1/uploads/{storage_id} answers 200.", ways=BOTH)
async def get_upload(kit: Kit) -> None:
    (await kit.call("GetUpload", {"storage_id": (await kit.upload())["storage_id"]})).expect_status(200)


@section.check("DELETE /v1/uploads/{storage_id} answers 204.", ways=BOTH)
async def delete_upload(kit: Kit) -> None:
    made = await kit.send("UploadImage", picture("star.png"), "image/png")
    (await kit.call("DeleteUpload", {"storage_id": made.need()["storage_id"]})).expect_status(204)


@section.check("PUT /v1/objects/{object_id}?token=… answers 201, with no other token.")
async def put_object(kit: Kit) -> None:
    (await _presigned(kit)).expect_status(201)


@section.check("GET /v1/objects/{object_id}?token=… answers 200, with no other token.")
async def get_object(kit: Kit) -> None:
    (await kit.rest.request("GET", await linked_heatmap(kit), token=None)).expect_status(200)


@section.check("GET /v1/objects/{object_id} with Range answers 206 with that part.")
async def get_object_range(kit: Kit) -> None:
    link = await linked_heatmap(kit)
    whole = await kit.rest.request("GET", link, token=None)
    whole.need()
    part = await kit.rest.request("GET", link, token=None, headers={"range": "bytes=2-9"})
    part.expect_status(206)
    part.expect_equal("the part", part.content, whole.content[2:10])


@section.check("GET /v1/webhooks answers 200.", ways=BOTH)
async def webhooks(kit: Kit) -> None:
    (await kit.call("ListWebhooks")).expect_status(200)


@section.check("GET /v1/webhooks/callback-secret answers 200.", ways=BOTH)
async def callback_secret(kit: Kit) -> None:
    (await kit.call("GetCallbackSecret")).expect_status(200)


@section.check("GET /v1/limits answers 200.", ways=BOTH)
async def limits(kit: Kit) -> None:
    (await kit.call("GetLimits")).expect_status(200)


@section.check("GET /v1/limits is open to any valid token.", ways=BOTH, needs=("narrow_token",))
async def limits_any_token(kit: Kit) -> None:
    (await kit.call("GetLimits", token=kit.options.narrow_token)).expect_status(200)
