"""The methods of the REST surface with everything that the protos say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from google.protobuf.descriptor import Descriptor, MethodDescriptor

from camserve.options.v1 import policy_pb2
from camserve_server.edge import descriptors
from camserve_server.edge.descriptors import Binding, Method
from camserve_server.rpc.server import services
from docs.openapi.comments import comments

IMAGE_TYPES = ("image/jpeg", "image/png", "image/tiff", "image/bmp")
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
TUS_BODY = "application/offset+octet-stream"
_TUS = {"StartUpload", "GetUploadProtocol", "AppendUpload", "GetUploadProgress", "DeleteUpload"}


@dataclass(frozen=True, slots=True)
class Described:
    """One method: how the edge serves it, its policy and its messages."""

    method: Method
    descriptor: MethodDescriptor
    policy: policy_pb2.Policy

    @property
    def name(self) -> str:
        """The name of the RPC."""
        return self.method.name

    @property
    def service(self) -> str:
        """The name of the service, which groups operations, without the word itself."""
        return self.method.service.rpartition(".")[2].removesuffix("Service")

    @property
    def comment(self) -> str:
        """What the protos say of it."""
        return comments()[self.descriptor.full_name]

    @property
    def input(self) -> Descriptor:
        """The message that is sent."""
        return self.descriptor.input_type

    @property
    def output(self) -> Descriptor:
        """The message that is received."""
        return self.descriptor.output_type

    @property
    def success(self) -> tuple[int, ...]:
        """The statuses of success."""
        return tuple(self.policy.success) or (200,)

    @property
    def takes_keys(self) -> bool:
        """Whether an idempotency key has an effect."""
        return bool(self.policy.idempotency.operation)

    @property
    def takes_image(self) -> bool:
        """Whether the body, or what resumes it, is an image."""
        return self.method.client_streaming

    @property
    def speaks_tus(self) -> bool:
        """Whether it is a part of the tus protocol."""
        return self.name in _TUS

    def takes_query(self, binding: Binding) -> bool:
        """Whether fields that the path does not set may come in the query."""
        return not binding.has_body or self.takes_image

    def media_types(self) -> tuple[str, ...]:
        """The media types of the body, wildcards written out."""
        found: list[str] = []
        for kind in self.method.consumes:
            found += IMAGE_TYPES if kind == "image/*" else [kind]
        return tuple(found)


@cache
def described() -> tuple[Described, ...]:
    """Returns every method of the REST surface, the services in the order in which they are bound."""
    return tuple(_described())


def _described() -> Iterator[Described]:
    methods = {method.path: method for method in descriptors.methods()}
    for service in services().values():
        for descriptor in service.methods:
            method = methods.get(f"/{service.full_name}/{descriptor.name}")
            if method is not None:
                policy = descriptor.GetOptions().Extensions[policy_pb2.policy]
                yield Described(method, descriptor, policy)
