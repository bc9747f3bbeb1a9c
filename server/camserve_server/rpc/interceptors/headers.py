"""Sends the headers of an answer that is one message."""

from __future__ import annotations

from camserve_server.rpc.call import Call, Proceed


async def headers(call: Call, proceed: Proceed) -> None:
    """Sends them once the answer stands: an error after them would not reach a REST caller whole."""
    await proceed()
    if not call.method.server_streaming:
        await call.send_headers()
