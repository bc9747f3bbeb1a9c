"""Charges a call to its tenant: one of its concurrent calls, and images of its day."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.message import Message

from camserve_server.core.admission import Admission
from camserve_server.core.infer import check_inputs
from camserve_server.rpc.call import Call, Interceptor, Proceed


def admission(admissions: Admission, refuse_early: Callable[[Call], None]) -> Interceptor:
    """Returns the link that admits calls that cost; of a client stream the image is charged when it is whole.

    `refuse_early` raises for a call that would be refused anyway: that is cheaper before anything is counted.
    """

    async def check(call: Call, proceed: Proceed) -> None:
        if not call.policy.costs:
            await proceed()
            return
        refuse_early(call)
        inputs = _inputs(call)
        if inputs is not None:
            # Before the quota: waiting for another day would not help.
            check_inputs([entry.id for entry in inputs], call.tenant_limits.max_batch_size)
        images = (1 if inputs is None else len(inputs)) if call.policy.costs_images else 0
        streamed = call.method.client_streaming
        tenant = call.identity.tenant
        async with admissions.staying(tenant, call.tenant_limits) as stay:
            if streamed and images:
                once = call.once

                async def charged(digest: Callable[[], bytes], serve: Callable[[], Awaitable[Message]]) -> Any:
                    async def serve_charged() -> Message:
                        await admissions.charge(stay, images)
                        return await serve()

                    return await once(digest, serve_charged)

                call.once = charged
            charge = admissions.charge(stay, 0 if streamed else images)
            async with call.passing(charge, likely=admissions.likely(tenant)):
                await proceed()

    return check


def _inputs(call: Call) -> Sequence[Any] | None:
    return call.request.inputs if "inputs" in call.method.input_type.fields_by_name else None
