"""Uploads that come piece by piece: the tus protocol over REST, by its public client and by hand, and native gRPC."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import os
import queue
import random
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit
from uuid import uuid4

import grpc
import httpx
import psutil
import pytest
from tests.e2e.test_jobs import replica_of, valkey_of
from tests.e2e.test_uploads import error_code, infer, md5_of, stored
from tests.faults.scanner import scanner
from tests.images import encoded, star_png
from tusclient.client import TusClient

from camserve.v1 import uploads_pb2 as pb
from camserve.v1 import uploads_pb2_grpc

pytestmark = pytest.mark.timeout(180)

TUS = {"tus-resumable": "1.0.0"}
PATCH = TUS | {"content-type": "application/offset+octet-stream"}


@pytest.fixture
def api(stack):
    headers = stack.headers(tenant=f"resumable-{uuid4()}")
    with httpx.Client(base_url=stack.edge_url, headers=headers, timeout=60) as client:
        yield client


def noise_png(side_px=1500):
    """An image of some megabytes that no encoder makes smaller."""
    return encoded(side_px, side_px, "PNG")


def told(**values):
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in values.items())


def start(api, data=None, **headers):
    length = len(star_png() if data is None else data)
    return api.post("/v1/uploads:resumable", headers=TUS | {"upload-length": str(length)} | headers)


def patch(api, url, data, offset):
    return api.patch(url, content=data, headers=PATCH | {"upload-offset": str(offset)})


def offset_of(api, url):
    answer = api.head(url, headers=TUS)
    assert answer.status_code == 200, answer.headers
    assert answer.headers["cache-control"] == "no-store"
    return int(answer.headers["upload-offset"])


def break_off(api, url, data, offset, *, after_s=0.0):
    """Declares all the rest, sends `data` of it and hangs up."""
    with paused(api, url, data, offset):
        time.sleep(after_s)


def wait_for(api, url):
    """Waits until a service that stopped tells of an upload again."""
    while api.head(url, headers=TUS).status_code != 200:
        time.sleep(0.05)


@contextmanager
def paused(api, url, data, offset=0, *, rest=False):
    """Sends so much of an upload and stands still; `rest` says that it is all that was declared."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
        head = (
            f"PATCH {address.path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/offset+octet-stream\r\n"
            f"content-length: {len(data) if rest else 90000000}\r\ntus-resumable: 1.0.0\r\nupload-offset: {offset}\r\n"
            f"authorization: {api.headers['authorization']}\r\n\r\n"
        )
        connection.sendall(head.encode() + data)
        yield


def test_an_image_comes_in_pieces_and_is_used(api, stack):
    before = stored(stack)
    answer = start(api, **{"upload-metadata": told(filetype="image/png", filename="star.png", mood="good")})
    assert (answer.status_code, answer.headers["tus-resumable"]) == (201, "1.0.0")
    url, storage_id = answer.headers["location"], answer.json()["storage_id"]
    assert url == f"{str(api.base_url).rstrip('/')}/v1/uploads/{storage_id}"
    assert error_code(api.get(url)) == (404, "upload.not_found")
    first = patch(api, url, star_png()[:100], 0)
    assert (first.status_code, first.content, first.headers["upload-offset"]) == (204, b"", "100")
    asked = api.head(url, headers=TUS)
    assert (asked.headers["upload-offset"], asked.headers["upload-length"]) == ("100", str(len(star_png())))
    assert asked.headers["upload-metadata"] == told(filetype="image/png", filename="star.png", mood="good")
    assert asked.headers["upload-expires"].endswith("GMT")
    last = patch(api, url, star_png()[100:], 100)
    assert (last.status_code, last.headers["upload-offset"]) == (204, str(len(star_png())))
    assert api.get(url).json()["sha256"] == hashlib.sha256(star_png()).hexdigest()
    assert offset_of(api, url) == len(star_png())
    assert infer(api, storage_id).json()["classes"][0]["id"] == "star"
    # The image itself is all that is left of it.
    assert len(stored(stack) - before) == 1
    assert api.delete(url, headers=TUS).status_code == 204
    assert error_code(api.get(url)) == (404, "upload.not_found")


