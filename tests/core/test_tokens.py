from __future__ import annotations

import base64
import json

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.external_keys import JwksFile
from camserve_server.core.token_keys import PUBLISH_AHEAD_S, IssuerKeys
from camserve_server.core.tokens import TokenIssuer, TokenVerifier
from camserve_server.stores.keyring import KeyRing

ISSUER, AUDIENCE = "https://issuer.test", "camserve"


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def ring(tmp_path, clock):
    return KeyRing(tmp_path / "tokens.json", clock=clock)


@pytest.fixture
def keys(ring, clock):
    return IssuerKeys(ring, clock)


@pytest.fixture
def issuer(keys, clock):
    return TokenIssuer(keys, clock, issuer=ISSUER, audience=AUDIENCE, tenant_claim="tenant")


@pytest.fixture
def verifier(keys, clock):
    return TokenVerifier({ISSUER: keys}, clock, audience=AUDIENCE, tenant_claim="tenant")


def issue(issuer, **changes):
    options = {"tenant": "acme", "subject": "ann", "scopes": ("inference.read",), "ttl_s": 60}
    return issuer.issue(**(options | changes))


def signed(keys, clock, header=None, key=None, algorithm="ES256", **claims):
    primary = keys.primary()
    document = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "ann",
        "exp": clock.now() + 60,
        "tenant": "acme",
        "scope": "inference.read",
    } | claims
    document = {name: value for name, value in document.items() if value is not None}
    # Below jwt.encode, which refuses to make some of the tokens that are tried here.
    payload = json.dumps(document).encode()
    return jwt.api_jws.encode(
        payload, primary.private_key if key is None else key, algorithm, {"kid": primary.kid} | (header or {})
    )


async def refusal(verifier, token, scheme="Bearer"):
    with pytest.raises(ApiError) as caught:
        await verifier.verify(f"{scheme} {token}")
    return caught.value.reason


async def test_an_issued_token_names_tenant_subject_and_scopes(issuer, verifier):
    identity = await verifier.verify("Bearer " + issue(issuer, scopes=("inference.read", "inference.write")))
    assert (identity.tenant, identity.subject) == ("acme", "ann")
    assert identity.scopes == {"inference.read", "inference.write"}


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic YTpi"])
async def test_without_a_bearer_token_the_token_is_missing(verifier, header):
    with pytest.raises(ApiError) as caught:
        await verifier.verify(header)
    assert caught.value.reason is Reason.AUTH_MISSING_TOKEN


async def test_a_token_ends_ten_seconds_after_its_expiry(issuer, verifier, clock):
    token = issue(issuer, ttl_s=60)
    clock.time += 69
    assert (await verifier.verify(f"Bearer {token}")).tenant == "acme"
    clock.time += 2
    assert await refusal(verifier, token) is Reason.AUTH_TOKEN_EXPIRED


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another"},
        {"aud": None},
        {"iss": "https://another.test"},
        {"iss": None},
        {"iss": ["https://issuer.test"]},
        {"sub": None},
        {"exp": None},
        {"exp": "soon"},
        {"exp": True},
        {"exp": float("nan")},
        {"exp": float("inf")},
        {"exp": 10**400},
        {"nbf": 10**400},
        {"iat": 10**400},
        {"exp": 1_800_000_000 + 86_400 + 60},
        {"nbf": 1_800_000_000 + 60},
        {"tenant": None},
        {"tenant": ""},
        {"tenant": "a/b"},
        {"tenant": "{acme}"},
        {"tenant": 7},
        {"scope": 7},
        {"scope": ["ok", 7]},
    ],
)
async def test_claims_that_are_wrong_or_missing_are_refused(verifier, keys, clock, claims):
    assert await refusal(verifier, signed(keys, clock, **claims)) is Reason.AUTH_INVALID_TOKEN


