"""Tokens from the command line."""

from __future__ import annotations

import re
from pathlib import Path

from camserve_server.base.clock import SystemClock
from camserve_server.base.config import Settings
from camserve_server.core.token_keys import IssuerKeys
from camserve_server.core.tokens import SCOPES, TokenIssuer
from camserve_server.stores.keyring import KeyRing

_ADMIN = "admin"
_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def issuer(settings: Settings) -> TokenIssuer:
    """Returns the built-in issuer, which needs the data directory only."""
    clock = SystemClock()
    keys = IssuerKeys(KeyRing(_keys_file(settings), clock=clock), clock)
    return TokenIssuer(
        keys,
        clock,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        tenant_claim=settings.jwt_tenant_claim,
    )


def has_keys(settings: Settings) -> bool:
    """Returns whether tokens were signed in the data directory before."""
    return _keys_file(settings).exists()


def scopes_of(given: list[str] | None) -> tuple[str, ...]:
    """Returns the scopes that options name, all but `admin` for None; raises ValueError for one that there is not."""
    if given is None:
        return SCOPES
    scopes = tuple(name for each in given for name in each.split())
    if unknown := [name for name in scopes if name not in (*SCOPES, _ADMIN)]:
        raise ValueError(f"there is no scope {unknown[0]}: there are {', '.join(SCOPES)} and {_ADMIN}")
    return scopes


def _keys_file(settings: Settings) -> Path:
    return settings.data_dir / "keys" / "tokens.json"


def seconds(duration: str) -> int:
    """Returns the seconds of `90s`, `15m`, `1h`, `1d` or a bare number; raises ValueError for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd]?)", duration.strip())
    if not match:
        raise ValueError("a duration is a number with s, m, h or d, for example 1h")
    return int(match[1]) * _UNITS_S[match[2] or "s"]
