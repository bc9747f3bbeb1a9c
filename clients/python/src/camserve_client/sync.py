"""The same client for code that does not await: every method runs that of AsyncClient on a thread of its own."""

from __future__ import annotations

import asyncio
import functools
import os
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from camserve_client.auth import ClientCredentials, TokenSource
from camserve_client.client import AsyncClient
from camserve_client.jobs import AsyncJob
from camserve_client.retry import Backoff
from camserve_client.webhook_calls import AsyncWebhooks

P = ParamSpec("P")
R = TypeVar("R")
_END = object()


class _Loop:
    """One event loop on one thread, shared by every client of the process: gRPC wants no more than one."""

    def __init__(self) -> None:
        self.forget()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Returns what the work returns; what interrupts the caller ends it too."""
        loop = self._started()
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError("a Client is not for callbacks and iterators of its own calls, which it would wait for")
        running = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return running.result()
        except BaseException:
            running.cancel()
            raise

    def forget(self) -> None:
        """Begins anew, as in a process that was forked, which has no such thread."""
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="camserve-client", daemon=True)
                self._thread.start()
            return self._loop


_LOOP = _Loop()
os.register_at_fork(after_in_child=_LOOP.forget)


def _returning(method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]) -> Callable[Concatenate[Any, P], R]:
    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **named: P.kwargs) -> R:
        return _LOOP.run(method(self._own, *args, **named))

    return call


def _yielding(method: Callable[Concatenate[Any, P], AsyncGenerator[R]]) -> Callable[Concatenate[Any, P], Iterator[R]]:
    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **named: P.kwargs) -> Iterator[R]:
        source = method(self._own, *args, **named)
        steps: list[asyncio.Task[Any]] = []

        async def following() -> Any:
            steps[:] = [asyncio.ensure_future(anext(source, _END))]
            return await steps[0]

        async def closed() -> None:
            # An interrupt leaves one behind, most often on its way out already.
            for step in steps:
                if not step.cancelling():
                    step.cancel()
                await asyncio.wait([step])
            await source.aclose()

        try:
            while (one := _LOOP.run(following())) is not _END:
                yield one
        finally:
            # One that is left open until the program ends has no thread any more that would close it.
            if not sys.is_finalizing():
                _LOOP.run(closed())

    return call


def _with_job(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, AsyncJob]],
) -> Callable[Concatenate[Any, P], Job]:
    @functools.wraps(method)
    def call(self: Any, /, *args: P.args, **named: P.kwargs) -> Job:
        return Job(_LOOP.run(method(self._own, *args, **named)))

    return call


class Job:
    """A job that was accepted, by its `id`; see AsyncJob."""

    def __init__(self, own: AsyncJob) -> None:
        self._own = own
        self.id = own.id

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r})"

    info = _returning(AsyncJob.info)
    wait = _returning(AsyncJob.wait)
    cancel = _returning(AsyncJob.cancel)
    watch = _yielding(AsyncJob.watch)
    results = _yielding(AsyncJob.results)


class Webhooks:
    """Registers webhooks and tells what became of their deliveries; see AsyncWebhooks."""

    def __init__(self, own: AsyncWebhooks) -> None:
        self._own = own

    create = _returning(AsyncWebhooks.create)
    list = _returning(AsyncWebhooks.list)
    get = _returning(AsyncWebhooks.get)
    delete = _returning(AsyncWebhooks.delete)
    test = _returning(AsyncWebhooks.test)
    rotate = _returning(AsyncWebhooks.rotate)
    deliveries = _yielding(AsyncWebhooks.deliveries)
    redeliver = _returning(AsyncWebhooks.redeliver)
    callback_secret = _returning(AsyncWebhooks.callback_secret)


class Client:
    """Calls the service and waits; its parameters and methods are those of AsyncClient, for `with` instead.

    Threads may share a client. What is called while a call runs (`on_progress`, `on_info`, a function that gives
    tokens, an iterator of inputs) runs on the client's own thread: it should be quick, and call no Client.
    """

    def __init__(
        self,
        address: str,
        *,
        token: TokenSource | None = None,
        credentials: ClientCredentials | None = None,
        transport: Literal["grpc", "rest"] | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        timeout_s: float = 60.0,
        backoff: Backoff | None = None,
    ) -> None:
        self._own = AsyncClient(
            address,
            token=token,
            credentials=credentials,
            transport=transport,
            ca_file=ca_file,
            timeout_s=timeout_s,
            backoff=backoff,
        )

    def open(self) -> Self:
        """Begins, as `with` does."""
        _LOOP.run(self._own.open())
        return self

    def close(self) -> None:
        """Ends every connection, and what still waits with `client.closed`."""
        _LOOP.run(self._own.close())

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def webhooks(self) -> Webhooks:
        """Webhooks of the caller's tenant."""
        return Webhooks(self._own.webhooks)

    def job(self, job_id: str) -> Job:
        """Returns a job by its id, without asking whether there is one."""
        return Job(self._own.job(job_id))

    infer = _returning(AsyncClient.infer)
    infer_batch = _yielding(AsyncClient.infer_batch)
    submit = _with_job(AsyncClient.submit)
    jobs = _yielding(AsyncClient.jobs)
    upload = _returning(AsyncClient.upload)
    get_upload = _returning(AsyncClient.get_upload)
    delete_upload = _returning(AsyncClient.delete_upload)
    presign_upload = _returning(AsyncClient.presign_upload)
    fetch = _returning(AsyncClient.fetch)
    models = _returning(AsyncClient.models)
    model = _returning(AsyncClient.model)
    limits = _returning(AsyncClient.limits)
    health = _returning(AsyncClient.health)
