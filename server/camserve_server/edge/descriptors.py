"""The REST surface as the protos describe it."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from types import ModuleType

from google.api import annotations_pb2, http_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor

import camserve.v1
from camserve.options.v1 import policy_pb2

JSON = "application/json"
_VARIABLE = re.compile(r"\{([a-z0-9_.]+)\}")
ID = "[a-z]+_[0-9A-Za-z]{16,40}"


@dataclass(frozen=True, slots=True)
class Binding:
    """One verb and path template under which REST callers reach a method."""

    verb: str
    template: str
    has_body: bool

    @property
    def variables(self) -> tuple[str, ...]:
        """The field paths that the path itself sets."""
        return tuple(_VARIABLE.findall(self.template))

    @property
    def regex(self) -> str:
        """The pattern that the whole path must match; ids have their own form, other names any."""
        parts = _VARIABLE.split(self.template)
        literals = [re.escape(part) for part in parts[::2]]
        names = [ID if name.endswith("_id") else "[^/]+" for name in parts[1::2]]
        return "".join(part for pair in zip(literals, [*names, ""], strict=True) for part in pair)


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC that the edge serves."""

    service: str  # full name
    name: str
    bindings: tuple[Binding, ...]
    public: bool
    consumes: tuple[str, ...]  # media types of the REST body, `image/*` being a wildcard
    client_streaming: bool
    server_streaming: bool
    raw_response: bool  # answers google.api.HttpBody, so the bytes are the body
    one_image: bool  # classifies one image while the caller waits, so that it is refused where there is no room

    @property
    def path(self) -> str:
        """The path of native calls."""
        return f"/{self.service}/{self.name}"

    @property
    def label(self) -> str:
        """The short name for logs."""
        return f"{self.service.rpartition('.')[2]}.{self.name}"

    @property
    def takes_json(self) -> bool:
        """Whether the transcoder reads the body as JSON, which is also so where there is none."""
        return JSON in self.consumes


@cache
def methods() -> tuple[Method, ...]:
    """Returns every RPC that has an HTTP rule, in the order of the protos.

    A method without a rule is not served at the edge. Raises ValueError for a template or a method that
    the generated routes could not express.
    """
    return tuple(
        _method(descriptor)
        for module in _modules()
        for service in module.DESCRIPTOR.services_by_name.values()
        for descriptor in service.methods
        if descriptor.GetOptions().HasExtension(annotations_pb2.http)
    )


def descriptor_set(bound: Iterable[Method]) -> bytes:
    """Returns a serialized FileDescriptorSet in which only the methods in `bound` keep their HTTP rule.

    Two methods may share a path (JSON and raw bodies); a transcoder must see one of them only.
    """
    keep = {method.path for method in bound}
    files = descriptor_pb2.FileDescriptorSet()
    for file in _files():
        proto = files.file.add()
        file.CopyToProto(proto)
        for service in proto.service:
            for method in service.method:
                if f"/{proto.package}.{service.name}/{method.name}" not in keep:
                    method.options.ClearExtension(annotations_pb2.http)
    return files.SerializeToString(deterministic=True)


def services(bound: Iterable[Method]) -> list[str]:
    """Returns the full names of the services of `bound`, each once."""
    return list(dict.fromkeys(method.service for method in bound))


def _modules() -> Iterator[ModuleType]:
    for info in sorted(pkgutil.iter_modules(camserve.v1.__path__), key=lambda info: info.name):
        if info.name.endswith("_pb2"):
            yield importlib.import_module(f"{camserve.v1.__name__}.{info.name}")


def _files() -> list[FileDescriptor]:
    ordered: dict[str, FileDescriptor] = {}

    def add(file: FileDescriptor) -> None:
        for dependency in file.dependencies:
            add(dependency)
        ordered.setdefault(file.name, file)

    for module in _modules():
        add(module.DESCRIPTOR)
    return list(ordered.values())


def _method(descriptor: MethodDescriptor) -> Method:
    options = descriptor.GetOptions()
    if not options.HasExtension(policy_pb2.policy):
        raise ValueError(f"{descriptor.full_name} has an HTTP rule but no policy")
    policy = options.Extensions[policy_pb2.policy]
    rule = options.Extensions[annotations_pb2.http]
    return Method(
        service=descriptor.containing_service.full_name,
        name=descriptor.name,
        bindings=tuple(_binding(each) for each in (rule, *rule.additional_bindings)),
        public=policy.public,
        consumes=tuple(policy.consumes) or (JSON,),
        client_streaming=descriptor.client_streaming,
        server_streaming=descriptor.server_streaming,
        one_image=policy.cost.images and "inputs" not in descriptor.input_type.fields_by_name,
        raw_response=descriptor.output_type.full_name == "google.api.HttpBody",
    )


def _binding(rule: http_pb2.HttpRule) -> Binding:
    kind = rule.WhichOneof("pattern")
    if kind is None:
        raise ValueError("an HTTP rule has no path")
    verb, template = (rule.custom.kind, rule.custom.path) if kind == "custom" else (kind.upper(), getattr(rule, kind))
    if "*" in template or _VARIABLE.sub("", template).count("{"):
        raise ValueError(f"the path {template!r} has a variable that is not one segment")
    return Binding(verb=verb, template=template, has_body=bool(rule.body))
