"""Models from the command line."""

from __future__ import annotations

import grpc

from camserve.v1 import models_pb2, models_pb2_grpc
from camserve_server.base.config import Settings
from camserve_server.cli.tokens import issuer


def list_models(settings: Settings) -> list[str]:
    """Returns a line per version of the running server; raises ValueError when none answers."""
    token = issuer(settings).issue(tenant="operator", subject="camserve", scopes=("inference.read",), ttl_s=60)
    target = settings.grpc_target
    credentials = settings.grpc_tls_cert and grpc.ssl_channel_credentials(settings.grpc_tls_cert.read_bytes())
    channel = grpc.secure_channel(target, credentials) if credentials else grpc.insecure_channel(target)
    with channel:
        try:
            answer = models_pb2_grpc.ModelServiceStub(channel).ListModels(
                models_pb2.ListModelsRequest(), metadata=(("authorization", f"Bearer {token}"),), timeout=10
            )
        except grpc.RpcError as error:
            raise ValueError(f"no answer from {target}: {error.details()}") from None
    return [_line(model.model, version) for model in answer.models for version in model.versions]


def _line(name: str, version: models_pb2.ModelVersion) -> str:
    state = models_pb2.ModelVersion.State.Name(version.state)
    golden = models_pb2.ModelVersion.Golden.Name(version.golden)
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    reason = f": {version.reason}" if version.reason else f", {version.classes} classes, golden inputs {golden}"
    return f"{name} {version.version}{aliases}  {state}{reason}"
