"""Counts, times and logs every call."""

from __future__ import annotations

import time

import structlog

from camserve_server.base import tracing
from camserve_server.base.audit_log import AuditLog
from camserve_server.base.errors import CATALOGUE
from camserve_server.base.telemetry import CALL_SECONDS, CALLS, CALLS_RUNNING
from camserve_server.rpc.audit import about
from camserve_server.rpc.call import Call, Interceptor, Proceed

_log = structlog.get_logger("call")

# What counts as a failure of the service, not of the request.
_FAULTS = frozenset(reason for reason, entry in CATALOGUE.items() if entry.status >= 500)


def telemetry(audit: AuditLog) -> Interceptor:
    """Returns the link that writes a line to the log and one to the audit log, a metric and a span of every call."""

    async def observed(call: Call, proceed: Proceed) -> None:
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
                _finished(call, time.monotonic() - started, audit)

    return observed


def _finished(call: Call, seconds: float, audit: AuditLog) -> None:
    tenant = call.caller.tenant if call.caller else call.link_tenant
    CALLS.labels(call.method.full_name, call.code).inc()
    CALL_SECONDS.labels(call.method.full_name).observe(seconds, tracing.exemplar())
    tracing.note({"camserve.code": call.code, "camserve.tenant": tenant or ""})
    if call.code in _FAULTS:
        tracing.note_failure(call.code)
    line = {
        "method": call.method.full_name,
        "code": call.code,
        "ms": round(seconds * 1000, 2),
        "tenant": tenant,
        "subject": call.caller.subject if call.caller else None,
        "rest": call.rest,
        **(call.about | about(call.request) | about(call.response)),
    }
    _log.info("call", **line)
    audit.write({"request_id": call.request_id, **tracing.ids(), **line})
