"""TLS from the edge to what lies behind it."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from typing import Any

Node = dict[str, Any]

# Where distributions keep the authorities that they trust, for a Python that does not know.
_SYSTEM = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def context(ca_file: Path, server_name: str, protocol: str, certificates: list[Node] | None = None) -> Node:
    """Returns the transport socket to a server whose certificate `ca_file` vouches for."""
    kind = "IP_ADDRESS" if is_ip(server_name) else "DNS"
    common: Node = {
        "alpn_protocols": [protocol],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "validation_context": {
            "trusted_ca": {"filename": str(ca_file)},
            "match_typed_subject_alt_names": [{"san_type": kind, "matcher": {"exact": server_name}}],
        },
    }
    if certificates:
        common["tls_certificates"] = certificates
    kind_of_socket = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    typed = {"@type": kind_of_socket, "sni": server_name, "common_tls_context": common}
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed}


def is_ip(host: str) -> bool:
    """Returns whether a host is an address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def system_ca() -> Path:
    """Returns the file of the authorities that this system trusts; raises ValueError where there is none."""
    for name in (ssl.get_default_verify_paths().cafile, *_SYSTEM):
        if name and Path(name).is_file():
            return Path(name)
    raise ValueError("the system has no file of certificate authorities: set CAMSERVE_JWT_JWKS_CA")
