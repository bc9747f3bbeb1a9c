"""The running service, as commands on its machine call it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from camserve_server.base.config import Settings
from camserve_server.cli.tokens import issuer

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A channel to the gRPC port, and what calls on it carry."""

    channel: grpc.Channel
    metadata: Metadata


def channel_to(target: str, roots: Path | None) -> grpc.Channel:
    """Returns a channel to a port; with TLS where something vouches for its certificate."""
    if roots is None:
        return grpc.insecure_channel(target)
    return grpc.secure_channel(target, grpc.ssl_channel_credentials(roots.read_bytes()))


@contextmanager
def service(settings: Settings, *scopes: str, for_s: int = 60) -> Iterator[Service]:
    """Gives the service here, as a tenant of the operator's; a refusal or silence becomes ValueError."""
    token = issuer(settings).issue(tenant="operator", subject="camserve", scopes=scopes, ttl_s=for_s)
    target = settings.grpc_target
    with channel_to(target, settings.grpc_roots if settings.grpc_tls_cert else None) as channel:
        try:
            yield Service(channel, (("authorization", f"Bearer {token}"),))
        except grpc.RpcError as error:
            raise ValueError(f"no answer from {target}: {error.details()}") from None
