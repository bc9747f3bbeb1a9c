"""Names of keys."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from camserve_server.stores import keys

NAMES = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(["a}b", "{a}", "a:b", "a}:oauth_clients"])


@given(NAMES)
def test_hash_tag_is_the_whole_tenant(tenant: str) -> None:
    key = keys.oauth_clients(tenant)
    assert re.fullmatch(r"camserve:\{[^{}:]*\}:oauth_clients", key)


@given(NAMES, NAMES)
def test_two_tenants_never_share_a_key(one: str, other: str) -> None:
    assert (keys.oauth_clients(one) == keys.oauth_clients(other)) == (one == other)
    assert keys.oauth_clients(one) != keys.oauth_client(other)