def test_the_public_client_of_the_protocol_works(api, stack):
    data = noise_png()
    client = TusClient(
        f"{stack.edge_url}/v1/uploads:resumable", headers={"authorization": api.headers["authorization"]}
    )
    uploader = client.uploader(
        file_stream=io.BytesIO(data), chunk_size=700_000, metadata={"filetype": "image/png", "filename": "a.png"}
    )
    uploader.upload(stop_at=1_400_000)
    again = client.uploader(file_stream=io.BytesIO(data), chunk_size=700_000, url=uploader.url)
    assert again.offset == 1_400_000
    again.upload()
    assert api.get(uploader.url).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_an_upload_that_breaks_off_a_hundred_times_ends_identical(api, stack):
    data = noise_png()
    url = start(api, data, **{"content-md5": md5_of(data)}).headers["location"]
    cuts = sorted(random.Random(20261126).sample(range(1, len(data)), 100))
    offset = 0
    for cut in cuts:
        break_off(api, url, data[offset:cut], offset)
        # How much of the last piece came through the edge before it saw the end is not ours to say.
        offset = offset_of(api, url)
        assert offset <= cut
    while offset < len(data):
        answer = patch(api, url, data[offset:], offset)
        assert answer.status_code in (204, 409), answer.text
        offset = offset_of(api, url)
    assert api.get(url).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_what_came_before_a_break_is_kept(api):
    data = noise_png(400)
    url = start(api, data).headers["location"]
    offset, tries = 0, 0
    while offset < 50_000:
        # What is still on its way through the edge when the connection ends is lost.
        break_off(api, url, data[offset:50_000], offset, after_s=0.1 * tries)
        offset, tries = offset_of(api, url), tries + 1


def test_a_killed_server_loses_nothing_that_was_acknowledged(make_stack):
    running = make_stack(replica_count=1)
    data = noise_png()
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
        url = start(api, data).headers["location"]
        assert patch(api, url, data[:2_000_000], 0).status_code == 204
        break_off(api, url, data[2_000_000:2_500_000], 2_000_000)
        os.kill(replica_of(running), signal.SIGKILL)
        wait_for(api, url)
        offset = offset_of(api, url)
        assert 2_000_000 <= offset <= 2_500_000
        assert patch(api, url, data[offset:], offset).status_code == 204
        assert api.get(url).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_bytes_of_a_sender_that_pauses_are_kept_all_the_same(api):
    data = noise_png(400)
    url = start(api, data).headers["location"]
    with paused(api, url, data[:90_000]):
        while offset_of(api, url) < 90_000:
            time.sleep(0.5)
    assert patch(api, url, data[90_000:], 90_000).status_code == 204


def test_what_came_of_a_sender_that_is_given_up_is_kept(make_stack):
    running = make_stack(upload_idle_s=1, replica_count=1)
    data, headers = noise_png(400), running.headers()
    metadata = (("authorization", headers["Authorization"]),)
    over = threading.Event()

    def stalls(storage_id, part):
        yield pb.AppendUploadRequest(storage_id=storage_id, offset=0, body={"data": part})
        over.wait()

    with (
        httpx.Client(base_url=running.edge_url, headers=headers, timeout=60) as api,
        grpc.insecure_channel(running.grpc_target) as channel,
    ):
        service = uploads_pb2_grpc.UploadServiceStub(channel)
        for part, offset in ((data[:70_000], 70_000), (data[:100], 100), (b"no image" * 1000, None)):
            begun = service.StartUpload(pb.StartUploadRequest(size_bytes=len(data)), metadata=metadata)
            with pytest.raises(grpc.RpcError) as given_up:
                service.AppendUpload(stalls(begun.storage_id, part), metadata=metadata)
            url = f"{running.edge_url}/v1/uploads/{begun.storage_id}"
            if offset is None:
                assert given_up.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert api.head(url, headers=TUS).status_code == 404
            else:
                assert given_up.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert offset_of(api, url) == offset
                assert patch(api, url, data[offset:], offset).status_code == 204
        over.set()
        url = start(api, data).headers["location"]
        with paused(api, url, data[:70_000]):
            while offset_of(api, url) < 70_000:
                time.sleep(0.1)
        assert patch(api, url, data[70_000:], 70_000).status_code == 204


def test_a_stopping_server_keeps_what_has_come(make_stack):
    running = make_stack(drain_s=0, replica_count=1)
    data = noise_png(900)
    drafts = running.data_dir / "objects" / "drafts"
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
        urls = [start(api, data).headers["location"] for _ in range(4)]
        with contextlib.ExitStack() as stack:
            for url in urls:
                stack.enter_context(paused(api, url, data[:1_500_000]))
            # Each has written its first piece when it has a draft.
            while len(list(drafts.iterdir())) < 4:
                time.sleep(0.05)
            stopping = psutil.Process(replica_of(running))
            stopping.terminate()
            psutil.wait_procs([stopping], 30)
        wait_for(api, urls[0])
        offsets = [offset_of(api, url) for url in urls]
        assert all(1 << 20 <= offset <= 1_500_000 for offset in offsets), offsets


