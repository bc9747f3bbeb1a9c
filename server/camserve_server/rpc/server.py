"""The two gRPC servers of a replica: the public one and the internal one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from camserve.v1 import (
    admin_pb2,
    auth_pb2,
    inference_pb2,
    jobs_pb2,
    limits_pb2,
    models_pb2,
    objects_pb2,
    playground_pb2,
    reference_pb2,
    uploads_pb2,
    webhooks_pb2,
)
from camserve.v1 import health_pb2 as camserve_health_pb2
from camserve_server.base.open_files import most_connections
from camserve_server.rpc.adapter import bind
from camserve_server.rpc.call import Interceptor
from camserve_server.rpc.introspection import Health, add_introspection
from envoy_ratelimit import rls_pb2_grpc

# Room for the messages that carry an image of the largest size.
_MESSAGE_MARGIN_BYTES = 4 * 1024 * 1024
# gRPC counts them in 32 bits, and protobuf has no larger ones; larger images come as streams.
_LARGEST_MESSAGE_BYTES = 2**31 - 1
# With the default of 8 KiB a longer header fails at random between a soft and a hard limit.
_METADATA_BYTES = 64 * 1024
# As many as Envoy opens on one connection to a replica, and as many connections as the edge takes.
_STREAMS_OF_A_CONNECTION = 256
_CONNECTIONS = 4096
_UNREAD_BYTES = 1 << 20
# Calls that came and that the event loop has not seen yet. With the default, from the thousandth on gRPC ends them at
# random as CANCELLED, whose they are being unknown to it; we refuse them by tenant, with an error that says so.
_UNSEEN_CALLS = 16_384


def services() -> dict[str, ServiceDescriptor]:
    """Returns the public services by the name of the servicer that serves each."""
    return {
        "inference": inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
        "jobs": jobs_pb2.DESCRIPTOR.services_by_name["JobService"],
        "webhooks": webhooks_pb2.DESCRIPTOR.services_by_name["WebhookService"],
        "uploads": uploads_pb2.DESCRIPTOR.services_by_name["UploadService"],
        "models": models_pb2.DESCRIPTOR.services_by_name["ModelService"],
        "objects": objects_pb2.DESCRIPTOR.services_by_name["ObjectService"],
        "health": camserve_health_pb2.DESCRIPTOR.services_by_name["HealthService"],
        "auth": auth_pb2.DESCRIPTOR.services_by_name["AuthService"],
        "limits": limits_pb2.DESCRIPTOR.services_by_name["LimitService"],
        "reference": reference_pb2.DESCRIPTOR.services_by_name["ReferenceService"],
        "playground": playground_pb2.DESCRIPTOR.services_by_name["PlaygroundService"],
    }


def internal_services() -> dict[str, ServiceDescriptor]:
    """Returns the services of the internal listener that take tokens, as `services` does."""
    return {"admin": admin_pb2.DESCRIPTOR.services_by_name["AdminService"]}


def public_server(
    servicers: dict[str, object], chain: Sequence[Interceptor], *, max_image_bytes: int
) -> tuple[grpc.aio.Server, Health]:
    """Returns the server of every public service, with reflection and health.

    Raises PolicyError when a method has no policy, KeyError when a service has no servicer.
    """
    server = _server(min(max_image_bytes + _MESSAGE_MARGIN_BYTES, _LARGEST_MESSAGE_BYTES))
    bound = services()
    server.add_generic_rpc_handlers(tuple(bind(service, servicers[name], chain) for name, service in bound.items()))
    return server, add_introspection(server, [service.full_name for service in bound.values()])


def internal_server(
    servicers: dict[str, object], chain: Sequence[Interceptor], rate_limits: rls_pb2_grpc.RateLimitServiceServicer
) -> tuple[grpc.aio.Server, Health]:
    """Returns the server of the internal listener: administration, the edge's rate limits, reflection and health."""
    server = _server(_MESSAGE_MARGIN_BYTES)
    bound = internal_services()
    server.add_generic_rpc_handlers(tuple(bind(service, servicers[name], chain) for name, service in bound.items()))
    rls_pb2_grpc.add_RateLimitServiceServicer_to_server(rate_limits, server)
    return server, add_introspection(server, [service.full_name for service in bound.values()])


def listen(
    server: grpc.aio.Server, host: str, port: int, certificate: tuple[Path, Path] | None = None, *, setting: str
) -> int:
    """Binds the server and returns its port; raises OSError, which names the port's setting, when it is taken."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        if certificate:
            chain, key = certificate
            credentials = grpc.ssl_server_credentials([(key.read_bytes(), chain.read_bytes())])
            return server.add_secure_port(address, credentials)
        return server.add_insecure_port(address)
    except RuntimeError:
        raise OSError(f"{address} cannot be bound: is another program listening there? See {setting}.") from None


def _server(max_message_bytes: int) -> grpc.aio.Server:
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", max_message_bytes),
            ("grpc.max_send_message_length", max_message_bytes),
            ("grpc.max_metadata_size", _METADATA_BYTES),
            ("grpc.absolute_max_metadata_size", _METADATA_BYTES),
            ("grpc.so_reuseport", 0),
            # What a call may send before anybody reads it, as at the edge; gRPC's own estimate lets it grow to 8 MB.
            ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
            ("grpc.http2.bdp_probe", 0),
            # Images are compressed already, and 100 kB would become 100 MB before anybody looks at a token.
            ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression),
            ("grpc.max_concurrent_streams", _STREAMS_OF_A_CONNECTION),
            ("grpc.server.max_pending_requests", _UNSEEN_CALLS),
            ("grpc.server.max_pending_requests_hard_limit", _UNSEEN_CALLS),
            ("grpc.max_allowed_incoming_connections", most_connections(_CONNECTIONS)),
            ("grpc.server_handshake_timeout_ms", 10_000),
            # A peer that is gone without a word, as when its machine loses power, is noticed within 80 s.
            ("grpc.keepalive_time_ms", 60_000),
            ("grpc.keepalive_timeout_ms", 20_000),
            ("grpc.max_connection_idle_ms", 300_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ]
    )
