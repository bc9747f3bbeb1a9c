"""Which URLs are called."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from yarl import URL

from camserve_server.outbound.addresses import Address, is_public, parse_address

MOST_CHARACTERS = 2048
_HTTPS_PORT = 443
# What parsers read differently: blanks, control characters, backslashes; and bytes that are no ASCII.
_PLAIN = re.compile(r"[!-\[\]-~]{1,2048}")
# Parsers read blanks, signs and leading zeros of a port differently; brackets hold an IPv6 address, and no later form.
_AUTHORITY = re.compile(r"[a-zA-Z]+://[^/?#:\[\]]*(\[[0-9a-fA-F.]*:[0-9a-fA-F:.]*\])?(:[1-9][0-9]{0,4})?(?=[/?#]|$)")
_USERINFO = re.compile(r"[^/?#]*//[^/?#]*@")
# A name whose last label looks like a number is an IPv4 address to some resolver (WHATWG URL, section 3.5).
_NUMERIC = re.compile(r"(?i)(0x[0-9a-f]*|[0-9]+)")
_LABEL = re.compile(r"(?i)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")


class NotAllowedError(Exception):
    """A URL or an address that is never called."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """Addresses and ports that may be called although they are not public, `http` too."""

    places: frozenset[tuple[str, int]] = frozenset()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> Allowed:
        """Reads entries like `127.0.0.1/32:8080` and `[::1]/128:8080`; raises ValueError for any other."""
        return cls(frozenset(_place(entry) for entry in entries))

    def has(self, address: Address | None, port: int | None) -> bool:
        """Returns whether the place is on the list."""
        return address is not None and port is not None and (str(address), port) in self.places

    def permits(self, address: Address, port: int) -> bool:
        """Returns whether a connection may be opened: a public address on the port of https, or one of the list."""
        return self.has(address, port) or (port == _HTTPS_PORT and is_public(address))


def parse_target(url: str, allowed: Allowed) -> URL:
    """Returns a URL that may be called, as far as the text tells; the address is judged again when it is known.

    Raises NotAllowedError for anything but https on its own port to a name or a public address, and for userinfo.
    """
    if not _PLAIN.fullmatch(url) or not _AUTHORITY.match(url):
        raise NotAllowedError
    try:
        target = URL(url)
        host, port = target.raw_host or "", target.port
    except ValueError:
        raise NotAllowedError from None
    if _USERINFO.match(url):
        raise NotAllowedError
    address = parse_address(host)
    if target.scheme == "http" and allowed.has(address, port):
        return target.with_fragment(None)
    if target.scheme != "https" or port is None:
        raise NotAllowedError
    if address is None:
        if port != _HTTPS_PORT or not _is_name(host):
            raise NotAllowedError
    elif not allowed.permits(address, port):
        raise NotAllowedError
    return target.with_fragment(None)


def _is_name(host: str) -> bool:
    labels = host.removesuffix(".").split(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        return False
    # A name without a dot is one of the local network.
    return len(labels) > 1 and not _NUMERIC.fullmatch(labels[-1])


def _place(entry: str) -> tuple[str, int]:
    match = re.fullmatch(r"\[?([0-9a-fA-F.:]+)\]?/(32|128):([0-9]{1,5})", entry)
    address = parse_address(match[1]) if match else None
    if match is None or address is None or int(match[2]) != address.max_prefixlen or not 0 < int(match[3]) < 65536:
        raise ValueError(f"{entry!r} is not like 127.0.0.1/32:8080")
    return str(address), int(match[3])
