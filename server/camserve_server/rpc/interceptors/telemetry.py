"""Counts, times and logs every call."""

from __future__ import annotations

import re
import time

import structlog
from google.protobuf.message import Message

from camserve_server.base.telemetry import CALL_SECONDS, CALLS, CALLS_RUNNING
from camserve_server.rpc.call import Call, Proceed

_log = structlog.get_logger("call")

# What a call can be about. Only our own ids pass: anything else in these fields is a caller's text.
_ABOUT = ("job_id", "storage_id", "object_id", "webhook_id", "event_id")
_ID = re.compile(r"[a-z]+_[0-9A-Za-z]{16,40}")


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
            tenant=call.caller.tenant if call.caller else None,
            subject=call.caller.subject if call.caller else None,
            rest=call.rest,
            **(_about(call.request) | _about(call.response)),
        )


def _about(message: object) -> dict[str, str]:
    """Returns the ids of what a message is about."""
    if not isinstance(message, Message):
        return {}
    named = {name: getattr(message, name) for name in _ABOUT if name in message.DESCRIPTOR.fields_by_name}
    return {name: value for name, value in named.items() if _ID.fullmatch(value)}
