from __future__ import annotations

import base64

import pytest

from camserve_server.core.oauth import Grant, OAuthError, parse_grant, with_basic


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def test_a_form_is_a_grant():
    form = b"grant_type=client_credentials&client_id=c&client_secret=s%2B1&scope=a+b"
    assert parse_grant(form, None) == Grant("client_credentials", "c", "s+1", "a b")


def test_basic_credentials_fill_the_grant():
    grant = parse_grant(b"grant_type=client_credentials", basic("c%3A1:s"))
    assert (grant.client_id, grant.client_secret) == ("c:1", "s")


@pytest.mark.parametrize("form", [b"\xff", b"grant_type", b"a=1&a=2", b"&".join(b"f%d=1" % i for i in range(20))])
def test_what_is_no_form_is_refused(form):
    with pytest.raises(OAuthError) as caught:
        parse_grant(form, None)
    assert (caught.value.code, caught.value.status) == ("invalid_request", 400)


@pytest.mark.parametrize("header", ["Basic !", "Basic", basic("no colon")])
def test_unreadable_basic_credentials_are_refused(header):
    with pytest.raises(OAuthError) as caught:
        with_basic(Grant("client_credentials", "", "", ""), header)
    assert (caught.value.code, caught.value.status) == ("invalid_client", 401)


def test_credentials_given_twice_are_refused():
    with pytest.raises(OAuthError) as caught:
        with_basic(Grant("client_credentials", "c", "s", ""), basic("c:s"))
    assert caught.value.code == "invalid_request"
