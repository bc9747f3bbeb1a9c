"""Counts, times and logs every call."""

from __future__ import annotations

import time

import structlog

from camserve_server.base.telemetry import CALL_SECONDS, CALLS, CALLS_RUNNING
from camserve_server.rpc.audit import about
from camserve_server.rpc.call import Call, Proceed

_log = structlog.get_logger("call")


async def telemetry(call: Call, proceed: Proceed) -> None:
    """Writes one log line and one metric per call, whatever its end; the line is the audit trail."""
    structlog.contextvars.bind_contextvars(request_id=call.request_id)
    started = time.monotonic()
    CALLS_RUNNING.inc()
    try:
        await proceed()
    finally:
        CALLS_RUNNING.dec()
        seconds = time.monotonic() - started
        CALLS.labels(call.method.full_name, call.code).inc()
        CALL_SECONDS.labels(call.method.full_name).observe(seconds)
        _log.info(
            "call",
            method=call.method.full_name,
            code=call.code,
            ms=round(seconds * 1000, 2),
            tenant=call.caller.tenant if call.caller else call.link_tenant,
            subject=call.caller.subject if call.caller else None,
            rest=call.rest,
            **(call.about | about(call.request) | about(call.response)),
        )
