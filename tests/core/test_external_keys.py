from __future__ import annotations

import asyncio
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from tests.clock import FakeClock
from tests.jwks_server import ISSUER, JwksServer

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.external_keys import SEEK_FLOOR_S, FetchedKeys, JwksFile, usable_keys
from camserve_server.core.tokens import TokenVerifier


def rsa_jwk(bits, **members):
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    return jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | members


def ec_jwk(curve=None, **members):
    key = ec.generate_private_key(curve or ec.SECP256R1())
    return jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True) | members


def okp_jwk(**members):
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return jwt.algorithms.OKPAlgorithm.to_jwk(public, as_dict=True) | members


def document(*keys):
    return json.dumps({"keys": keys}).encode()


@pytest.mark.parametrize(
    ("jwk", "algorithm"),
    [
        (rsa_jwk(2048), "RS256"),
        (rsa_jwk(2048, alg="RS256", use="sig"), "RS256"),
        (ec_jwk(kid="k"), "ES256"),
        (okp_jwk(key_ops=["verify"]), "EdDSA"),
    ],
)
def test_keys_of_the_algorithms_that_are_allowed_count(jwk, algorithm):
    (key,) = usable_keys(document(jwk))
    assert (key["alg"], key.get("kid")) == (algorithm, jwk.get("kid"))


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize(
    "jwk",
    [
        rsa_jwk(1024),
        rsa_jwk(2048, alg="RS512"),
        rsa_jwk(2048, alg="PS256"),
        rsa_jwk(2048, alg="none"),
        rsa_jwk(2048, alg=["RS256"]),
        rsa_jwk(2048, use="enc"),
        rsa_jwk(2048, kid=7),
        ec_jwk(ec.SECP384R1()),
        ec_jwk(ec.SECP256K1(), alg="ES256"),
        ec_jwk(x="AA"),
        okp_jwk(alg="ES256"),
        okp_jwk(key_ops=["sign"]),
        okp_jwk(key_ops="verify"),
        okp_jwk(x="AA"),
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"},
        {},
        "key",
        None,
    ],
)
def test_other_keys_do_not_count_and_do_no_harm_to_those_beside_them(jwk):
    with pytest.raises(ValueError, match="no usable key"):
        usable_keys(document(jwk))
    assert [key["kid"] for key in usable_keys(document(jwk, ec_jwk(kid="good")))] == ["good"]


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'{"keys": 1}', b'{"keys": {}}', b"[" * 100_000])
def test_what_is_no_key_set_is_refused(data):
    with pytest.raises(ValueError, match=r"no key set|no usable key"):
        usable_keys(data)


def test_private_halves_are_left_behind():
    key = ec.generate_private_key(ec.SECP256R1())
    (kept,) = usable_keys(document(jwt.algorithms.ECAlgorithm.to_jwk(key, as_dict=True)))
    assert "d" not in kept


def test_a_file_counts_from_its_change_on_and_keeps_its_keys_while_it_is_broken(tmp_path):
    path = tmp_path / "jwks.json"
    path.write_bytes(document(ec_jwk(kid="a")))
    keys = JwksFile(path)
    path.write_bytes(document(ec_jwk(kid="b"), okp_jwk(kid="c")))
    assert [key["kid"] for key in keys.public_jwks()] == ["b", "c"]
    path.write_bytes(b"{")
    assert [key["kid"] for key in keys.public_jwks()] == ["b", "c"]


def test_a_file_without_a_usable_key_stops_the_start(tmp_path):
    (tmp_path / "jwks.json").write_bytes(document({"kty": "oct", "k": "AA"}))
    with pytest.raises(ValueError, match="no usable key"):
        JwksFile(tmp_path / "jwks.json")


class Issuer(JwksServer):
    """An issuer that is asked without a network, and may be away or slow."""

    def __init__(self):
        super().__init__("")
        self.away = False
        self.open = asyncio.Event()
        self.open.set()
        self.came = asyncio.Condition()

    async def fetch(self):
        self.asked += 1
        async with self.came:
            self.came.notify_all()
        await self.open.wait()
        if self.away:
            raise OSError("away")
        return self.document()

    async def asked_times(self, count):
        async with self.came:
            await self.came.wait_for(lambda: self.asked >= count)


@pytest.fixture
async def issuer():
    return Issuer()


