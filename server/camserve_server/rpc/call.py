"""One call on its way through the chain."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message

from camserve_server.base.errors import ApiError
from camserve_server.base.tasks import ended
from camserve_server.core.limits import TenantLimits
from camserve_server.core.tokens import Identity
from camserve_server.rpc.ending import with_one_end
from camserve_server.rpc.policy import Policy

# The edge makes request ids of this form; anything else is a caller's invention and replaced.
_REQUEST_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_READ = frozenset(
    {
        "authorization",
        "content-md5",
        "idempotency-key",
        "if-range",
        "prefer",
        "range",
        "route-key",
        "traceparent",
        "tracestate",
        "tus-resumable",
        "upload-length",
        "upload-metadata",
        "upload-offset",
        "x-camserve-content-length",
        "x-camserve-counted",
        "x-envoy-original-method",
        "x-envoy-original-path",
        "x-request-id",
    }
)


T = TypeVar("T")
_CHECKS_ITSELF = "checks_itself"


def checks_itself(serve: T) -> T:
    """Marks a servicer's method that awaits `Call.checked` before anything that it does lasts."""
    setattr(serve, _CHECKS_ITSELF, True)
    return serve


def _nothing(_: str) -> None:
    pass


def _as_asked(_: str, asked: str) -> str:
    return asked


async def _run(_: Callable[[], bytes], serve: Callable[[], Awaitable[Message]]) -> Message:
    return await serve()


