"""Turns every exception into a status; the only place that does."""

from __future__ import annotations

import asyncio

import grpc
import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.oauth import OAuthError
from camserve_server.rpc.call import Call, Proceed
from camserve_server.rpc.oauth_status import oauth_status
from camserve_server.rpc.status import Status, status_of

_log = structlog.get_logger("errors")


async def errors(call: Call, proceed: Proceed) -> None:
    """Ends the call with the status of what was raised; an unknown exception becomes `internal`."""
    status = await _status(call, proceed)
    # Not where the exception is handled: what `abort` raises, which gRPC keeps, would keep that with all its frames.
    if status:
        await call.context.abort(*status)


async def _status(call: Call, proceed: Proceed) -> Status | None:
    """Returns None for a call that has been served."""
    try:
        await proceed()
    except ApiError as error:
        if error.__cause__ is not None and error.entry.status >= 500:
            # The caller is told the reason only; what lies behind it is for the operator.
            _log.error("a part failed", code=error.reason, cause=repr(error.__cause__))
        return _refused(call, error)
    except OAuthError as error:
        call.code = error.code
        return oauth_status(call, error)
    except asyncio.CancelledError:
        call.code = Reason.CLIENT_CLOSED
        raise
    except grpc.aio.AbortError:
        raise
    except grpc.aio.InternalError as error:
        # The caller left before its answer, and nobody is there to be told.
        _log.debug("an answer could not be sent", cause=repr(error))
        call.code = Reason.CLIENT_CLOSED
        raise asyncio.CancelledError from None
    except Exception:
        _log.exception("unexpected exception", method=call.method.full_name)
        return _refused(call, ApiError(Reason.INTERNAL))
    return None


def _refused(call: Call, error: ApiError) -> Status:
    call.code = error.reason
    return status_of(error, call)
