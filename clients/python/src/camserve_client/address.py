"""Where the service is, and how it is spoken to."""

from __future__ import annotations

import ipaddress
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_GRPC = {"grpc": False, "grpcs": True}
_REST = {"http": False, "https": True}
_PORTS = {"grpc": 50051, "grpcs": 443, "http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """An address taken apart; `target` is `host:port`, `url` the beginning of every REST address."""

    transport: Literal["grpc", "rest"]
    tls: bool
    target: str
    url: str


def parse(text: str, transport: Literal["grpc", "rest"] | None = None) -> Address:
    """Returns the parts of `grpc://`, `grpcs://`, `http://` or `https://` and `host[:port]`.

    `grpcs` and `https` are encrypted. Without a scheme it is gRPC, encrypted unless the host is this machine.
    `transport` chooses the other one at the same place: the edge speaks both. Raises ValueError for anything else.
    """
    if "://" not in text:
        text = f"{'grpc' if _is_loopback(urlsplit(f'//{text}').hostname or '') else 'grpcs'}://{text}"
    parts = urlsplit(text)
    tls = (_GRPC | _REST).get(parts.scheme)
    if tls is None or not parts.hostname or parts.query or parts.fragment or parts.username is not None:
        raise ValueError("an address is grpc://, grpcs://, http:// or https:// with a host and, if need be, a port")
    chosen = transport or ("grpc" if parts.scheme in _GRPC else "rest")
    if chosen == "grpc" and parts.path.strip("/"):
        raise ValueError("an address for gRPC has no path")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port or _PORTS[parts.scheme]
    url = f"{'https' if tls else 'http'}://{host}:{port}{parts.path.rstrip('/')}"
    return Address(chosen, tls, f"{host}:{port}", url)


def proxy_of(url: str) -> str | None:
    """Returns the proxy that the environment names for an address, None for none and for one that is not HTTP.

    Read are `HTTP_PROXY` and `HTTPS_PROXY`, else `ALL_PROXY`; `NO_PROXY` lists hosts and networks that need none.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 0)
    proxies = getproxies()
    # Lists of the environment may have ports, those of a system have none.
    if proxy_bypass(host) or proxy_bypass(f"{host}:{port}") or _is_within(host, proxies.get("no", "")):
        return None
    proxy = proxies.get(parts.scheme) or proxies.get("all") or ""
    proxy = proxy if "://" in proxy or not proxy else f"http://{proxy}"
    return proxy if urlsplit(proxy).scheme in _REST else None


def _is_within(host: str, networks: str) -> bool:
    """Is true for an IP address in one of the networks, such as `10.0.0.0/8`; other names in the list are no matter."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for name in networks.split(","):
        with suppress(ValueError):
            if address in ipaddress.ip_network(name.strip().strip("[]"), strict=False):
                return True
    return False


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