def test_a_store_that_stands_still_loses_nothing(make_stack):
    running = make_stack()
    data = noise_png(800)
    with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
        url = start(api, data).headers["location"]
        assert patch(api, url, data[:500_000], 0).status_code == 204
        os.kill(valkey_of(running), signal.SIGSTOP)
        try:
            with paused(api, url, data[500_000:], 500_000, rest=True):
                time.sleep(4)
        finally:
            os.kill(valkey_of(running), signal.SIGCONT)
        wait_for(api, url)
        offset = offset_of(api, url)
        if offset < len(data):
            assert patch(api, url, data[offset:], offset).status_code == 204
        assert api.get(url).json()["sha256"] == hashlib.sha256(data).hexdigest()


def test_an_image_that_takes_long_to_make_is_answered_meanwhile_and_there_later(make_stack):
    with scanner() as scans:
        running = make_stack(clamd=scans.address, clamd_timeout_s=120)
        with httpx.Client(base_url=running.edge_url, headers=running.headers(), timeout=60) as api:
            url = start(api).headers["location"]
            scans.verdicts.clear()
            came = patch(api, url, star_png(), 0)
            assert (came.status_code, int(came.headers["upload-offset"])) == (204, len(star_png()))
            assert offset_of(api, url) == len(star_png())
            scans.verdicts.set()
            assert api.get(url).json()["sha256"] == hashlib.sha256(star_png()).hexdigest()
            assert "upload-metadata" not in api.head(url, headers=TUS).headers


def test_bytes_that_do_not_follow_are_refused(api):
    url = start(api).headers["location"]
    assert error_code(patch(api, url, b"x", 5)) == (409, "upload.offset_conflict")
    assert patch(api, url, star_png()[:50], 0).status_code == 204
    refused = patch(api, url, star_png()[:50], 0)
    assert error_code(refused) == (409, "upload.offset_conflict")
    assert refused.json()["error"]["details"] == {"offset": 50}
    assert refused.headers["tus-resumable"] == "1.0.0"
    assert error_code(patch(api, url, star_png(), 50)) == (400, "param.invalid")
    assert offset_of(api, url) == 50
    assert error_code(api.patch(url, content=b"x", headers=PATCH)) == (400, "param.invalid")
    assert error_code(api.patch(url, content=b"x", headers=TUS)) == (415, "media.unsupported")
    assert patch(api, url, star_png()[50:], 50).status_code == 204
    assert error_code(patch(api, url, b"x", 50)) == (409, "upload.offset_conflict")
    size = len(star_png())
    assert error_code(patch(api, url, b"x", size)) == (400, "param.invalid")
    again = patch(api, url, b"", size)
    assert (again.status_code, again.headers["upload-offset"]) == (204, str(size))


def test_whoever_comes_second_hears_of_a_conflict_and_not_that_there_is_no_upload(api):
    data = star_png()
    url = start(api, data).headers["location"]
    faster = []

    def slow():
        yield data[:50]
        # On a connection of its own: the client's is taken.
        with httpx.Client(headers=api.headers, timeout=60) as other:
            faster.append(patch(other, url, data, 0).status_code)
        yield data[50:]

    assert error_code(patch(api, url, slow(), 0)) == (409, "upload.offset_conflict")
    assert faster == [204]
    assert offset_of(api, url) == len(data)


def test_an_upload_that_ends_is_there_for_whoever_asks_meanwhile(stack, api):
    ended = threading.Event()
    asked, answers = queue.SimpleQueue(), queue.SimpleQueue()

    def ask():
        with httpx.Client(base_url=stack.edge_url, headers=api.headers, timeout=60) as other:
            while url := asked.get():
                while not ended.is_set():
                    answers.put(other.head(url, headers=TUS).status_code)

    with ThreadPoolExecutor(6) as callers:
        for _ in range(6):
            callers.submit(ask)
        for _ in range(25):
            url = start(api).headers["location"]
            ended.clear()
            for _ in range(6):
                asked.put(url)
            while answers.empty():
                pass
            assert patch(api, url, star_png(), 0).status_code == 204
            ended.set()
        for _ in range(6):
            asked.put("")
    counts = Counter(answers.get() for _ in range(answers.qsize()))
    assert counts.keys() == {200}, counts


