"""Images that are stored once: raw, multipart, presigned; and what uses them."""

from __future__ import annotations

import base64
import hashlib
import json
import select
import socket
import time
from contextlib import ExitStack, suppress
from datetime import datetime
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import pytest
from tests.e2e.test_jobs import finished
from tests.images import directory_last, encoded, star_png

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def api(stack):
    headers = stack.headers(tenant=f"uploads-{uuid4()}")
    with httpx.Client(base_url=stack.edge_url, headers=headers, timeout=60) as client:
        yield client


def md5_of(data):
    return base64.b64encode(hashlib.md5(data).digest()).decode()


def upload(api, data=None, media_type="image/png", **headers):
    return api.post(
        "/v1/uploads", content=star_png() if data is None else data, headers={"content-type": media_type, **headers}
    )


def presign(api, data=None, **changes):
    body = {"media_type": "image/png", "size_bytes": str(len(data or star_png()))} | changes
    return api.post("/v1/uploads:presign", json=body)


def put(link, data=None, **headers):
    return httpx.put(link["upload_url"], content=data or star_png(), headers={**link["headers"], **headers})


def error_code(answer):
    return answer.status_code, answer.json()["error"]["code"]


def infer(api, storage_id, **changes):
    return api.post("/v1/infer", json={"model": "shapes", "image": {"storage_id": storage_id}} | changes)


def stored(stack):
    """Returns the names of all objects; what other tests left may go meanwhile."""
    return {path.name for path in (stack.data_dir / "objects").rglob("*") if path.is_file()}


def test_a_raw_upload_is_stored_described_used_and_removed(api):
    answer = upload(api, **{"content-md5": md5_of(star_png())})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["location"] == f"{str(api.base_url).rstrip('/')}/v1/uploads/{made['storage_id']}"
    assert made | {"storage_id": "", "created_at": "", "expires_at": ""} == {
        "storage_id": "",
        "size_bytes": str(len(star_png())),
        "media_type": "image/png",
        "width": 160,
        "height": 160,
        "sha256": hashlib.sha256(star_png()).hexdigest(),
        "created_at": "",
        "expires_at": "",
    }
    assert api.get(f"/v1/uploads/{made['storage_id']}").json() == made
    used = infer(api, made["storage_id"])
    assert used.json()["classes"][0]["id"] == "star"
    assert used.json()["image"]["sha256"] == made["sha256"]
    removed = api.delete(f"/v1/uploads/{made['storage_id']}")
    assert (removed.status_code, removed.content) == (204, b"")
    for after in (
        api.get(f"/v1/uploads/{made['storage_id']}"),
        api.delete(f"/v1/uploads/{made['storage_id']}"),
        infer(api, made["storage_id"]),
    ):
        assert error_code(after) == (404, "upload.not_found")


def test_a_large_png_is_stored_and_described(api):
    data = encoded(2000, 1900, "PNG")
    made = upload(api, data).json()
    assert (made["width"], made["height"], made["sha256"]) == (2000, 1900, hashlib.sha256(data).hexdigest())


def test_a_multipart_upload_is_the_same(api):
    answer = api.post("/v1/uploads", files={"image": ("star.png", star_png(), "image/png")})
    assert answer.status_code == 201, answer.text
    assert answer.json()["sha256"] == hashlib.sha256(star_png()).hexdigest()
    options = api.post("/v1/uploads", files={"image": ("star.png", star_png())}, data={"model": "shapes"})
    assert error_code(options) == (400, "param.invalid")


