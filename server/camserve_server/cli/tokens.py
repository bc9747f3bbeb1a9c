"""Tokens from the command line."""

from __future__ import annotations

import re

from camserve_server.base.clock import SystemClock
from camserve_server.base.config import Settings
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.core.tokens import TokenIssuer
from camserve_server.stores.keyring import KeyRing

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def issuer(settings: Settings) -> TokenIssuer:
    """Returns the built-in issuer, which needs the data directory only."""
    clock = SystemClock()
    keys = IssuerKeys(KeyRing(settings.data_dir / "keys" / "tokens.json", clock=clock), clock)
    return TokenIssuer(
        keys,
        clock,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenant_claim=settings.jwt_tenant_claim,
    )


def seconds(duration: str) -> int:
    """Returns the seconds of `90s`, `15m`, `1h`, `1d` or a bare number; raises ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", duration.strip())
    if not match:
        raise ValueError("a duration is a number with s, m, h or d, for example 1h")
    return int(match[1]) * _UNITS_S[match[2] or "s"]
