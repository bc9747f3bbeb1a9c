"""Counts, times and logs every call."""

from __future__ import annotations

import time

import structlog

from camserve_server.base import tracing
from camserve_server.base.errors import CATALOGUE
from camserve_server.base.telemetry import CALL_SECONDS, CALLS, CALLS_RUNNING
from camserve_server.rpc.audit import about
from camserve_server.rpc.call import Call, Proceed

_log = structlog.get_logger("call")

# What counts as a failure of the service, not of the request.
_FAULTS = frozenset(reason for reason, entry in CATALOGUE.items() if entry.status >= 500)


async def telemetry(call: Call, proceed: Proceed) -> None:
    """Writes one log line, one metric and one span per call, whatever its end; the line is the audit trail."""
    service, method = call.method.containing_service.full_name, call.method.name
    caller = {name: call.metadata[name] for name in tracing.CONTEXT_HEADERS & call.metadata.keys()}
    about_call = {
        "rpc.system.name": "grpc",
        "rpc.method": f"{service}/{method}",
        "camserve.request_id": call.request_id,
    }
    structlog.contextvars.bind_contextvars(request_id=call.request_id)
    started = time.monotonic()
    CALLS_RUNNING.inc()
    with tracing.entered(f"{service}/{method}", caller, about_call):
        try:
            await proceed()
        finally:
            CALLS_RUNNING.dec()
            _finished(call, time.monotonic() - started)


def _finished(call: Call, seconds: float) -> None:
    tenant = call.caller.tenant if call.caller else call.link_tenant
    CALLS.labels(call.method.full_name, call.code).inc()
    CALL_SECONDS.labels(call.method.full_name).observe(seconds, tracing.exemplar())
    tracing.note({"camserve.code": call.code, "camserve.tenant": tenant or ""})
    if call.code in _FAULTS:
        tracing.note_failure(call.code)
    _log.info(
        "call",
        method=call.method.full_name,
        code=call.code,
        ms=round(seconds * 1000, 2),
        tenant=tenant,
        subject=call.caller.subject if call.caller else None,
        rest=call.rest,
        **(call.about | about(call.request) | about(call.response)),
    )
