"""Which addresses of the internet are reached."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address

# Forms of IPv6 that carry an IPv4 address, and where it lies, in bits from the right.
_CARRIERS: tuple[tuple[IPv6Network, tuple[int, ...]], ...] = (
    (IPv6Network("::/96"), (0,)),  # compatible (RFC 4291)
    (IPv6Network("::ffff:0:0/96"), (0,)),  # mapped (RFC 4291)
    (IPv6Network("::ffff:0:0:0/96"), (0,)),  # translated (RFC 2765)
    (IPv6Network("64:ff9b::/96"), (0,)),  # NAT64 (RFC 6052)
    (IPv6Network("64:ff9b:1::/48"), (0,)),  # NAT64 of one network (RFC 8215)
    (IPv6Network("2002::/16"), (80,)),  # 6to4 (RFC 3056)
)
_TEREDO = IPv6Network("2001::/32")  # RFC 4380: the server, and the client with its bits turned round
# ISATAP (RFC 5214) may lie in any prefix: its interface id says so.
_ISATAP_IDS = frozenset({0x0000_5EFE, 0x0200_5EFE})

# What `is_global` lets pass although nothing public is there, or what should not be reached all the same.
_DENIED = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",  # carriers' own (RFC 6598); some clouds serve metadata there
        "168.63.129.16/32",  # a cloud's platform service
        "192.0.0.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # relays of 6to4
        "192.175.48.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2001:db8::/32",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
)
_GLOBAL_UNICAST_6 = IPv6Network("2000::/3")


def is_public(address: Address) -> bool:
    """Returns whether the address, and every IPv4 address that it carries, is global unicast and not denied."""
    return all(_public_itself(each) for each in (address, *_carried(address)))


def parse_address(text: str) -> Address | None:
    """Returns the address that a host is, None for a name; a zone (`%eth0`) makes no address."""
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return None if isinstance(address, IPv6Address) and address.scope_id else address


def _public_itself(address: Address) -> bool:
    if any(address.version == network.version and address in network for network in _DENIED):
        return False
    if isinstance(address, IPv6Address):
        # Carriers lie outside the global range but for 6to4; what they carry is judged on its own.
        return address in _GLOBAL_UNICAST_6 or any(address in network for network, _ in _CARRIERS)
    return address.is_global and not address.is_multicast


def _carried(address: Address) -> Iterator[IPv4Address]:
    if isinstance(address, IPv4Address):
        return
    number = int(address)
    for network, shifts in _CARRIERS:
        if address in network:
            yield from (_low_32_bits(number >> shift) for shift in shifts)
    if address in _TEREDO:
        yield _low_32_bits(number >> 64)
        yield _low_32_bits(~number)
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP_IDS:
        yield _low_32_bits(number)


def _low_32_bits(number: int) -> IPv4Address:
    return IPv4Address(number & 0xFFFF_FFFF)
