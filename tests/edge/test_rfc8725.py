"""The edge's half of the best current practices for JSON Web Tokens; the server's is tests/core/test_rfc8725.py."""

from __future__ import annotations

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from tests.edge.conftest import Edge
from tests.edge.wire import check_error
from tests.tokens import Signer, fine, hostile, server_only

from camserve_server.base.errors import Reason

_SAMPLE = Signer(ec.generate_private_key(ec.SECP256R1()), "k1", {"aud": "camserve"})


@pytest.fixture
def signer(edge: Edge) -> Signer:
    return Signer(edge.replica.key, "k1", edge.claims())


@pytest.mark.parametrize("wrong", hostile(_SAMPLE))
def test_the_edge_refuses(edge: Edge, stranger: httpx.Client, signer: Signer, wrong: str) -> None:
    answer = stranger.get("/v1/models", headers={"authorization": f"Bearer {hostile(signer)[wrong]}"})
    check_error(answer, Reason.AUTH_INVALID_TOKEN)
    assert not edge.replica.received


@pytest.mark.parametrize("odd", fine(_SAMPLE) | server_only(_SAMPLE))
def test_the_edge_takes(stranger: httpx.Client, signer: Signer, odd: str) -> None:
    token = (fine(signer) | server_only(signer))[odd]
    assert stranger.get("/v1/models", headers={"authorization": f"Bearer {token}"}).status_code == 200


def test_a_token_of_no_form_does_not_close_what_is_public(stranger: httpx.Client) -> None:
    headers = {"authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}
    assert stranger.get("/.well-known/jwks.json", headers=headers).status_code == 200
