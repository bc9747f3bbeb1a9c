"""The address at which an issuer publishes its keys.

The operator names it, so it may lie in a private network, which the guarded client never enters.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import aiohttp

from camserve_server.outbound.client import FetchError
from camserve_server.outbound.connector import CappedConnector

TIMEOUT_S = 5.0
MOST_BYTES = 256 * 1024
_HEADERS = {"accept": "application/json", "accept-encoding": "identity", "user-agent": "camserve"}


class JwksAddress:
    """One address and the authorities that vouch for it, by default the system's."""

    def __init__(self, url: str, ca_file: Path | None = None) -> None:
        """Raises OSError when there is no such file of authorities."""
        self._url = url
        self._tls = ssl.create_default_context(cafile=ca_file)

    async def fetch(self) -> bytes:
        """Returns what is there. Raises FetchError for a redirect, an error and more bytes than keys have."""
        connector = CappedConnector(ssl=self._tls, force_close=True)
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    trust_env=False,
                    auto_decompress=False,
                ) as session,
                session.get(self._url, allow_redirects=False, headers=_HEADERS) as response,
            ):
                if response.status != 200 or response.headers.get("content-encoding", "identity").lower() != "identity":
                    raise FetchError(f"answered with status {response.status}")
                body = bytearray()
                async for chunk in response.content.iter_any():
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise FetchError(f"answered with more than {MOST_BYTES} bytes")
                return bytes(body)
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise FetchError(repr(error)) from error
