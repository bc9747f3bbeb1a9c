"""Verifies the token and compares its scopes with the method's policy."""

from __future__ import annotations

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.tokens import TokenVerifier
from camserve_server.rpc.call import Call, Interceptor, Proceed


def auth(verifier: TokenVerifier) -> Interceptor:
    """Returns the link that finds out who calls; public methods pass as they are."""

    async def check(call: Call, proceed: Proceed) -> None:
        if not call.policy.public:
            call.caller = await verifier.verify(call.metadata.get("authorization"))
        await proceed()

    return check


async def scopes(call: Call, proceed: Proceed) -> None:
    """Lets a call pass only with the scopes of its method; public methods pass as they are."""
    missing = call.policy.scopes - call.identity.scopes if call.policy.scopes else ()
    if missing:
        raise ApiError(Reason.AUTH_SCOPE_INSUFFICIENT, required=" ".join(sorted(missing)))
    await proceed()
