"""Models of the running service, from the command line."""

from __future__ import annotations

import time
from collections.abc import Iterator

from camserve.v1 import models_pb2, models_pb2_grpc
from camserve_server.base.config import Settings
from camserve_server.cli.model_routes import ways_to
from camserve_server.cli.service import Service, service

_TIMEOUT_S = 10.0
# A replica looks into the folders every second; calls under way end before a version does.
_RETIRED_WITHIN_S = 10.0
_PAUSE_S = 0.2
_HASH_DIGITS = 12


def list_models(settings: Settings) -> list[str]:
    """Returns a line per version of the running server; raises ValueError when none answers."""
    with service(settings, "inference.read") as running:
        return [_line(name, version) for name, version in versions(running)]


def versions(running: Service) -> Iterator[tuple[str, models_pb2.ModelVersion]]:
    """Yields every version with its model's name."""
    listing = models_pb2_grpc.ModelServiceStub(running.channel)
    answer = listing.ListModels(models_pb2.ListModelsRequest(), metadata=running.metadata, timeout=_TIMEOUT_S)
    for model in answer.models:
        for version in model.versions:
            yield model.model, version


def retire(settings: Settings, name: str, version: str, *, force: bool) -> str:
    """Retires a version and returns what to tell; raises ValueError when that must not or cannot be.

    One that the routes lead anybody to, or would after a rollback, is retired by `force` only.
    """
    from camserve_server.engine import folders

    own = settings.data_dir / "models"
    here = {(folder.parent.name, folder.name) for folder in folders.find_folders((settings.models_dir, own))}
    if (name, version) not in here:
        raise ValueError(f"there is no {name} {version} in the models folders here")
    with service(settings, "inference.read") as running:
        known = _state(running, name, version) is not None
        if known and not force and (ways := ways_to(settings, name, version)):
            lead, them = ("lead", "them") if len(ways) > 1 else ("leads", "it")
            raise ValueError(
                f"{', '.join(ways)} {lead} to {name} {version}: lead {them} elsewhere first, or add --force"
            )
        folders.retire(own, name, version)
        deadline = time.monotonic() + _RETIRED_WITHIN_S
        while time.monotonic() < deadline:
            listed = _state(running, name, version)
            if listed and listed.state == models_pb2.ModelVersion.retired:
                return f"{name} {version} is retired"
            time.sleep(_PAUSE_S)
    raise ValueError(f"{name} {version} is marked as retired, but the server here goes on with it: does it read {own}?")


def _state(running: Service, name: str, version: str) -> models_pb2.ModelVersion | None:
    return next((one for model, one in versions(running) if (model, one.version) == (name, version)), None)


def _line(name: str, version: models_pb2.ModelVersion) -> str:
    state = models_pb2.ModelVersion.State.Name(version.state)
    golden = models_pb2.ModelVersion.Golden.Name(version.golden)
    aliases = f" ({', '.join(version.aliases)})" if version.aliases else ""
    parts = [state + (f": {version.reason}" if version.reason else "")]
    if version.classes:
        parts += [f"{version.classes} classes", f"golden inputs {golden}"]
    if version.precision:
        parts.append(version.precision)
    if version.memory_bytes:
        parts.append(f"{version.memory_bytes / 1e6:.1f} MB")
    if version.content_sha256:
        parts.append(f"content {version.content_sha256[:_HASH_DIGITS]}")
    return f"{name} {version.version}{aliases}  {', '.join(parts)}"
