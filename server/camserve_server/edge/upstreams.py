"""Where the edge finds the replicas."""

from __future__ import annotations

from typing import Any

from camserve_server.edge import upstream_tls

Node = dict[str, Any]
Places = tuple[tuple[str, int], ...]


def endpoints(places: Places) -> list[Node]:
    """Returns hosts and ports as endpoints of a cluster."""
    return [
        {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}} for host, port in places
    ]


def discovery(places: Places) -> str:
    """Returns how a cluster finds its hosts."""
    return "STATIC" if all(upstream_tls.is_ip(host) for host, _ in places) else "STRICT_DNS"
