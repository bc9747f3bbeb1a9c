"""Public keys of an external issuer: from a file, or fetched from the address at which it publishes them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import jwt
import structlog

from camserve_server.base.clock import Clock
from camserve_server.base.errors import ApiError, Reason
from camserve_server.base.tasks import ended
from camserve_server.base.telemetry import JWKS_FETCHES
from camserve_server.core.tokens import ALGORITHMS

# A key that no one has yet is asked for at most this often, or strangers could have us fetch without end.
SEEK_FLOOR_S = 10.0
_FIRST_PAUSE_S = 1.0
_MOST_KEYS = 100
_LEAST_RSA_BITS = 2048
_BY_TYPE = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
# Never the private ones, which a file may hold by mistake.
_PUBLIC = ("kty", "kid", "n", "e", "crv", "x", "y")

_log = structlog.get_logger("keys")


class JwksFile:
    """Keys of a file, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Raises ValueError when the file has no usable key."""
        self._path = path
        self._stamp: tuple[int, int] | None = None
        self._keys: list[dict[str, str]] = []
        self.public_jwks()

    def public_jwks(self) -> list[dict[str, str]]:
        """Returns the usable keys; those from before while the file cannot be read."""
        try:
            status = self._path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._keys = usable_keys(self._path.read_bytes())
                self._stamp = stamp
        except (OSError, ValueError):
            if self._stamp is None:
                raise ValueError("the JWKS file has no usable key") from None
        return self._keys

    async def seek(self) -> None:
        """Does nothing: a changed file is noticed at once."""


class FetchedKeys:
    """Keys that are fetched in the background, every `refresh_s`, and at once when a token names one that is missing.

    A fetch that fails keeps the keys from before.
    """

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], clock: Clock, *, refresh_s: float) -> None:
        self._fetch = fetch
        self._clock = clock
        self._refresh_s = refresh_s
        self._keys: list[dict[str, str]] = []
        self._sought_at = -math.inf
        self._flight: asyncio.Task[bool] | None = None
        self._keeping: asyncio.Task[None] | None = None

    def public_jwks(self) -> list[dict[str, str]]:
        """Returns the usable keys, the same list until they change; empty before the first fetch."""
        return self._keys

    async def seek(self) -> None:
        """Fetches for a key that is missing, once for all who wait; raises ApiError(STORE_UNAVAILABLE) without any."""
        now = self._clock.monotonic()
        if self._flight is not None or now >= self._sought_at + SEEK_FLOOR_S:
            if self._flight is None:
                self._sought_at = now
            await self._fetched()
        if not self._keys:
            raise ApiError(Reason.STORE_UNAVAILABLE, "The issuer's keys cannot be fetched.")

    def start(self) -> None:
        """Begins to fetch."""
        self._keeping = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Ends it."""
        await ended(task for task in (self._keeping, self._flight) if task)

    async def _keep(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            if await self._fetched():
                pause_s = _FIRST_PAUSE_S
                await asyncio.sleep(self._refresh_s)
            else:
                await asyncio.sleep(min(pause_s, self._refresh_s))
                pause_s *= 2

    async def _fetched(self) -> bool:
        if self._flight is None:
            self._flight = asyncio.create_task(self._fetch_once())
        # A caller who leaves does not end what others wait for.
        return await asyncio.shield(self._flight)

    async def _fetch_once(self) -> bool:
        try:
            keys = usable_keys(await self._fetch())
        except Exception as error:
            JWKS_FETCHES.labels("failed").inc()
            _log.warning("the external issuer's keys could not be fetched", cause=repr(error))
            return False
        finally:
            self._flight = None
        JWKS_FETCHES.labels("fetched").inc()
        if keys != self._keys:
            self._keys = keys
            _log.info("the external issuer's keys are new", keys=len(keys))
        return True


def usable_keys(document: bytes) -> list[dict[str, str]]:
    """Returns those keys of a JSON Web Key Set that may verify tokens, each with its algorithm.

    Raises ValueError when there is none.
    """
    try:
        entries = json.loads(document.decode())["keys"][:_MOST_KEYS]
        keys = [key for entry in entries if (key := _usable(entry))]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ValueError("the document is no key set") from None
    if not keys:
        raise ValueError("the document has no usable key")
    return keys


def _usable(entry: Any) -> dict[str, str] | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    public = {name: entry[name] for name in _PUBLIC if name in entry}
    if not all(isinstance(value, str) for value in public.values()):
        return None
    # One key is for one algorithm (RFC 8725 section 3.1), named or told by its type.
    algorithm = _BY_TYPE.get((public.get("kty", ""), public.get("crv")))
    if algorithm not in ALGORITHMS or entry.get("alg", algorithm) != algorithm:
        return None
    with contextlib.suppress(jwt.PyJWTError, ValueError, TypeError):
        key = jwt.PyJWK.from_dict({**public, "alg": algorithm}).key
        if algorithm != "RS256" or key.key_size >= _LEAST_RSA_BITS:
            return {**public, "use": "sig", "alg": algorithm}
    return None
