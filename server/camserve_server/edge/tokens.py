"""Whose tokens the edge takes, and where it finds the keys."""

from __future__ import annotations

from typing import Any

from camserve_server.core.tokens import ALGORITHMS, MOST_CHARACTERS, TYPES
from camserve_server.edge import keys_address
from camserve_server.edge.settings import EdgeSettings, duration

Node = dict[str, Any]

KEYS_PATH = "/.well-known/jwks.json"
# Under that name the token filter leaves the claims of a verified token.
METADATA = "token"


def providers(settings: EdgeSettings) -> Node:
    """Returns the providers of the token filter by name; the server verifies every token again."""
    built_in = {
        **_common(settings, settings.issuer, settings.audience),
        "remote_jwks": {
            "http_uri": {"uri": f"http://keys.camserve.internal{KEYS_PATH}", "cluster": "keys", "timeout": "2s"},
            "cache_duration": "60s",
            # Fetched ahead of need, and a replica that starts later does not hold the listener back.
            "async_fetch": {"fast_listener": True, "failed_refetch_duration": "0.2s"},
        },
    }
    found: Node = {"built_in": built_in}
    external = settings.external_issuer
    if external is not None:
        found["external"] = {
            **_common(settings, external.issuer, external.audience),
            **keys_address.source(external),
        }
    return found


def form() -> Node:
    """Returns what token.lua asks of a token."""
    return {
        "most_characters": MOST_CHARACTERS,
        "algorithms": dict.fromkeys(ALGORITHMS, True),
        "types": dict.fromkeys(TYPES, True),
    }


def requirement(settings: EdgeSettings) -> Node:
    """Returns what the catch-all rule asks for: a valid token of any provider."""
    names = [{"provider_name": name} for name in providers(settings)]
    return names[0] if len(names) == 1 else {"requires_any": {"requirements": names}}


def _common(settings: EdgeSettings, issuer: str, audience: str) -> Node:
    return {
        "issuer": issuer,
        "audiences": [audience],
        "require_expiration": True,
        "max_lifetime": duration(settings.max_token_lifetime_s),
        "clock_skew_seconds": settings.clock_skew_s,
        # Naming a header switches off the defaults, which also read `?access_token=`.
        # The name of a scheme has no case, but Envoy compares it with one.
        "from_headers": [{"name": "authorization", "value_prefix": prefix} for prefix in ("Bearer ", "bearer ")],
        "forward": True,
        "payload_in_metadata": METADATA,
        # Saves the signature of a token seen before; its times are checked again, new keys empty the cache.
        "jwt_cache_config": {"jwt_cache_size": 1000, "jwt_max_token_size": 4096},
    }
