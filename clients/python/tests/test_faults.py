"""Calls over a connection that is refused, breaks or answers nonsense."""

from __future__ import annotations

import asyncio
import hashlib
from urllib.parse import urlsplit

import pytest
from clients.python.tests.pictures import STAR, noise
from tests.conftest import free_ports
from tests.faults.proxy import fault_proxy, saying

from camserve_client import AsyncClient, Backoff, CamserveError

pytestmark = pytest.mark.timeout(180)
# Short pauses; how long they are is tested by a clock that the test sets.
SOON = Backoff(first_s=0.05, cap_s=0.2)


@pytest.fixture(params=["grpc", "rest"])
def faulty(request, stack):
    """A proxy before the service, and the address of it."""
    port = stack.grpc_target if request.param == "grpc" else urlsplit(stack.edge_url).netloc
    with fault_proxy("127.0.0.1", int(port.rpartition(":")[2])) as proxy:
        scheme = "grpc" if request.param == "grpc" else "http"
        yield proxy, f"{scheme}://127.0.0.1:{proxy.port}"


async def until(happened):
    """Returns once it did; a test's time limit ends a hopeless wait."""
    while not happened():
        await asyncio.sleep(0.01)


async def test_a_service_that_is_not_there_is_told():
    for scheme in ("grpc", "http"):
        async with AsyncClient(f"{scheme}://127.0.0.1:{free_ports(1)[0]}", backoff=SOON, timeout_s=0.3) as client:
            with pytest.raises(CamserveError) as failed:
                await client.health()
            assert failed.value.code in ("connection.failed", "timeout.exceeded")
            assert failed.value.request_id is None


async def test_a_call_waits_for_a_service_that_comes_back(faulty, connect):
    proxy, at = faulty
    proxy.closed = True
    async with connect(at, backoff=SOON) as client:
        for image in (STAR, noise(900)):
            proxy.closed = True
            proxy.cut()
            call = asyncio.create_task(client.infer(image, model="shapes"))
            before = proxy.taken
            await until(lambda before=before: proxy.taken > before)
            proxy.closed = False
            assert (await call).classes


async def test_a_write_whose_answer_was_lost_is_made_once(faulty, stack, connect):
    proxy, at = faulty
    async with connect(at, backoff=SOON) as client, connect(stack.edge_url) as beside:
        assert (await client.health()).status
        proxy.delay_s = 3600
        call = asyncio.create_task(client.submit([STAR], model="shapes"))

        async def made():
            return [info.job_id async for info in beside.jobs()]

        while not await made():
            await asyncio.sleep(0.02)
        proxy.delay_s = 0
        proxy.cut()
        assert [(await call).id] == await made()


async def test_an_upload_goes_on_where_the_connection_broke(faulty, connect):
    proxy, at = faulty
    cuts = [9_000_000, 13_000_000, 18_000_000]
    told = []

    def cut(progress):
        told.append(progress.sent_bytes)
        if cuts and progress.sent_bytes > cuts[0]:
            cuts.pop(0)
            proxy.cut()

    async with connect(at, backoff=SOON) as client:
        stored = await client.upload(noise(2700), on_progress=cut)
    assert not cuts
    assert stored.sha256 == hashlib.sha256(noise(2700)).hexdigest()
    # No break costs more than the piece that was on its way.
    assert min(told[told.index(max(one for one in told if one <= 9_000_000)) :]) >= 8 << 20


async def test_an_upload_outlives_a_service_that_is_away_longer_than_a_call_may_take(faulty, connect):
    proxy, at = faulty
    gone = []

    def away(progress):
        if progress.sent_bytes > 9_000_000 and not gone:
            gone.append(True)
            proxy.closed = True
            proxy.cut()
            asyncio.get_running_loop().call_later(3.0, setattr, proxy, "closed", False)

    async with connect(at, backoff=SOON, timeout_s=1.0) as client:
        stored = await client.upload(noise(2700), on_progress=away)
    assert gone
    assert stored.sha256 == hashlib.sha256(noise(2700)).hexdigest()


