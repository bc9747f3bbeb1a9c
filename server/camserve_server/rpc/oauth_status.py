"""Refusals of the token endpoint: RFC 6749 bodies over REST, canonical codes over gRPC."""

from __future__ import annotations

import grpc
import orjson

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.oauth import OAuthError
from camserve_server.rpc.call import Call
from camserve_server.rpc.status import Status, status_of


def oauth_status(call: Call, error: OAuthError) -> Status:
    """Returns what a call ends with because of `error`."""
    unknown = error.status == 401
    message = f"{error.code}: {error.description}"
    if not call.rest:
        known = ApiError(Reason.AUTH_INVALID_TOKEN if unknown else Reason.PARAM_INVALID, message)
        return status_of(known, call)
    body = orjson.dumps({"error": error.code, "error_description": error.description})
    trailers = [("x-http-status", str(error.status)), ("x-error-json", body.decode())]
    if unknown:
        trailers.append(("www-authenticate", 'Basic realm="camserve"'))
    code = grpc.StatusCode.UNAUTHENTICATED if unknown else grpc.StatusCode.INVALID_ARGUMENT
    return Status(code, message, tuple(trailers))
