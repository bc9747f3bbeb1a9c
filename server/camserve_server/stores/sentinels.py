"""Sentinels that know which server is the primary now."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio.connection import AbstractConnection
from redis.asyncio.sentinel import Sentinel

_OPTION = "sentinel"
_PORT = 26379


class Sentinels:
    """Several sentinels and the name under which they watch a primary and its replicas."""

    def __init__(self, places: list[tuple[str, int]], name: str, timeout_s: float) -> None:
        self._places = places
        self._name = name
        self._timeout_s = timeout_s

    async def primary(self) -> tuple[str, int]:
        """Returns where the primary is; raises the client's ConnectionError when no sentinel knows."""
        asked = Sentinel(  # type: ignore[no-untyped-call]
            self._places,
            sentinel_kwargs={"socket_timeout": self._timeout_s, "socket_connect_timeout": self._timeout_s},
        )
        try:
            host, port = await asked.discover_master(self._name)
        finally:
            for each in asked.sentinels:
                await each.aclose()
        return host, int(port)


class SentinelConnection(AbstractConnection):
    """Leads to whichever server is the primary when it is opened."""

    sentinels: Sentinels
    host: str
    port: int

    async def _connect(self) -> None:
        self.host, self.port = await self.sentinels.primary()
        await super()._connect()  # type: ignore[no-untyped-call, safe-super]


def sentinel_address(url: str, timeout_s: float) -> tuple[str, Sentinels] | None:
    """Returns the address of a server to be found by the sentinels of `redis://a:26379,b:26379?sentinel=NAME`.

    None for an address without the option; the account in it is the server's, and sentinels are asked without one.
    """
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query))
    name = options.pop(_OPTION, "")
    if not name:
        return None
    if parts.scheme not in ("redis", "rediss"):
        raise ValueError("sentinels are reached by redis:// or rediss://")
    account, at, hosts = parts.netloc.rpartition("@")
    places = [urlsplit(f"//{host}") for host in hosts.split(",")]
    found = [(place.hostname or "localhost", place.port or _PORT) for place in places]
    first = hosts.partition(",")[0]
    address = urlunsplit(parts._replace(netloc=f"{account}{at}{first}", query=urlencode(options)))
    return address, Sentinels(found, name, timeout_s)
