"""The running service, as commands on its machine call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc

from camserve_server.base.config import Settings
from camserve_server.cli.tokens import issuer

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A channel to the gRPC port, and what calls on it carry."""

    channel: grpc.Channel
    metadata: Metadata


@contextmanager
def service(settings: Settings, *scopes: str, for_s: int = 60) -> Iterator[Service]:
    """Gives the service here, as a tenant of the operator's; a refusal or silence becomes ValueError."""
    token = issuer(settings).issue(tenant="operator", subject="camserve", scopes=scopes, ttl_s=for_s)
    target = settings.grpc_target
    credentials = settings.grpc_tls_cert and grpc.ssl_channel_credentials(settings.grpc_tls_cert.read_bytes())
    channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    with channel:
        try:
            yield Service(channel, (("authorization", f"Bearer {token}"),))
        except grpc.RpcError as error:
            raise ValueError(f"no answer from {target}: {error.details()}") from None
