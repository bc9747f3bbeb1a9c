"""Tokens of links: whoever alters one, or uses it elsewhere or later, is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.clock import FakeClock

from camserve_server.base.errors import ApiError, Reason
from camserve_server.core.signing import MAX_TENANT_BYTES, UrlSigner
from camserve_server.stores.keyring import KeyRing

OBJECT = "obj_" + "a" * 27
NOW = 1_800_000_000.0
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "urls.json"


@pytest.fixture
def signer(path: Path, clock: FakeClock) -> UrlSigner:
    return UrlSigner(KeyRing(path, clock=clock))


def refusal(signer: UrlSigner, token: str, *, object_id: str = OBJECT, now: float = NOW) -> Reason:
    with pytest.raises(ApiError) as caught:
        signer.verify(object_id, token, now)
    return caught.value.reason


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=MAX_TENANT_BYTES // 4), st.floats(NOW + 1, 1e12))
def test_token_gives_back_its_tenant(signer: UrlSigner, tenant: str, expires_at: float) -> None:
    token = signer.sign(tenant, OBJECT, expires_at)
    assert signer.verify(OBJECT, token, NOW) == tenant
    assert re.fullmatch(r"[0-9A-Za-z_-]{24,200}", token)


def test_longest_tenant_fits_and_a_longer_one_is_refused(signer: UrlSigner) -> None:
    assert len(signer.sign("t" * MAX_TENANT_BYTES, OBJECT, NOW)) <= 200
    with pytest.raises(ValueError, match="too long"):
        signer.sign("t" * (MAX_TENANT_BYTES + 1), OBJECT, NOW)


def test_token_expires_exactly(signer: UrlSigner) -> None:
    token = signer.sign("acme", OBJECT, NOW + 10.5)
    assert signer.verify(OBJECT, token, NOW + 10.49) == "acme"
    assert refusal(signer, token, now=NOW + 10.5) is Reason.SIGNATURE_EXPIRED


def test_token_opens_no_other_object(signer: UrlSigner) -> None:
    token = signer.sign("acme", OBJECT, NOW + 10)
    for object_id in ("obj_" + "b" * 27, OBJECT[:-1], OBJECT + "a", "", "\ud800"):
        assert refusal(signer, token, object_id=object_id) is Reason.SIGNATURE_INVALID


def test_changing_any_character_is_a_forgery_even_when_expired(signer: UrlSigner) -> None:
    token = signer.sign("acme", OBJECT, NOW + 10)
    for index, character in enumerate(token):
        other = ALPHABET[(ALPHABET.index(character) + 1) % 64]
        forged = token[:index] + other + token[index + 1 :]
        assert refusal(signer, forged) is Reason.SIGNATURE_INVALID
        assert refusal(signer, forged, now=NOW + 99) is Reason.SIGNATURE_INVALID


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text() | st.text(ALPHABET, min_size=20, max_size=200))
def test_any_other_text_is_invalid(signer: UrlSigner, token: str) -> None:
    assert refusal(signer, token) is Reason.SIGNATURE_INVALID


def test_cut_extended_and_respelled_tokens_are_invalid(signer: UrlSigner) -> None:
    token = signer.sign("acme", OBJECT, NOW + 10)
    for other in (token[:-1], token + "A", token + "=", " " + token, token + "\n", token * 2, token[:30]):
        assert refusal(signer, other) is Reason.SIGNATURE_INVALID
    # The last character of this length has bits that carry nothing.
    assert len(token) % 4 == 2
    respelled = token[:-1] + ALPHABET[ALPHABET.index(token[-1]) ^ 1]
    assert refusal(signer, respelled) is Reason.SIGNATURE_INVALID


def test_token_shows_neither_tenant_nor_length_nor_expiry(signer: UrlSigner) -> None:
    short, longer = signer.sign("a", OBJECT, NOW + 10), signer.sign("acme", OBJECT, NOW + 20)
    assert len(short) == len(longer)
    # Version and key id are the same; nothing after them is.
    assert short[:6] == longer[:6]
    assert sum(a == b for a, b in zip(short[8:], longer[8:], strict=True)) < len(short) // 4


def test_tokens_outlive_a_rotation(path: Path, clock: FakeClock, signer: UrlSigner) -> None:
    old = signer.sign("acme", OBJECT, NOW + 10)
    KeyRing(path, clock=clock).rotate()
    clock.advance(1)
    new = signer.sign("acme", OBJECT, NOW + 10)
    assert old != new
    assert [signer.verify(OBJECT, token, NOW) for token in (old, new)] == ["acme", "acme"]


def test_tokens_of_other_purposes_and_other_rings_are_invalid(
    tmp_path: Path, path: Path, clock: FakeClock, signer: UrlSigner
) -> None:
    upload = UrlSigner(KeyRing(path, clock=clock), purpose="upload")
    stranger = UrlSigner(KeyRing(tmp_path / "other.json", clock=clock))
    for other in (upload, stranger):
        assert refusal(signer, other.sign("acme", OBJECT, NOW + 10)) is Reason.SIGNATURE_INVALID
