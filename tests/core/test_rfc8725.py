"""The server's half of the best current practices for JSON Web Tokens; the edge's is tests/edge/test_rfc8725.py."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.clock import FakeClock
from tests.tokens import Signer, fine, hostile, server_only

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.core.tokens import TokenVerifier
from camserve_server.stores.keyring import KeyRing

ISSUER = "https://issuer.test"
CLAIMS = {"iss": ISSUER, "aud": "camserve", "sub": "ann", "exp": 1_800_000_060, "tenant": "acme", "scope": ""}
_SAMPLE = Signer(ec.generate_private_key(ec.SECP256R1()), "k1", CLAIMS)


@pytest.fixture
def keys(tmp_path):
    clock = FakeClock()
    return IssuerKeys(KeyRing(tmp_path / "tokens.json", clock=clock), clock)


@pytest.fixture
def signer(keys):
    return Signer(keys.primary().private_key, keys.primary().kid, CLAIMS)


@pytest.fixture
def verifier(keys):
    return TokenVerifier({ISSUER: keys}, FakeClock(), audience="camserve", tenant_claim="tenant")


@pytest.mark.parametrize("wrong", hostile(_SAMPLE) | server_only(_SAMPLE))
async def test_the_server_refuses(verifier, signer, wrong):
    token = (hostile(signer) | server_only(signer))[wrong]
    with pytest.raises(ApiError) as caught:
        await verifier.verify(f"Bearer {token}")
    assert caught.value.reason is Reason.AUTH_INVALID_TOKEN


@pytest.mark.parametrize("right", fine(_SAMPLE))
async def test_the_server_takes(verifier, signer, right):
    assert (await verifier.verify(f"Bearer {fine(signer)[right]}")).tenant == "acme"
