"""Counts the request toward its tenant's rate, unless the edge did."""

from __future__ import annotations

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.counted import CountedNotes
from camserve_server.core.limits import Limits, TenantLimits
from camserve_server.rpc.call import Call, Interceptor, Proceed
from camserve_server.rpc.rate_headers import rate_headers


def rate(limits: Limits, notes: CountedNotes) -> Interceptor:
    """Returns the link that refuses the requests of a tenant that sends too many; public methods pass as they are."""

    async def count(call: Call, tenant: str, own: TenantLimits) -> None:
        standing = await limits.take(tenant, own)
        call.rate = rate_headers(standing)
        if standing.retry_after_s is not None:
            raise ApiError(Reason.RATE_EXCEEDED, retry_after_s=standing.retry_after_s)

    async def check(call: Call, proceed: Proceed) -> None:
        if call.policy.public:
            await proceed()
            return
        tenant = call.identity.tenant
        call.limits = await limits.of(tenant)
        if notes.genuine(call.metadata.get("x-camserve-counted"), tenant, call.request_id):
            await proceed()
            return
        async with call.passing(count(call, tenant, call.limits), likely=limits.plenty(tenant)):
            await proceed()

    return check
