"""Envoy's rate limit service: the edge asks it before each request of a tenant."""

from __future__ import annotations

import re

import grpc

from camserve_server.base.errors import CATALOGUE, Reason
from camserve_server.base.telemetry import LIMITER_ANSWERS
from camserve_server.core.counted import CountedNotes
from camserve_server.core.gate import Gate
from camserve_server.core.limits import Limits, Standing
from camserve_server.core.tokens import TENANT
from camserve_server.rpc.rate_headers import HOLD_OFF, rate_headers
from envoy_ratelimit import rls_pb2 as pb
from envoy_ratelimit import rls_pb2_grpc

# As edge/limits.py has it.
_ONE_IMAGE = "one_image"
_REQUEST_ID = re.compile(r"[0-9a-f-]{36}")


class RateLimitServicer(rls_pb2_grpc.RateLimitServiceServicer):
    """Counts requests for the edge, and leaves a note on each so that the server does not count it again."""

    def __init__(self, limits: Limits, notes: CountedNotes, gate: Gate) -> None:
        self._limits = limits
        self._notes = notes
        self._gate = gate

    async def ShouldRateLimit(  # noqa: N802
        self, request: pb.RateLimitRequest, context: grpc.aio.ServicerContext[pb.RateLimitRequest, pb.RateLimitResponse]
    ) -> pb.RateLimitResponse:
        """Answers for one request; one of no tenant passes, and the server refuses it."""
        facts = {entry.key: entry.value for descriptor in request.descriptors for entry in descriptor.entries}
        tenant, request_id = facts.get("tenant", ""), facts.get("request_id", "")
        if not TENANT.fullmatch(tenant) or not _REQUEST_ID.fullmatch(request_id):
            return pb.RateLimitResponse(overall_code=pb.RateLimitResponse.OK)
        one_image = facts.get("kind") == _ONE_IMAGE
        if one_image and self._gate.hopeless(tenant) and (known := self._limits.recent(tenant)):
            # In a flood most come this way: refused at once, uncounted, without a look into the store.
            return _no_room(known)
        # The edge waits a moment only, and then has the server count.
        standing = await self._limits.take_for(tenant, await self._limits.of(tenant))
        headers = rate_headers(standing)
        if standing.retry_after_s is not None:
            LIMITER_ANSWERS.labels("over the rate").inc()
            return _refusal(headers | {"retry-after": str(standing.retry_after_s)})
        if one_image and self._gate.hopeless(tenant):
            return _no_room(standing)
        LIMITER_ANSWERS.labels("passed").inc()
        note = self._notes.write(tenant, request_id)
        return pb.RateLimitResponse(
            overall_code=pb.RateLimitResponse.OK,
            response_headers_to_add=_values(headers),
            request_headers_to_add=_values({"x-camserve-counted": note}),
        )


def _no_room(standing: Standing) -> pb.RateLimitResponse:
    # Here, before its body is sent on, a refusal costs a tenth.
    LIMITER_ANSWERS.labels("no room").inc()
    retry_after_s = CATALOGUE[Reason.SERVICE_OVERLOADED].retry_after_s
    return _refusal(rate_headers(standing) | HOLD_OFF | {"retry-after": str(retry_after_s)})


def _refusal(headers: dict[str, str]) -> pb.RateLimitResponse:
    return pb.RateLimitResponse(overall_code=pb.RateLimitResponse.OVER_LIMIT, response_headers_to_add=_values(headers))


def _values(headers: dict[str, str]) -> list[pb.HeaderValue]:
    return [pb.HeaderValue(key=key, value=value) for key, value in headers.items()]