@dataclass(slots=True)
class Call:
    """What the links of the chain and the servicer share about one call.

    `request` is the message, or for a client stream an async iterator of messages. `metadata` holds only the
    keys that the server reads. `http_code` is the status over REST where it is not 200.

    `link_tenant` is the tenant whose signed link the call came by, once the servicer has verified it; only public
    methods have links; `on_link` is told of it. `about` names what the first message of a client stream is about.

    `limits` are those of the caller's tenant; `rate` are the headers that say how its rate stands, where the edge does
    not say it. `dates` are those of a method that ends; the answer of a version that ends has its own among `headers`.
    Of both those are sent that end first.

    `version` returns the version that answers, of a model and the version asked for, the same whenever it is called.

    `nonce` is the same in every attempt at a request with an idempotency key. A servicer of a client stream hands
    `once` what tells the request from others, and what serves it. `answer_id` is the request id in an error's body.

    `checks_beside` is true where the servicer's method is one that `checks_itself`.
    """

    method: MethodDescriptor
    policy: Policy
    context: grpc.aio.ServicerContext[Any, Any]
    request: Any
    metadata: Mapping[str, str]
    request_id: str
    caller: Identity | None = None
    link_tenant: str | None = None
    on_link: Callable[[str], None] = _nothing
    about: dict[str, str | list[str]] = field(default_factory=dict)
    limits: TenantLimits | None = None
    rate: dict[str, str] = field(default_factory=dict)
    dates: Mapping[str, str] = field(default_factory=dict)
    response: Any = None
    code: str = "OK"
    headers: dict[str, str] = field(default_factory=dict)
    http_code: int | None = None
    nonce: str | None = None
    replayed: bool = False
    version: Callable[[str, str], str] = _as_asked
    once: Callable[[Callable[[], bytes], Callable[[], Awaitable[Message]]], Awaitable[Any]] = _run
    answer_id: str = ""
    checks_beside: bool = False
    _checks: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    def begin(
        cls,
        method: MethodDescriptor,
        policy: Policy,
        request: Any,
        context: grpc.aio.ServicerContext[Any, Any],
        serve: Callable[..., Any],
    ) -> Call:
        """Returns the call with its metadata read and its request id chosen."""
        metadata: dict[str, str] = {}
        for key, value in context.invocation_metadata() or ():
            if key in _READ and isinstance(value, str):
                # Sent twice, a header means both (RFC 9110 section 5.3), which no single-valued one allows.
                metadata[key] = f"{metadata[key]}, {value}" if key in metadata else value
        offered = metadata.get("x-request-id", "")
        request_id = offered if _REQUEST_ID.fullmatch(offered) else str(uuid.uuid4())
        return cls(
            method,
            policy,
            context,
            request,
            metadata,
            request_id,
            http_code=policy.http_code,
            answer_id=request_id,
            checks_beside=getattr(serve, _CHECKS_ITSELF, False),
        )

    @property
    def rest(self) -> bool:
        """Is true when the edge transcoded the call from REST."""
        return "x-envoy-original-path" in self.metadata

    @property
    def query(self) -> str:
        """The query of the address that REST asked for; callers of the gRPC port may write there what they like."""
        return self.metadata.get("x-envoy-original-path", "").partition("?")[2]

    @property
    def has_json(self) -> bool:
        """Is true when the edge made the request of a JSON body."""
        return self.rest and self.metadata.get("x-envoy-original-method") not in ("GET", "HEAD", "DELETE")

    @property
    def has_key(self) -> bool:
        """Is true when the call runs under an idempotency key."""
        return bool(self.policy.operation) and "idempotency-key" in self.metadata

    @property
    def prefers_async(self) -> bool:
        """Is true when the caller would rather have a receipt than wait (RFC 7240 section 4.1)."""
        asked = self.metadata.get("prefer", "").lower()
        return "respond-async" in (preference.partition(";")[0].strip() for preference in asked.split(","))

    @property
    def identity(self) -> Identity:
        """Who calls; only on methods that are not public."""
        if self.caller is None:
            raise RuntimeError(f"{self.method.full_name} is public: there is no identity")
        return self.caller

    @property
    def tenant(self) -> str:
        """Whose call it is: the caller's, or on a public method of whoever signed the link."""
        return self.link_tenant or self.identity.tenant

    def came_by_link_of(self, tenant: str) -> None:
        """Notes whose link the call came by; raises ApiError(CONCURRENCY_EXCEEDED) where that has too many open."""
        self.link_tenant = tenant
        self.on_link(tenant)

    @property
    def tenant_limits(self) -> TenantLimits:
        """What the caller's tenant may do; only on methods that are not public."""
        if self.limits is None:
            raise RuntimeError(f"{self.method.full_name} is public: there are no limits")
        return self.limits

    @asynccontextmanager
    async def passing(self, check: Coroutine[Any, Any, None], *, likely: bool) -> AsyncIterator[None]:
        """Runs what follows a check that raises ApiError for a call that may not pass.

        Where that is not likely, and the servicer waits for it, the check goes on beside what follows; then too its
        refusal is the call's, whatever else is refused.
        """
        if not (self.checks_beside and likely):
            await check
            yield
            return
        task = asyncio.create_task(check)
        self._checks.append(task)
        try:
            try:
                yield
            except ApiError:
                await task
                raise
            await task
        finally:
            await ended([task])
            if not task.cancelled():
                task.exception()  # who was canceled raises none
            # A failure keeps this frame, which must not keep the failure.
            del task

    async def checked(self) -> None:
        """Returns once no check is open; raises ApiError where the call may not pass."""
        await asyncio.gather(*self._checks)

    def end(self) -> None:
        """Lets go of what knows the call, so that its memory is free with its answer and waits for no collector."""
        self.request = None
        self.once = _run
        self._checks.clear()

    async def send_headers(self) -> None:
        """Sends the initial metadata once, with `headers`; for a stream, before its first message."""
        metadata = [*with_one_end(self.headers, self.dates).items(), *self.rate.items()]
        if self.policy.operation:
            metadata.append(("idempotency-replayed", str(self.replayed).lower()))
        if not self.rest:
            metadata.append(("request-id", self.request_id))
        elif self.http_code:
            metadata.append(("x-http-code", str(self.http_code)))
        await self.context.send_initial_metadata(tuple(metadata))


Proceed = Callable[[], Awaitable[None]]
Interceptor = Callable[[Call, Proceed], Awaitable[None]]