@pytest.fixture
def clock():
    return FakeClock(time.time())  # of which the tokens are


@pytest.fixture
async def keys(issuer, clock):
    keys = FetchedKeys(issuer.fetch, clock, refresh_s=3600)
    yield keys
    await keys.close()


@pytest.fixture
def verify(keys, clock):
    verifier = TokenVerifier({ISSUER: keys}, clock, audience="camserve", tenant_claim="tenant")

    async def verify(token):
        try:
            return (await verifier.verify(f"Bearer {token}")).tenant
        except ApiError as error:
            return error.reason

    return verify


async def test_a_key_is_fetched_when_a_token_names_it(issuer, verify, clock):
    assert await verify(issuer.token()) == "acme"
    old = issuer.token()
    clock.advance(SEEK_FLOOR_S)
    issuer.rotate("p2")
    assert await verify(issuer.token()) == "acme"
    assert issuer.asked == 2
    # The issuer no longer publishes it.
    assert await verify(old) is Reason.AUTH_INVALID_TOKEN


async def test_names_of_keys_that_nobody_has_cause_few_fetches(issuer, verify, clock):
    assert await verify(issuer.token()) == "acme"
    for number in range(50):
        forged = JwksServer("", kid=f"x{number}").token()
        assert await verify(forged) is Reason.AUTH_INVALID_TOKEN
    assert issuer.asked == 1
    clock.advance(SEEK_FLOOR_S)
    assert await verify(forged) is Reason.AUTH_INVALID_TOKEN
    assert issuer.asked == 2


async def test_all_who_wait_for_a_key_wait_for_one_fetch(issuer, verify):
    issuer.open.clear()
    waiting = [asyncio.create_task(verify(issuer.token(sub=f"s{number}"))) for number in range(20)]
    await issuer.asked_times(1)
    waiting.pop().cancel()  # who leaves does not end it for the others
    issuer.open.set()
    assert await asyncio.gather(*waiting) == ["acme"] * 19
    assert issuer.asked == 1


async def test_before_the_first_keys_came_a_token_can_be_neither_right_nor_wrong(issuer, verify, clock):
    issuer.away = True
    assert await verify(issuer.token()) is Reason.STORE_UNAVAILABLE
    assert await verify(issuer.token(sub="t")) is Reason.STORE_UNAVAILABLE
    assert issuer.asked == 1
    issuer.away = False
    clock.advance(SEEK_FLOOR_S)
    assert await verify(issuer.token()) == "acme"


async def test_a_fetch_that_fails_keeps_the_keys(issuer, verify, clock):
    assert await verify(issuer.token()) == "acme"
    issuer.away = True
    clock.advance(SEEK_FLOOR_S)
    assert await verify(JwksServer("", kid="x").token()) is Reason.AUTH_INVALID_TOKEN
    assert issuer.asked == 2
    assert await verify(issuer.token(sub="t")) == "acme"


async def test_keys_are_fetched_at_the_start_and_again_and_again(issuer, clock):
    keys = FetchedKeys(issuer.fetch, clock, refresh_s=0.01)
    keys.start()
    await issuer.asked_times(2)
    issuer.away = True
    await issuer.asked_times(issuer.asked + 2)
    assert [key["kid"] for key in keys.public_jwks()] == ["p1"]
    issuer.away = False
    issuer.rotate("p2")
    await issuer.asked_times(issuer.asked + 2)
    assert [key["kid"] for key in keys.public_jwks()] == ["p2"]
    await keys.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_same_keys_again_do_not_forget_who_was_verified(issuer, keys):
    await keys.seek()
    before = keys.public_jwks()
    keys.start()
    await issuer.asked_times(2)
    await keys.close()
    assert keys.public_jwks() is before


async def test_another_issuer_waits_for_nobody(issuer, keys, clock):
    other = JwksServer("")

    class Known:
        def public_jwks(self):
            return found

        async def seek(self):
            raise AssertionError

    found = usable_keys(other.document())
    verifier = TokenVerifier(
        {ISSUER: keys, "https://own.test": Known()}, clock, audience="camserve", tenant_claim="tenant"
    )
    issuer.open.clear()
    identity = await verifier.verify("Bearer " + other.token(iss="https://own.test"))
    assert (identity.tenant, issuer.asked) == ("acme", 0)