@pytest.mark.parametrize(
    ("data", "media_type", "code"),
    [
        (b"", "image/png", (400, "image.source_required")),
        (b"no image", "image/png", (400, "image.invalid_format")),
        (star_png(), "image/jpeg", (415, "media.mismatch")),
        (b"GIF89a" + bytes(100), "application/octet-stream", (415, "media.unsupported")),
        (star_png()[:40], "image/png", (422, "image.decoding_failed")),
        (encoded(20_000, 2, "PNG"), "image/png", (400, "image.too_large")),
    ],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(api, stack, data, media_type, code):
    before = stored(stack)
    assert error_code(upload(api, data, media_type)) == code
    assert stored(stack) <= before


def test_a_wrong_digest_or_name_is_refused(api):
    assert error_code(upload(api, **{"content-md5": md5_of(b"other")})) == (400, "image.md5_mismatch")
    named = api.post("/v1/uploads", files={"image": ("star.jpg", star_png())})
    assert error_code(named) == (415, "media.mismatch")


def stray(md5):
    """The same MD5 with a bit in its last character that means nothing."""
    return md5[:21] + chr(ord(md5[21]) + 1) + "=="


@pytest.mark.parametrize("spelling", [stray, lambda md5: md5[:22], lambda md5: md5 + "="])
def test_a_digest_has_one_spelling(api, spelling):
    odd = spelling(md5_of(star_png()))
    refusals = [
        upload(api, **{"content-md5": odd}),
        api.post("/v1/uploads", params={"content_md5": odd}, content=star_png(), headers={"content-type": "image/png"}),
        form(api, part_md5=odd),
        form(api, header_md5=odd),
        presign(api, content_md5=odd),
        api.post("/v1/uploads:resumable", params={"size_bytes": 1}, headers={"content-md5": odd}),
    ]
    assert {error_code(answer) for answer in refusals} == {(400, "image.base64_invalid")}


def form_body(part_md5=None):
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="s.png"\r\n'
    told = f"Content-MD5: {part_md5}\r\n".encode() if part_md5 else b""
    return head + told + b"\r\n" + star_png() + b"\r\n--b--\r\n"


def form(api, path="/v1/uploads", *, part_md5=None, header_md5=None, **params):
    headers = {"content-type": "multipart/form-data; boundary=b"} | ({"content-md5": header_md5} if header_md5 else {})
    return api.post(path, params=params, content=form_body(part_md5), headers=headers)


@pytest.mark.parametrize("path", ["/v1/uploads", "/v1/infer"])
def test_all_that_is_declared_of_a_form_must_hold(api, stack, path):
    before = stored(stack)
    model = {"model": "shapes"} if path == "/v1/infer" else {}
    right, wrong, size_bytes = md5_of(star_png()), md5_of(b"other"), len(star_png())
    for declared, code in [
        ({"part_md5": right, "header_md5": wrong}, "image.md5_mismatch"),
        ({"part_md5": wrong, "header_md5": right}, "image.md5_mismatch"),
        ({"part_md5": wrong, "header_md5": md5_of(form_body(wrong))}, "image.md5_mismatch"),
        ({"part_md5": right, "content_md5": wrong}, "image.md5_mismatch"),
        ({"header_md5": right, "content_md5": wrong}, "image.md5_mismatch"),
        ({"content_md5": wrong}, "image.md5_mismatch"),
        ({"size_bytes": 3}, "param.invalid"),
        ({"size_bytes": size_bytes + 1}, "param.invalid"),
        ({"size_bytes": 10**12}, "upload.too_large"),
    ]:
        answer = form(api, path, **declared, **model)
        assert (answer.is_client_error, answer.json()["error"]["code"]) == (True, code), declared
    assert stored(stack) <= before
    whole = md5_of(form_body(right))
    for header_md5 in (right, whole):
        answer = form(
            api, path, part_md5=right, header_md5=header_md5, content_md5=right, size_bytes=size_bytes, **model
        )
        assert answer.is_success, answer.text


def test_two_digests_of_an_image_are_one_too_many(api):
    right, wrong = md5_of(star_png()), md5_of(b"other")
    for header, parameter in ((right, wrong), (wrong, right)):
        declared = {
            "params": {"content_md5": parameter},
            "headers": {"content-type": "image/png", "content-md5": header},
        }
        assert error_code(api.post("/v1/uploads", content=star_png(), **declared)) == (400, "image.md5_mismatch")
        declared["params"] |= {"size_bytes": len(star_png())}
        assert error_code(api.post("/v1/uploads:resumable", **declared)) == (400, "image.md5_mismatch")
    declared = {"params": {"content_md5": right}, "headers": {"content-type": "image/png", "content-md5": right}}
    assert api.post("/v1/uploads", content=star_png(), **declared).status_code == 201


def test_a_wrong_type_is_refused_before_the_rest_has_come(api, stack):
    address = urlsplit(stack.edge_url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = (
            "POST /v1/uploads HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 90000000\r\n"
            f"authorization: {api.headers['authorization']}\r\n\r\n"
        )
        connection.sendall(head.encode() + b"%PDF-1.7" + bytes(20_000))
        answer = connection.recv(65536)
    assert answer.startswith(b"HTTP/1.1 415 ")


def test_an_upload_that_breaks_off_leaves_nothing(api, stack):
    drafts = stack.data_dir / "objects" / "drafts"
    address = urlsplit(stack.edge_url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = (
            "POST /v1/uploads HTTP/1.1\r\nhost: x\r\ncontent-type: image/png\r\ncontent-length: 10000000\r\n"
            f"authorization: {api.headers['authorization']}\r\n\r\n"
        )
        connection.sendall(head.encode() + star_png() + bytes(2_000_000))
        while not any(drafts.iterdir()):
            time.sleep(0.01)
    while any(drafts.iterdir()):
        time.sleep(0.01)


def test_a_batch_and_a_job_use_an_upload(api):
    storage_id = upload(api).json()["storage_id"]
    inputs = [
        {"id": "stored", "image": {"storage_id": storage_id}},
        {"id": "unknown", "image": {"storage_id": "img_0000000000000000000000"}},
    ]
    batch = api.post("/v1/infer:batch", json={"model": "shapes", "inputs": inputs})
    events = [json.loads(line) for line in batch.text.splitlines()]
    items = {event["item"]["id"]: event["item"] for event in events if event["event"] == "item"}
    assert items["stored"]["result"]["classes"][0]["id"] == "star"
    assert items["unknown"]["error"]["code"] == "upload.not_found"
    refused = api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs})
    assert error_code(refused) == (404, "upload.not_found")
    accepted = api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs[:1]})
    # A job keeps what it was given.
    assert api.delete(f"/v1/uploads/{storage_id}").status_code == 204
    assert finished(api, accepted.json()["job_id"])["status"] == "succeeded"


