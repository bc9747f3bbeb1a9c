"""Where the edge finds the keys of an external issuer."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from camserve_server.edge import upstream_tls
from camserve_server.edge.settings import EdgeSettings, ExternalIssuer, duration

Node = dict[str, Any]

_CLUSTER = "issuer"


def source(external: ExternalIssuer) -> Node:
    """Returns the part of the issuer's provider that says where the keys are."""
    if external.jwks_url is None:
        return {"local_jwks": {"filename": str(external.jwks_file)}}
    return {
        "remote_jwks": {
            "http_uri": {"uri": external.jwks_url, "cluster": _CLUSTER, "timeout": "5s"},
            "cache_duration": duration(external.cache_s),
            "async_fetch": {"fast_listener": True, "failed_refetch_duration": "1s"},
        }
    }


def cluster(settings: EdgeSettings) -> Node | None:
    """Returns the cluster of the issuer's address; raises ValueError when nothing vouches for an https address."""
    external = settings.external_issuer
    if external is None or external.jwks_url is None:
        return None
    url = urlsplit(external.jwks_url)
    host, secure = url.hostname or "", url.scheme == "https"
    address = {"address": host, "port_value": url.port or (443 if secure else 80)}
    found: Node = {
        "name": _CLUSTER,
        "type": "STATIC" if upstream_tls.is_ip(host) else "LOGICAL_DNS",
        "connect_timeout": "3s",
        "dns_lookup_family": "ALL",
        # While no keys have come every token asks for them: a few may, the others fail at once.
        "circuit_breakers": {"thresholds": [{"max_connections": 4, "max_pending_requests": 4, "max_requests": 4}]},
        "load_assignment": {
            "cluster_name": _CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": address}}}]}],
        },
    }
    if secure:
        found["transport_socket"] = upstream_tls.context(external.ca_file or upstream_tls.system_ca(), host, "http/1.1")
    return found