async def test_scopes_may_come_as_a_list_in_scp(verifier, keys, clock):
    token = signed(keys, clock, scope=None, scp=["inference.read"])
    assert (await verifier.verify(f"Bearer {token}")).scopes == {"inference.read"}


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"kid": "00000000"}, {"kid": "../x"}])
async def test_headers_that_are_not_understood_are_refused(verifier, keys, clock, header):
    assert await refusal(verifier, signed(keys, clock, header)) is Reason.AUTH_INVALID_TOKEN


async def test_algorithms_outside_the_list_are_refused(verifier, keys, clock):
    public = keys.public_jwks()[0]["x"].encode()
    assert await refusal(verifier, signed(keys, clock, key=public, algorithm="HS256")) is Reason.AUTH_INVALID_TOKEN
    assert await refusal(verifier, signed(keys, clock, key="", algorithm="none")) is Reason.AUTH_INVALID_TOKEN


async def test_another_key_with_the_same_kid_is_refused(verifier, keys, clock):
    forged = ec.generate_private_key(ec.SECP256R1())
    assert await refusal(verifier, signed(keys, clock, key=forged)) is Reason.AUTH_INVALID_TOKEN


@pytest.mark.parametrize("token", ["x", "a.b", "a.b.c", "....", "é", "e30.e30.", base64.b64encode(b"{}").decode()])
async def test_what_is_no_token_is_refused(verifier, token):
    assert await refusal(verifier, token) is Reason.AUTH_INVALID_TOKEN


async def test_a_rotated_key_signs_only_after_every_verifier_could_fetch_it(ring, keys, issuer, verifier, clock):
    clock.time += PUBLISH_AHEAD_S + 1
    before = issue(issuer)
    new = ring.rotate()
    assert keys.primary().kid != new
    assert new in {key["kid"] for key in keys.public_jwks()}
    clock.time += PUBLISH_AHEAD_S + 1
    assert keys.primary().kid == new
    assert (await verifier.verify("Bearer " + issue(issuer))).tenant == "acme"
    assert await refusal(verifier, before) is Reason.AUTH_TOKEN_EXPIRED


async def test_an_external_issuer_is_trusted_with_its_own_keys_only(tmp_path, keys, clock):
    foreign = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(foreign.public_key(), as_dict=True) | {"kid": "f1"}
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk]}))
    issuers = {ISSUER: keys, "https://foreign.test": JwksFile(tmp_path / "jwks.json")}
    verifier = TokenVerifier(issuers, clock, audience=AUDIENCE, tenant_claim="tenant")
    mine = {"key": foreign, "algorithm": "RS256", "header": {"kid": "f1"}}
    token = signed(keys, clock, iss="https://foreign.test", **mine)
    assert (await verifier.verify(f"Bearer {token}")).tenant == "acme"
    assert await refusal(verifier, signed(keys, clock, iss=ISSUER, **mine)) is Reason.AUTH_INVALID_TOKEN


@pytest.mark.parametrize("changes", [{"tenant": ""}, {"tenant": "a b"}, {"ttl_s": 0}, {"ttl_s": 86_401}])
def test_the_issuer_makes_no_token_that_would_be_refused(issuer, changes):
    with pytest.raises(ValueError, match=r"tenant|token lives"):
        issue(issuer, **changes)


async def test_a_claim_that_is_there_twice_is_refused(verifier, keys, clock):
    payload = json.dumps({"iss": ISSUER, "aud": AUDIENCE, "sub": "a", "exp": clock.now() + 60, "scope": ""})[:-1]
    payload += ', "tenant": "acme", "tenant": "victim"}'
    primary = keys.primary()
    token = jwt.api_jws.encode(payload.encode(), primary.private_key, "ES256", {"kid": primary.kid})
    assert await refusal(verifier, token) is Reason.AUTH_INVALID_TOKEN


async def test_a_payload_nested_without_end_is_refused(verifier, keys, clock):
    deep = "[" * 5000 + "]" * 5000
    primary = keys.primary()
    payload = f'{{"iss": "{ISSUER}", "x": {deep}}}'.encode()
    token = jwt.api_jws.encode(payload, primary.private_key, "ES256", {"kid": primary.kid})
    assert await refusal(verifier, token) is Reason.AUTH_INVALID_TOKEN
