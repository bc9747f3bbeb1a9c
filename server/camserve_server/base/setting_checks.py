"""What settings must be together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from camserve_server.base.config import Settings

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


def check_together(settings: Settings) -> None:
    """Raises ValueError for values of which each is allowed, and which do not go together."""
    if not settings.roles:
        raise ValueError("roles must name one at least")
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise ValueError("tls_cert and tls_key belong together")
    if bool(settings.grpc_tls_cert) != bool(settings.grpc_tls_key):
        raise ValueError("grpc_tls_cert and grpc_tls_key belong together")
    if bool(settings.jwt_external_issuer) != bool(settings.jwt_jwks_file) + bool(settings.jwt_jwks_url):
        raise ValueError("jwt_external_issuer belongs together with either jwt_jwks_file or jwt_jwks_url")
    if settings.jwt_external_issuer == settings.jwt_issuer:
        raise ValueError("jwt_external_issuer must not be jwt_issuer: each has keys of its own")
    if bool(settings.s3_access_key_id) != bool(settings.s3_secret_access_key):
        raise ValueError("s3_access_key_id and s3_secret_access_key belong together")
    if settings.s3_public_url and not settings.s3_access_key_id:
        raise ValueError("s3_public_url needs s3_access_key_id: links are signed with it")
    if settings.s3_kms_key_id and settings.s3_encryption in (None, "AES256"):
        raise ValueError("s3_kms_key_id needs s3_encryption aws:kms or aws:kms:dsse")
    for name, host in (("grpc_host", settings.grpc_host), ("internal_host", settings.internal_host)):
        if host not in LOOPBACK and not settings.grpc_tls_cert:
            raise ValueError(f"{name}={host} is not loopback: grpc_tls_cert and grpc_tls_key are required")
    if settings.max_image_bytes > settings.upload_memory_mb << 20:
        raise ValueError(
            f"max_image_bytes={settings.max_image_bytes} is more than upload_memory_mb={settings.upload_memory_mb} "
            "(MiB): an image is held in that memory while it is read"
        )
    if settings.ray_min_actors > settings.ray_max_actors:
        raise ValueError("ray_min_actors must not be above ray_max_actors")
    if settings.replicas and settings.replica_count > 1:
        raise ValueError("replica_count and replicas exclude each other: the edge leads to those here or to others")
    ports = [settings.edge_port]
    for number in range(settings.replica_count):
        ports += settings.replica_ports(number).values()
    if len(set(ports)) != len(ports):
        raise ValueError("edge_port, grpc_port, internal_port and metrics_port must differ, of every replica")
    if max(ports) > 65535:
        raise ValueError(f"replica_count={settings.replica_count}: its ports end above 65535")