async def test_waiting_outlives_a_service_that_is_away_longer_than_a_call_may_take(faulty, connect):
    proxy, at = faulty
    async with connect(at, backoff=SOON) as client:
        job = await client.submit([noise(300)] * 20, model="shapes")
    told = []

    def away(_):
        if not told:
            proxy.closed = True
            proxy.cut()
            asyncio.get_running_loop().call_later(3.0, setattr, proxy, "closed", False)
        told.append(True)

    async with connect(at, backoff=SOON, timeout_s=1.0) as client:
        assert (await client.job(job.id).wait(on_info=away)).status == "succeeded"
    assert len(told) > 1


async def test_a_job_of_a_service_that_never_answered_is_not_waited_for(connect):
    async with connect(f"http://127.0.0.1:{free_ports(1)[0]}", backoff=SOON, timeout_s=0.3) as client:
        with pytest.raises(CamserveError) as failed:
            await client.job("job_00000000000000000000").wait()
    assert failed.value.code in ("connection.failed", "timeout.exceeded")


async def test_a_streamed_image_is_sent_again_after_a_broken_connection(faulty, connect):
    proxy, at = faulty
    cuts = [1]

    def cut(progress):
        if cuts and progress.sent_bytes > 1_000_000:
            cuts.pop()
            proxy.cut()

    async with connect(at, backoff=SOON) as client:
        assert (await client.infer(noise(900), model="shapes", on_progress=cut)).classes
    assert not cuts


async def test_every_image_of_a_batch_is_told_of_once_although_the_stream_broke(faulty, connect):
    proxy, at = faulty
    names = []
    async with connect(at, backoff=SOON) as client:
        async for item in client.infer_batch([noise(300)] * 40, model="shapes"):
            names.append(item.id)
            if len(names) in (1, 5):
                proxy.cut()
    assert sorted(names, key=int) == [str(number) for number in range(40)]


async def test_the_time_of_whoever_takes_the_images_does_not_count(faulty, connect):
    proxy, at = faulty
    names = []
    async with connect(at, backoff=SOON, timeout_s=1.0) as client:
        async for item in client.infer_batch([noise(300)] * 40, model="shapes"):
            names.append(item.id)
            if len(names) == 1:
                await asyncio.sleep(1.5)
                proxy.cut()
    assert sorted(names, key=int) == [str(number) for number in range(40)]


async def test_a_job_is_followed_although_its_stream_breaks(faulty, connect):
    proxy, at = faulty
    async with connect(at, backoff=SOON) as client:
        job = await client.submit([noise(300)] * 20, model="shapes")
        names = []
        async for item in job.watch():
            names.append(item.id)
            if len(names) % 7 == 1:
                proxy.cut()
        assert sorted(names, key=int) == [str(number) for number in range(20)]
        proxy.cut()
        assert (await job.wait()).status == "succeeded"


async def test_a_caller_who_cancels_is_not_held(faulty, connect):
    proxy, at = faulty
    proxy.delay_s = 3600
    async with connect(at) as client:
        call = asyncio.create_task(client.infer(STAR, model="shapes"))
        await until(lambda: proxy.taken)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_an_answer_of_something_else_is_no_answer(stack, connect):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=SOON) as client:
            page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n<p/>"
            proxy.answer = page
            with pytest.raises(CamserveError) as failed:
                await client.models()
            assert failed.value.code == "answer.invalid"
            proxy.answer = (
                b"HTTP/1.1 307 Temporary Redirect\r\nLocation: https://example.com\r\nContent-Length: 0\r\n\r\n"
            )
            with pytest.raises(CamserveError) as failed:
                await client.models()
            assert (failed.value.code, failed.value.status) == ("answer.invalid", 307)


async def test_a_busy_service_is_asked_again_when_it_says(stack, connect):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        busy = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        proxy.answer = busy
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=SOON) as client:
            call = asyncio.create_task(client.infer(STAR, model="shapes"))
            await until(lambda: proxy.taken >= 1)
            proxy.answer = None
            assert (await call).top.id == "star"
        proxy.answer = busy.replace(b": 1\r", b": 99999\r")
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=SOON) as client:
            before = proxy.taken
            with pytest.raises(CamserveError) as refused:
                await client.models()
            assert (refused.value.code, refused.value.retry_after_s) == ("service.overloaded", 99999)
            assert proxy.taken == before + 1


