"""The object store in a bucket of a real S3 server, and links that lead to it."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import os
import re
import traceback
import tracemalloc
from uuid import uuid4

import httpx
import pytest
from tests.clock import FakeClock
from tests.s3_server import CREDENTIALS, s3_server

from camserve_server.base.clock import SystemClock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.engine.buffers import ByteBudget
from camserve_server.stores.guarded_objects import GuardedObjects
from camserve_server.stores.objects import HOUR_S, new_object_id, read_whole
from camserve_server.stores.s3_objects import S3Links, S3Objects
from camserve_server.stores.sigv4 import Credentials

pytestmark = pytest.mark.timeout(120)

CLOCK = SystemClock()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def settings(server):
    return server.settings(f"p-{uuid4()}")


@pytest.fixture
def store(settings):
    return S3Objects(settings, budget=ByteBudget(64 << 20), clock=CLOCK)


@pytest.fixture
def links(server, settings):
    return S3Links(settings, server.url, CREDENTIALS, clock=CLOCK)


@pytest.fixture
async def web():
    async with httpx.AsyncClient() as client:
        yield client


def later(hours=1.0):
    return CLOCK.now() + hours * HOUR_S


async def reason(awaitable):
    with pytest.raises(ApiError) as caught:
        await awaitable
    return caught.value.reason


async def test_what_is_put_is_read_back_with_its_type_and_time(store):
    expires_at = later()
    object_id = await store.put("a", b"some bytes", content_type="image/png", expires_at=expires_at)
    async with await store.open("a", object_id) as stored:
        assert (stored.size_bytes, stored.content_type) == (10, "image/png")
        assert stored.expires_at == pytest.approx(expires_at)
        assert b"".join([chunk async for chunk in stored.read(2, 6)]) == b"me b"
        assert [chunk async for chunk in stored.read(3, 3)] == []
        with pytest.raises(ValueError, match="range"):
            await anext(stored.read(0, 11))


async def test_a_large_image_is_put_without_a_copy_of_it(store):
    data = bytearray(os.urandom(40_000_000))
    tracemalloc.start()
    try:
        object_id = await store.put("a", memoryview(data), content_type="image/tiff", expires_at=later())
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most_bytes < 30_000_000
    assert await read_whole(store, "a", object_id) == data


@pytest.mark.parametrize("end", ["deleted", "replaced"])
async def test_what_is_deleted_between_opening_and_reading_is_not_found_and_no_fault_of_the_bucket(store, links, end):
    guarded = GuardedObjects(store, CLOCK)
    for _ in range(8):
        object_id = await guarded.put("a", b"some bytes", content_type="image/png", expires_at=later())
        async with await guarded.open("a", object_id) as stored:
            if end == "deleted":
                await guarded.delete("a", object_id)
            else:
                await links.spend("a", object_id, keep_until=later())
            assert await reason(anext(stored.read(0, 10))) is Reason.OBJECT_NOT_FOUND
    await guarded.check()


@pytest.mark.parametrize("size_bytes", [0, 1, 8 << 20, (8 << 20) + 1, 30_000_000])
async def test_a_draft_appears_whole_when_it_is_committed(store, settings, server, size_bytes):
    data = os.urandom(size_bytes)
    draft = await store.draft("a", content_type="image/tiff", expires_at=later())
    for at in range(0, size_bytes, 1_000_000):
        await draft.write(data[at : at + 1_000_000])
    assert server.keys(settings.prefix) == []
    await draft.commit()
    await store.sync("a", [draft.object_id])
    assert await read_whole(store, "a", draft.object_id) == data
    async with await store.open("a", draft.object_id) as stored:
        sizes = [len(chunk) async for chunk in stored.read(0, size_bytes)]
    assert max(sizes, default=0) <= 1 << 20


async def test_a_draft_that_is_given_up_leaves_nothing(store, settings, server):
    draft = await store.draft("a", content_type="image/tiff", expires_at=later())
    await draft.write(bytes(20_000_000))
    await draft.discard()
    assert server.keys(settings.prefix) == []
    assert "<UploadId>" not in server.request("GET", uploads="", prefix=settings.prefix).text
    with pytest.raises(RuntimeError):
        await draft.commit()


async def test_drafts_take_memory_of_the_budget_and_give_it_back(settings):
    budget = ByteBudget(40 << 20)
    store = S3Objects(settings, budget=budget, clock=CLOCK)
    one, other = [await store.draft(tenant, content_type="image/tiff", expires_at=later()) for tenant in "ab"]
    assert await reason(store.draft("a", content_type="image/tiff", expires_at=later())) is Reason.SERVICE_OVERLOADED
    await one.write(b"x")
    await one.commit()
    await one.discard()
    await other.discard()
    await other.discard()
    assert budget.taken_bytes == 0


async def test_parts_of_drafts_go_after_a_day(server, settings, store, monkeypatch):
    draft = await store.draft("a", content_type="image/tiff", expires_at=later(100))
    await draft.write(bytes(20_000_000))

    def parts():
        return server.request("GET", uploads="", prefix=settings.prefix).text.count("<UploadId>")

    assert parts() == 1
    await store.remove_expired()
    assert parts() == 1
    monkeypatch.setattr("camserve_server.stores.s3_uploads._LIFETIME_S", 0.0)
    await store.remove_expired()
    assert parts() == 0
    wrong = dataclasses.replace(settings, credentials=Credentials(CREDENTIALS.key_id, "wrong"))
    with pytest.raises(ApiError) as failed:
        await S3Objects(wrong, budget=ByteBudget(64 << 20), clock=CLOCK)._unfinished.remove()
    # Its address is signed, and causes are logged.
    assert "403" in repr(failed.value.__cause__)
    assert "http" not in repr(failed.value.__cause__)


async def test_what_is_logged_of_a_failure_holds_no_address_and_no_body(settings):
    wrong = dataclasses.replace(settings, credentials=Credentials(CREDENTIALS.key_id, "wrong"))
    away = dataclasses.replace(settings, endpoint="http://127.0.0.1:9")
    for faulty, word in ((wrong, "403"), (away, "error sending request")):
        store = S3Objects(faulty, budget=ByteBudget(64 << 20), clock=CLOCK)
        for asked in (
            store.put("a", b"x", content_type="image/png", expires_at=later()),
            store.open("a", new_object_id(later())),
            store.check(),
        ):
            with pytest.raises(ApiError) as failed:
                await asked
            cause = failed.value.__cause__
            logged = "".join(traceback.format_exception(cause)) + repr(cause)
            assert word in logged
            assert not re.search(r"/|obj_|<|p-|127\.0\.0\.1", logged), logged


async def test_another_tenant_and_an_unknown_id_find_nothing(store):
    object_id = await store.put("a", b"x", content_type="image/png", expires_at=later())
    for tenant, asked in (("b", object_id), ("a", new_object_id(later())), ("a", "obj_x"), ("a", "../../x")):
        assert await reason(store.open(tenant, asked)) is Reason.OBJECT_NOT_FOUND
    await store.delete("b", object_id)
    assert await read_whole(store, "a", object_id) == b"x"
    await store.delete("a", object_id)
    await store.delete("a", object_id)
    assert await reason(store.open("a", object_id)) is Reason.OBJECT_NOT_FOUND


async def test_what_expired_cannot_be_opened_and_goes_with_its_hour(server, settings, monkeypatch):
    clock = FakeClock(CLOCK.now())
    store = S3Objects(settings, budget=ByteBudget(64 << 20), clock=clock)
    monkeypatch.setattr(store, "_unfinished", None)  # its requests are signed by the clock, which runs ahead here
    short = await store.put("a", b"x", content_type="image/png", expires_at=later(0.5))
    long = await store.put("b", b"y", content_type="image/png", expires_at=later(5))
    clock.advance(0.6 * HOUR_S)
    assert await reason(store.open("a", short)) is Reason.OBJECT_NOT_FOUND
    clock.advance(1.5 * HOUR_S)
    assert await store.remove_expired() == 1
    assert await store.remove_expired() == 0
    (left,) = server.keys(settings.prefix)
    assert left.endswith(long)
    assert await read_whole(store, "b", long) == b"y"


async def test_a_server_that_is_away_or_has_no_such_bucket_is_a_failed_part(server, settings):
    for wrong in (
        {"endpoint": "http://127.0.0.1:1"},
        {"bucket": "nobody"},
        {"credentials": Credentials(CREDENTIALS.key_id, "wrong")},
    ):
        store = S3Objects(dataclasses.replace(settings, **wrong), budget=ByteBudget(64 << 20), clock=CLOCK)
        assert await reason(store.check()) is Reason.UPSTREAM_FAILED, wrong
    assert await reason(store.put("a", b"x", content_type="a/b", expires_at=later())) is Reason.UPSTREAM_FAILED
    await S3Objects(settings, budget=ByteBudget(64 << 20), clock=CLOCK).check()


async def test_objects_ask_for_the_encryption_of_the_settings(server, settings):
    store = S3Objects(dataclasses.replace(settings, encryption="AES256"), budget=ByteBudget(64 << 20), clock=CLOCK)
    object_id = await store.put("a", b"secret", content_type="image/png", expires_at=later())
    (key,) = server.keys(settings.prefix)
    assert server.request("HEAD", f"/{key}").headers["x-amz-server-side-encryption"] == "AES256"
    assert await read_whole(store, "a", object_id) == b"secret"


async def test_a_link_reads_one_object_for_its_time(store, links, web):
    object_id = await store.put("a", b"x", content_type="image/png", expires_at=later())
    url = links.download("a", object_id, expires_at=CLOCK.now() + 60)
    answer = await web.get(url)
    assert (answer.content, answer.headers["content-type"]) == (b"x", "image/png")
    assert answer.headers["content-disposition"] == "inline"
    other = await store.put("a", b"y", content_type="image/png", expires_at=later())
    assert (await web.get(url.replace(object_id, other))).status_code == 403
    assert (await web.put(url, content=b"z")).status_code == 403


async def test_a_link_takes_exactly_what_it_was_made_for_once(store, links, web):
    object_id = new_object_id(later())
    data = b"exactly these bytes"
    digest = base64.b64encode(hashlib.md5(data).digest()).decode()
    wanted = {"Content-Length": str(len(data)), "Content-Type": "image/png", "Content-MD5": digest}
    url, headers = links.upload("a", object_id, wanted, keep_until=later(), expires_at=CLOCK.now() + 60)
    for wrong, changed in (
        (data + b"!", {"Content-Length": str(len(data) + 1)}),
        (data, {"Content-Type": "image/jpeg"}),
        (data[::-1], {}),
        (data, {"Content-MD5": base64.b64encode(bytes(16)).decode()}),
        (data, {"If-None-Match": ""}),
    ):
        assert (await web.put(url, content=wrong, headers=headers | changed)).status_code in (400, 403), changed
    assert await reason(store.open("a", object_id)) is Reason.OBJECT_NOT_FOUND
    assert (await web.put(url, content=data, headers=headers)).status_code == 200
    assert (await web.put(url, content=data, headers=headers)).status_code == 412
    assert await read_whole(store, "a", object_id) == data
    async with await store.open("a", object_id) as stored:
        assert stored.content_type == "image/png"