def test_a_job_stores_an_upload_once_however_many_inputs_name_it(api, stack):
    storage_id = upload(api).json()["storage_id"]
    before = stored(stack)
    inputs = [{"id": str(number), "image": {"storage_id": storage_id}} for number in range(20)]
    accepted = api.post("/v1/jobs", json={"model": "shapes", "inputs": inputs})
    assert api.delete(f"/v1/uploads/{storage_id}").status_code == 204
    job = finished(api, accepted.json()["job_id"])
    assert (job["status"], job["result_summary"]["succeeded"]) == ("succeeded", 20)
    assert len(stored(stack) - before) == 1


def test_a_batch_of_images_that_do_not_fit_together_waits_for_its_own(make_stack):
    small = make_stack(upload_memory_mb=128, replica_count=1, max_image_bytes=100_000_000)
    image = encoded(3600, 3600, "BMP")
    with httpx.Client(base_url=small.edge_url, headers=small.headers(), timeout=60) as api:
        storage_id = upload(api, image, "image/bmp").json()["storage_id"]
        inputs = [{"id": str(number), "image": {"storage_id": storage_id}} for number in range(12)]
        batch = api.post("/v1/infer:batch", json={"model": "shapes", "inputs": inputs})
    last = json.loads(batch.text.splitlines()[-1])
    assert (last["event"], last["summary"]["succeeded"]) == ("done", 12), batch.text


