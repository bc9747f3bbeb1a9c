"""ModelService: what can be asked."""

from __future__ import annotations

from collections import Counter

from camserve.v1 import models_pb2 as pb
from camserve_server.core.labels import LabelLists, MappedClass, Place
from camserve_server.core.models import Models
from camserve_server.engine.model import ModelVersion
from camserve_server.rpc.call import Call
from camserve_server.rpc.model_routes import deprecation_message
from camserve_server.stores.model_routes import Deprecation


class ModelServicer:
    """Lists models, and maps their labels."""

    def __init__(self, models: Models, labels: LabelLists) -> None:
        self._models = models
        self._labels = labels

    async def list_models(self, call: Call, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        """Returns every model, without labels."""
        listed = [self._model(name, versions, full=False) for name, versions in self._models.all().items()]
        return pb.ListModelsResponse(models=listed, page=pb.Page(size=len(listed)))

    async def get_model(self, call: Call, request: pb.GetModelRequest) -> pb.Model:
        """Returns one model, with labels in the full view."""
        versions = self._models.versions(request.model)
        return self._model(request.model, versions, full=request.view == "full")

    def _model(self, name: str, versions: list[ModelVersion], *, full: bool) -> pb.Model:
        dates = self._models.deprecations(name)
        return pb.Model(
            model=name, versions=[_version(version, dates.get(version.version), full=full) for version in versions]
        )

    async def get_label_mapping(self, call: Call, request: pb.GetLabelMappingRequest) -> pb.LabelMapping:
        """Returns what became of every class between two labels_versions."""
        # The fields' names are words of Python.
        ends = {"from": getattr(request, "from"), "to": request.to}
        classes = await self._labels.mapping(request.model, ends["from"], ends["to"])
        counts = Counter(change for mapped in classes for change in mapped.changes)
        return pb.LabelMapping(
            model=request.model,
            counts=pb.LabelChanges(**counts),
            classes=[_mapped(mapped) for mapped in classes],
            **ends,
        )


def _mapped(mapped: MappedClass) -> pb.MappedClass:
    places = {"from": _place(mapped.before), "to": _place(mapped.after)}
    changes = [pb.MappedClass.Change.Value(change) for change in mapped.changes]
    return pb.MappedClass(id=mapped.id, changes=changes, **places)


def _place(place: Place | None) -> pb.LabelPlace | None:
    return None if place is None else pb.LabelPlace(index=place.index, label=place.label)


def _version(version: ModelVersion, deprecation: Deprecation | None, *, full: bool) -> pb.ModelVersion:
    message = pb.ModelVersion(
        version=version.version,
        state=pb.ModelVersion.State.Value(version.state),
        aliases=version.aliases,
        labels_version=version.labels_version,
        calibration_version=version.calibration_version,
        input=pb.InputSize(width=version.input.width, height=version.input.height),
        layers=version.layers,
        default_layer=version.default_layer or "",
        classes=len(version.labels),
        golden=pb.ModelVersion.Golden.Value(version.golden),
        content_sha256=version.content_hash,
        memory_bytes=version.memory_bytes,
        precision=version.precision if version.state == "ready" else "",
    )
    if version.reason:
        message.reason = version.reason
    if deprecation:
        message.deprecation.CopyFrom(deprecation_message(deprecation))
    if full:
        message.labels.extend(pb.Label(id=class_id, label=label) for class_id, label in version.labels)
    return message