@pytest.mark.parametrize(
    ("data", "headers", "code"),
    [
        (bytes(10_000), {}, (400, "image.invalid_format")),
        (b"no image", {}, (400, "image.invalid_format")),
        (star_png()[:40], {}, (422, "image.decoding_failed")),
        (star_png(), {"content-md5": md5_of(b"other")}, (400, "image.md5_mismatch")),
        (star_png(), {"upload-metadata": told(filetype="image/jpeg")}, (415, "media.mismatch")),
        (star_png(), {"upload-metadata": told(filename="star.jpg")}, (415, "media.mismatch")),
    ],
)
def test_what_is_no_image_is_refused_and_leaves_nothing(api, stack, data, headers, code):
    before = stored(stack)
    url = start(api, data, **headers).headers["location"]
    assert error_code(patch(api, url, data, 0)) == code
    assert api.delete(url).status_code in (204, 404)
    assert stored(stack) <= before


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"upload-length": "999999999999"}, (413, "upload.too_large")),
        ({"upload-length": "0"}, (400, "image.source_required")),
        ({"upload-length": "-1"}, (400, "param.invalid")),
        ({"upload-length": "many"}, (400, "param.invalid")),
        ({"upload-metadata": told(filetype="text/html")}, (415, "media.unsupported")),
        ({"upload-metadata": "filename !"}, (400, "param.invalid")),
        ({"upload-metadata": "a" * 4000}, (400, "param.invalid")),
        ({"content-md5": "!"}, (400, "image.base64_invalid")),
        ({"tus-resumable": "0.2.2"}, (412, "upload.protocol_unsupported")),
    ],
)
def test_an_upload_that_cannot_be_is_refused_at_its_start(api, headers, code):
    answer = start(api, **headers)
    assert error_code(answer) == code
    assert (answer.headers["tus-resumable"], answer.headers["tus-version"]) == ("1.0.0", "1.0.0")


def test_another_tenant_sees_no_upload(api, stack):
    url = start(api).headers["location"]
    with httpx.Client(headers=stack.headers(tenant=f"other-{uuid4()}"), timeout=60) as other:
        assert error_code(patch(other, url, star_png(), 0)) == (404, "upload.not_found")
        assert other.head(url, headers=TUS).status_code == 404
        assert error_code(other.delete(url)) == (404, "upload.not_found")
    assert offset_of(api, url) == 0


def test_a_started_upload_is_removed_with_its_parts(api, stack):
    before = stored(stack)
    url = start(api).headers["location"]
    patch(api, url, star_png()[:100], 0)
    assert len(stored(stack) - before) == 1
    assert api.delete(url, headers=TUS).status_code == 204
    assert api.head(url, headers=TUS).status_code == 404
    assert stored(stack) <= before


def test_a_start_under_a_key_is_made_once(api):
    key = {"idempotency-key": str(uuid4())}
    first, again = start(api, **key), start(api, **key)
    assert first.headers["location"] == again.headers["location"]
    assert again.headers["idempotency-replayed"] == "true"
    assert error_code(start(api, b"other length", **key)) == (422, "idempotency.key_reused")


def test_the_protocol_is_described(api):
    answer = api.options("/v1/uploads:resumable")
    assert answer.status_code == 204
    assert (answer.headers["tus-version"], answer.headers["tus-resumable"]) == ("1.0.0", "1.0.0")
    assert answer.headers["tus-extension"] == "creation,expiration,termination"
    assert int(answer.headers["tus-max-size"]) > 0


def test_a_native_caller_resumes_too(stack):
    token = stack.headers(tenant=f"native-{uuid4()}")["Authorization"]
    metadata = (("authorization", token),)
    data = star_png()
    with grpc.insecure_channel(stack.grpc_target) as channel:
        service = uploads_pb2_grpc.UploadServiceStub(channel)

        def append(storage_id, part, offset):
            request = pb.AppendUploadRequest(storage_id=storage_id, offset=offset)
            request.body.data = part
            return service.AppendUpload(iter([request]), metadata=metadata)

        begun = service.StartUpload(pb.StartUploadRequest(size_bytes=len(data)), metadata=metadata)
        assert append(begun.storage_id, data[:70], 0).offset == 70
        progress = service.GetUploadProgress(
            pb.GetUploadProgressRequest(storage_id=begun.storage_id), metadata=metadata
        )
        assert (progress.offset, progress.size_bytes, progress.HasField("upload")) == (70, len(data), False)
        done = append(begun.storage_id, data[70:], 70)
        assert done.upload.sha256 == hashlib.sha256(data).hexdigest()
        with pytest.raises(grpc.RpcError) as refused:
            append(begun.storage_id, b"x", 3)
        assert refused.value.code() is grpc.StatusCode.ABORTED
