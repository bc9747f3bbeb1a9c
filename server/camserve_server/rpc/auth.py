"""AuthService: tokens for client credentials, and the keys that verify them."""

from __future__ import annotations

from camserve.v1 import auth_pb2 as pb
from camserve_server.core.oauth import Grant, OAuthError, TokenEndpoint, parse_grant, with_basic
from camserve_server.core.tokens import VerificationKeys
from camserve_server.rpc.call import Call


class AuthServicer:
    """Issues tokens and publishes keys."""

    def __init__(self, endpoint: TokenEndpoint, keys: VerificationKeys) -> None:
        self._endpoint = endpoint
        self._keys = keys

    async def issue_token(self, call: Call, request: pb.IssueTokenRequest) -> pb.IssueTokenResponse:
        """Exchanges client credentials for a token."""
        issued = await self._endpoint.exchange(_grant(call, request))
        call.headers |= {"cache-control": "no-store", "pragma": "no-cache"}
        return pb.IssueTokenResponse(
            access_token=issued.access_token,
            token_type="Bearer",
            expires_in=issued.expires_in_s,
            scope=issued.scope,
        )

    async def get_jwks(self, call: Call, request: pb.GetJwksRequest) -> pb.GetJwksResponse:
        """Returns the public keys."""
        call.headers["cache-control"] = "public, max-age=60"
        return pb.GetJwksResponse(keys=[pb.Jwk(**key) for key in self._keys.public_jwks()])


def _grant(call: Call, request: pb.IssueTokenRequest) -> Grant:
    authorization = call.metadata.get("authorization")
    if not call.rest:
        grant = Grant(request.grant_type, request.client_id, request.client_secret, request.scope)
        return with_basic(grant, authorization)
    if call.query:
        # The transcoder would bind client_secret from the query, where proxies log it.
        raise OAuthError("invalid_request", "Parameters belong in the body.")
    return parse_grant(request.body.data, authorization)
