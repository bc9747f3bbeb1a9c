"""The client for code that does not await."""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from clients.python.tests.conftest import address
from clients.python.tests.pictures import SQUARE, STAR, noise

import camserve_client
from camserve_client import AsyncClient, AsyncJob, AsyncWebhooks, CamserveError, Client, Job, StorageId, Webhooks
from camserve_client.sync import _yielding

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def waiting(stack, way, tenant):
    with Client(address(stack, way), token=stack.token(tenant=tenant)) as client:
        yield client


def test_it_is_open_between_open_and_close(stack):
    client = Client(stack.grpc_target)
    with pytest.raises(RuntimeError, match="not open"):
        client.health()
    client.open()
    assert client.health().status
    client.close()
    with pytest.raises(CamserveError, match=r"client\.closed"):
        client.health()


def test_it_does_what_the_other_does(waiting):
    assert waiting.health().components
    assert waiting.infer(STAR, model="shapes", cam=True).heatmap.to_pil().size == (160, 160)
    items = {item.id: item.result.top.id for item in waiting.infer_batch([STAR, SQUARE], model="shapes")}
    assert items == {"0": "star", "1": "square"}
    job = waiting.submit([STAR], model="shapes")
    assert isinstance(job, Job)
    assert job.wait().status == "succeeded"
    assert [item.id for item in job.watch()] == [item.id for item in job.results()] == ["0"]
    assert [info.job_id for info in waiting.jobs()] == [waiting.job(job.id).id]
    stored = waiting.upload(noise(1300))
    assert waiting.infer(StorageId(stored.storage_id), model="shapes").classes
    assert waiting.webhooks.list() == ()
    with pytest.raises(CamserveError) as refused:
        waiting.model("none")
    assert refused.value.code == "model.not_found"


def test_threads_share_a_client(waiting):
    with ThreadPoolExecutor(8) as threads:
        answers = threads.map(lambda _: waiting.infer(STAR, model="shapes").top.id, range(40))
        assert set(answers) == {"star"}


def test_an_iterator_may_be_left_early(waiting):
    for item in waiting.infer_batch([STAR] * 10, model="shapes"):
        assert item.result
        break
    assert waiting.limits().tenant


def test_a_call_within_a_callback_is_refused_and_not_waited_for(waiting):
    with pytest.raises(RuntimeError, match="callbacks"):
        waiting.upload(noise(1300), on_progress=lambda _: waiting.health())


def test_a_forked_process_has_a_thread_of_its_own(stack):
    """As with servers that load a program first and fork then; over REST, since gRPC itself does not outlive a fork."""
    program = (
        "import os, sys, camserve_client as c\n"
        "def ask():\n"
        "    with c.Client(sys.argv[1]) as client: return len(client.health().components)\n"
        "assert ask()\n"
        "child = os.fork()\n"
        "if not child: os._exit(0 if ask() else 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, stack.edge_url], check=False, timeout=60)
    assert done.returncode == 0


@pytest.mark.parametrize(("face", "own"), [(Client, AsyncClient), (Job, AsyncJob), (Webhooks, AsyncWebhooks)])
def test_no_method_is_missing(face, own):
    def public(kind):
        return {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}

    assert public(face) == public(own)
    for name in public(own) - {"job"}:
        assert inspect.signature(getattr(face, name)) == inspect.signature(getattr(own, name))
        assert inspect.getdoc(getattr(face, name))
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_everything_public_is_described():
    for name in camserve_client.__all__:
        assert name == "ImageSource" or inspect.getdoc(getattr(camserve_client, name))


def test_what_interrupts_an_iterator_comes_to_its_caller():
    """Although the iterator takes its time to end, as one does that has a connection to close."""
    ended = []

    async def watch(_):
        try:
            yield 1
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.3)
            ended.append(True)

    own = AsyncJob(None, "job_1")  # type: ignore[arg-type] # no call is made
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(_yielding(watch)(Job(own)))
    finally:
        signal.signal(signal.SIGINT, handler)
    assert ended


def test_an_iterator_that_stays_open_does_not_hold_the_program(stack, way, tenant):
    program = (
        "import sys\nfrom camserve_client import Client\n"
        "with Client(sys.argv[1], token=sys.argv[2]) as client:\n"
        "    items = client.infer_batch([sys.argv[3]] * 300, model='shapes')\n"
        "    print(next(items).status)\n"
    )
    arguments = [address(stack, way), stack.token(tenant=tenant), str(STAR)]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (0, "succeeded\n"), done.stderr
