"""Turns every exception into a status; the only place that does."""

from __future__ import annotations

import asyncio
from typing import NoReturn

import grpc
import structlog

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.oauth import OAuthError
from camserve_server.rpc.call import Call, Proceed
from camserve_server.rpc.oauth_status import abort_oauth
from camserve_server.rpc.status import grpc_code, trailing_metadata

_log = structlog.get_logger("errors")


async def errors(call: Call, proceed: Proceed) -> None:
    """Ends the call with the status of what was raised; an unknown exception becomes `internal`."""
    try:
        await proceed()
    except ApiError as error:
        if error.__cause__ is not None and error.entry.status >= 500:
            # The caller is told the reason only; what lies behind it is for the operator.
            _log.error("a part failed", code=error.reason, cause=repr(error.__cause__))
        await _abort(call, error)
    except OAuthError as error:
        call.code = error.code
        await abort_oauth(call, error)
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
        await _abort(call, ApiError(Reason.INTERNAL))


async def _abort(call: Call, error: ApiError) -> NoReturn:
    call.code = error.reason
    trailers = trailing_metadata(error, call)
    await call.context.abort(grpc_code(error.entry), error.message, trailers)