def test_a_tenant_whose_uploads_stand_still_leaves_memory_to_others(make_stack):
    small = make_stack(upload_memory_mb=128, replica_count=1, max_image_bytes=60_000_000)
    image = encoded(1000, 1000, "BMP")
    head = (
        f"POST /v1/infer?model=shapes HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {small.token(tenant='hostile')}"
        f"\r\ncontent-type: image/bmp\r\ncontent-length: 50000000\r\n\r\n"
    ).encode()
    body = image + bytes(44_600_000 - len(image))
    address = urlsplit(small.edge_url)
    with ExitStack() as opened:
        place = (address.hostname, address.port)
        connections = [opened.enter_context(socket.create_connection(place, timeout=20)) for _ in range(3)]
        for connection in connections:
            # What is refused is answered, and then not read any more.
            with suppress(ConnectionError):
                connection.sendall(head + body)
            # The next one begins when this one's bytes have arrived.
            answered, _, _ = select.select(connections, [], [], 20 if connection is connections[-1] else 3)
        # Which of them it is depends on whose bytes came first; on a slow machine two of them meet.
        assert 1 <= len(answered) <= 2
        assert all(b" 503 " in connection.recv(64) for connection in answered)
        answer = httpx.post(
            f"{small.edge_url}/v1/infer",
            params={"model": "shapes"},
            content=image,
            headers=small.headers() | {"content-type": "image/bmp"},
            timeout=60,
        )
    assert answer.status_code == 200, answer.text


def test_a_link_takes_its_image_once(api):
    answer = presign(api, content_md5=md5_of(star_png()))
    assert answer.status_code == 201, answer.text
    link = answer.json()
    assert set(link) == {"storage_id", "upload_url", "method", "headers", "expires_at"}
    assert (link["method"], link["headers"]) == (
        "PUT",
        {"Content-Type": "image/png", "Content-MD5": md5_of(star_png())},
    )
    assert error_code(infer(api, link["storage_id"])) == (404, "upload.not_found")
    stored = put(link)
    assert stored.status_code == 201, stored.text
    assert stored.json()["storage_id"] == link["storage_id"]
    assert infer(api, link["storage_id"]).json()["classes"][0]["id"] == "star"
    assert error_code(put(link)) == (409, "resource.version_conflict")


def test_a_link_stays_used_when_its_image_is_gone(api):
    key = {"idempotency-key": f"key-{uuid4()}"}
    body = {"media_type": "image/png", "size_bytes": str(len(star_png()))}
    link = api.post("/v1/uploads:presign", json=body, headers=key).json()
    assert put(link).status_code == 201
    assert api.delete(f"/v1/uploads/{link['storage_id']}").status_code == 204
    signed_again = api.post("/v1/uploads:presign", json=body, headers=key).json()
    for used in (link, signed_again):
        assert error_code(put(used)) == (409, "resource.version_conflict")
    assert error_code(put(link, **{"idempotency-key": "other"})) == (409, "resource.version_conflict")
    assert error_code(api.get(f"/v1/uploads/{link['storage_id']}")) == (404, "upload.not_found")


def test_a_link_under_a_key_gives_its_first_answer_again(api, stack):
    link, key = presign(api).json(), {"idempotency-key": f"key-{uuid4()}"}
    assert put(link, star_png()[:-1], **key).status_code == 400
    first = put(link, **key)
    assert (first.status_code, first.headers["idempotency-replayed"]) == (201, "false")
    files = stored(stack)
    again = put(link, **key)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert (again.json(), again.headers["location"]) == (first.json(), first.headers["location"])
    assert stored(stack) <= files
    assert error_code(put(link, star_png()[:-1] + b"\0", **key)) == (422, "idempotency.key_reused")
    assert error_code(put(presign(api).json(), **key)) == (422, "idempotency.key_reused")
    assert error_code(put(link)) == (409, "resource.version_conflict")
    assert error_code(put(link, **{"idempotency-key": "other"})) == (409, "resource.version_conflict")
    assert error_code(put(link, **{"idempotency-key": "a b"})) == (400, "idempotency.key_invalid")


def test_keys_of_a_link_belong_to_whoever_signed_it(api, stack):
    key = {"idempotency-key": f"key-{uuid4()}"}
    assert put(presign(api).json(), **key).status_code == 201
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant="stranger"), timeout=60) as stranger:
        answer = put(presign(stranger).json(), **key)
    assert (answer.status_code, answer.headers["idempotency-replayed"]) == (201, "false")