async def test_a_job_is_waited_for_where_no_stream_comes_through(stack, connect):
    """A proxy that does not know the path of events answers with a page of its own; the rest goes through."""
    host, port = urlsplit(stack.edge_url).netloc.split(":")

    async def serve(reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/events" in head.split(b"\r\n")[0]:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>")
        else:
            length = next(
                (int(line[15:]) for line in head.lower().split(b"\r\n") if line[:15] == b"content-length:"), 0
            )
            behind, back = await asyncio.open_connection(host, int(port))
            back.write(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + await reader.readexactly(length))
            writer.write(await behind.read())
            back.close()
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, connect(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", backoff=SOON) as client:
        job = await client.submit([STAR, b"nothing"], model="shapes")
        assert (await job.wait()).status == "succeeded"
        assert sorted([item.id async for item in job.watch()]) == ["0", "1"]


@pytest.mark.parametrize(
    "answer", [saying(b"200 OK", body) for body in (b"", b"{}", b"[]", b'"x"')] + [saying(b"204 No")]
)
async def test_an_answer_that_says_nothing_is_no_answer(stack, connect, answer):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        proxy.answer = answer
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=SOON) as client:
            job = client.job("job_00000000000000000000")
            for call in (
                client.infer(STAR, model="shapes"),
                client.submit([STAR], model="shapes"),
                client.upload(STAR),
                client.upload(noise(1300)),
                client.limits(),
                client.models(),
                client.health(),
                client.webhooks.list(),
                job.info(),
                anext(job.results()),
            ):
                with pytest.raises(CamserveError) as failed:
                    await call
                assert failed.value.code == "answer.invalid"


async def test_an_answer_without_result_and_job_is_no_answer(stack, connect):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        proxy.answer = saying(b"200 OK", b'{"request_id":"x"}')
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=SOON) as client:
            with pytest.raises(CamserveError, match=r"answer\.invalid"):
                await client.infer(STAR, model="shapes")


async def test_a_removal_whose_answer_was_lost_has_happened(faulty, connect):
    proxy, at = faulty
    async with connect(at, backoff=SOON) as client:
        stored = await client.upload(STAR)
        proxy.delay_s = 3600
        call = asyncio.create_task(client.delete_upload(stored.storage_id))
        await asyncio.sleep(1.0)
        proxy.delay_s = 0
        proxy.cut()
        await call
        with pytest.raises(CamserveError) as gone:
            await client.delete_upload(stored.storage_id)
        assert gone.value.code == "upload.not_found"


async def test_a_service_that_takes_no_bytes_is_given_up(stack, connect):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        size_bytes = b"Upload-Offset: 0\r\nUpload-Length: %d\r\n" % len(noise(1300))
        proxy.answer = saying(b"204 No Content", b"", size_bytes + b"Upload-Expires: Fri, 31 Dec 2049 23:59:59 GMT\r\n")
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=Backoff()) as client:
            with pytest.raises(CamserveError) as failed:
                await client.upload(noise(1300), resume="img_0000000000000000000000", stalled_after_s=2)
        assert failed.value.code == "connection.failed"
        assert proxy.taken < 12


async def test_a_netrc_of_the_machine_changes_nothing(stack, connect, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    monkeypatch.setenv("NETRC", str(netrc))
    async with connect(stack.edge_url) as client:
        assert (await client.infer(STAR, model="shapes", cam=True, heatmap="url")).top.id == "star"


async def test_a_proxy_of_the_environment_is_asked(stack, connect, monkeypatch):
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with connect("http://camserve.example", backoff=SOON, timeout_s=5) as client:
            assert (await client.health()).status
        assert proxy.taken


async def test_a_service_that_ends_every_stream_is_left_in_peace(stack, connect):
    """Which is what one does that drains: the pauses grow although each stream begins with a message."""
    host, port = urlsplit(stack.edge_url).netloc.split(":")
    with fault_proxy(host, int(port)) as proxy:
        event = b'{"event":"error","error":{"code":"service.draining","status":503,"message":"","request_id":"r"}}\n'
        proxy.answer = saying(b"200 OK", event, b"Content-Type: application/x-ndjson\r\n")
        async with connect(f"http://127.0.0.1:{proxy.port}", backoff=Backoff(first_s=0.2), timeout_s=1) as client:
            job = client.job("job_00000000000000000000")
            with pytest.raises(CamserveError):
                await job.wait(timeout_s=6)
        # Two a turn, the stream and the question after it, in pauses of up to 0.2, 0.4, 0.8 s and so on.
        assert proxy.taken < 40
