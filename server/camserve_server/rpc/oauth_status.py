"""Refusals of the token endpoint: RFC 6749 bodies over REST, canonical codes over gRPC."""

from __future__ import annotations

from typing import NoReturn

import grpc
import orjson

from camserve_server.core.oauth import OAuthError
from camserve_server.rpc.call import Call


async def abort_oauth(call: Call, error: OAuthError) -> NoReturn:
    """Ends the call with `error`."""
    trailers: tuple[tuple[str, str], ...] = (("request-id", call.request_id),)
    if call.rest:
        body = orjson.dumps({"error": error.code, "error_description": error.description})
        trailers = (("x-http-status", str(error.status)), ("x-error-json", body.decode()))
    if error.status == 401:
        trailers = (*trailers, ("www-authenticate", 'Basic realm="camserve"'))
    code = grpc.StatusCode.UNAUTHENTICATED if error.status == 401 else grpc.StatusCode.INVALID_ARGUMENT
    await call.context.abort(code, f"{error.code}: {error.description}", trailers)