def test_what_a_link_is_not_for_is_refused_and_the_link_stays(api):
    jpeg = encoded(40, 40, "JPEG")
    link = presign(api, content_md5=md5_of(star_png())).json()
    other = star_png()[:-1] + b"\0"
    refusals = [
        put(link, star_png() + b"\0"),
        put(link, iter([star_png() + b"\0"])),
        put(link, star_png()[:-1]),
        put(link, jpeg, **{"content-type": "image/jpeg"}),
        put(link, other, **{"content-md5": md5_of(other)}),
        put(link, other),
        httpx.put(link["upload_url"].replace("token=", "token=x"), content=star_png(), headers=link["headers"]),
        httpx.put(link["upload_url"].partition("?")[0], content=star_png(), headers=link["headers"]),
    ]
    assert [answer.status_code for answer in refusals] == [400, 400, 400, 415, 400, 400, 403, 403]
    assert put(link).status_code == 201


def test_a_link_ends(make_stack):
    running = make_stack(url_ttl_s=1, torch_threads=1)
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
        link = presign(api).json()
        while (answer := put(link, star_png()[:-1])).status_code == 400:
            time.sleep(0.1)
        assert error_code(answer) == (403, "signature.expired")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"media_type": "image/gif"}, (400, "param.invalid")),
        ({"size_bytes": "0"}, (400, "param.out_of_range")),
        ({"size_bytes": "100000001"}, (413, "upload.too_large")),
        ({"content_md5": "x"}, (400, "image.base64_invalid")),
    ],
)
def test_a_link_for_what_is_no_image_is_refused(api, changes, code):
    assert error_code(presign(api, **changes)) == code


def test_another_tenant_sees_none_of_it(api, stack):
    storage_id = upload(api).json()["storage_id"]
    with httpx.Client(base_url=stack.edge_url, headers=stack.headers(tenant="stranger"), timeout=60) as stranger:
        for answer in (
            stranger.get(f"/v1/uploads/{storage_id}"),
            stranger.delete(f"/v1/uploads/{storage_id}"),
            infer(stranger, storage_id),
        ):
            assert error_code(answer) == (404, "upload.not_found")
    assert api.get(f"/v1/uploads/{storage_id}").status_code == 200


def test_under_a_key_an_image_is_stored_once(api, stack):
    headers = {"idempotency-key": f"key-{uuid4()}"}
    first = upload(api, **headers)
    files = stored(stack)
    second = upload(api, **headers)
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert second.headers["idempotency-replayed"] == "true"
    assert stored(stack) <= files
    assert error_code(upload(api, star_png() + b"\0", **headers)) == (422, "idempotency.key_reused")
    link_headers = {"idempotency-key": f"key-{uuid4()}"}
    body = {"media_type": "image/png", "size_bytes": str(len(star_png()))}
    links = [api.post("/v1/uploads:presign", json=body, headers=link_headers).json() for _ in range(2)]
    assert links[0]["storage_id"] == links[1]["storage_id"]
    assert put(links[1]).status_code == 201


def test_a_tiff_whose_directory_is_at_the_end_tells_its_size(api):
    data = directory_last(encoded(2000, 1800, "TIFF"))
    assert len(data) > 10_000_000
    made = upload(api, data, "image/tiff").json()
    assert (made["width"], made["height"]) == (2000, 1800)


def test_an_image_that_came_slowly_says_when_it_goes(api):
    data = star_png()

    def slow():
        yield data[:64]
        time.sleep(2)
        yield data[64:]

    made = upload(api, slow(), **{"content-length": str(len(data))}).json()
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    # The object goes so long after its first byte came, and not after its last.
    assert (expires - created).total_seconds() < 72 * 3600 - 1


def test_a_tenant_may_have_a_retention_of_its_own(make_stack):
    running = make_stack(tenant_retention_hours='{"brief": 2}', upload_retention_hours=5)
    for tenant, hours in (("brief", 2), ("other", 5)):
        with httpx.Client(base_url=running.edge_url, headers=running.headers(tenant=tenant), timeout=60) as api:
            made = upload(api).json()
            created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
            assert (expires - created).total_seconds() == pytest.approx(hours * 3600, abs=1)
