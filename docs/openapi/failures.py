"""Which errors an operation may answer with."""

from __future__ import annotations

import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from camserve_server.base.errors import CATALOGUE, Reason
from camserve_server.edge.descriptors import Binding
from docs.openapi.comments import comments
from docs.openapi.methods import Described

_CODE = re.compile(r"`([a-z]+\.[a-z0-9_]+)`")
_EVERY = (
    Reason.PARAM_INVALID,
    Reason.INTERNAL,
    Reason.SERVICE_OVERLOADED,
    Reason.SERVICE_DRAINING,
    Reason.TIMEOUT_EXCEEDED,
)
_WITH_TOKEN = (
    Reason.AUTH_MISSING_TOKEN,
    Reason.AUTH_INVALID_TOKEN,
    Reason.AUTH_TOKEN_EXPIRED,
    Reason.RATE_EXCEEDED,
    Reason.CONCURRENCY_EXCEEDED,
    Reason.STORE_UNAVAILABLE,
)
_WITH_KEY = (
    Reason.IDEMPOTENCY_KEY_INVALID,
    Reason.IDEMPOTENCY_IN_PROGRESS,
    Reason.IDEMPOTENCY_KEY_REUSED,
    Reason.STORE_UNAVAILABLE,
)
# An image that is looked at while the caller waits.
_OF_IMAGES = (
    Reason.IMAGE_SOURCE_REQUIRED,
    Reason.IMAGE_INVALID_FORMAT,
    Reason.IMAGE_BASE64_INVALID,
    Reason.IMAGE_MD5_MISMATCH,
    Reason.IMAGE_TOO_LARGE,
    Reason.IMAGE_ASPECT_RATIO,
    Reason.UPLOAD_TOO_LARGE,
    Reason.MEDIA_UNSUPPORTED,
    Reason.MEDIA_MISMATCH,
    Reason.IMAGE_DECODING_FAILED,
    Reason.IMAGE_ANIMATED_NOT_SUPPORTED,
    Reason.IMAGE_REJECTED,
    Reason.UPSTREAM_FAILED,
)
# What is behind them lies in the object store; so does a long answer that is kept for its key.
_WITH_OBJECTS = ("Inference", "Job", "Upload", "Object")
_NUMBERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_DOUBLE)
# The transcoder words what it refuses with one of these verbs as malformed JSON.
_WITHOUT_BODY = ("GET", "HEAD", "DELETE")


def reasons(described: Described, binding: Binding) -> list[Reason]:
    """Returns every reason for an error of one verb and path, in the order of the catalogue.

    What a method or a field of its request fails with stands in their comments; the rest follows from the policy.
    """
    found = {*_general(described, binding), *_told(described)}
    return [reason for reason in CATALOGUE if reason in found]


def _general(described: Described, binding: Binding) -> Iterator[Reason]:
    yield from _EVERY
    policy = described.policy
    if not policy.public:
        yield from _WITH_TOKEN
    if policy.scopes:
        yield Reason.AUTH_SCOPE_INSUFFICIENT
    if described.takes_keys:
        yield from _WITH_KEY
    if policy.idempotency.refused:
        yield Reason.IDEMPOTENCY_KEY_INVALID
    if policy.cost.images:
        yield Reason.QUOTA_EXCEEDED
    if binding.verb not in _WITHOUT_BODY:
        yield Reason.JSON_MALFORMED
    if binding.has_body:
        yield from (Reason.MEDIA_UNSUPPORTED, Reason.BODY_TOO_LARGE)
    if described.method.one_image or described.takes_image:
        yield from _OF_IMAGES
    if any(name.endswith("_id") for name in binding.variables):
        yield Reason.ROUTE_NOT_FOUND
    if described.speaks_tus:
        yield Reason.UPLOAD_PROTOCOL_UNSUPPORTED
    if _has_number(described.input, set()):
        yield Reason.PARAM_OUT_OF_RANGE
    if policy.cost.images:
        yield Reason.MODEL_UNAVAILABLE
    if described.takes_keys or described.service in _WITH_OBJECTS:
        yield from (Reason.UPSTREAM_FAILED, Reason.CIRCUIT_OPEN)
    if described.service == "Object":
        yield Reason.CONCURRENCY_EXCEEDED  # of whoever signed the link


def _told(described: Described) -> Iterator[Reason]:
    texts = [described.comment, *_fields(described.input, set())]
    known = {reason.value: reason for reason in Reason}
    for code in _CODE.findall("\n".join(texts)):
        if code in known:
            yield known[code]


def _fields(message: Descriptor, seen: set[str]) -> Iterator[str]:
    """Yields the comments of a message's fields and oneofs, and of those in it."""
    if message.full_name in seen or not message.full_name.startswith("camserve."):
        return
    seen.add(message.full_name)
    for oneof in message.oneofs:
        yield comments().get(oneof.full_name, "")
    for field in message.fields:
        yield comments().get(field.full_name, "")
        if field.message_type is not None:
            yield from _fields(field.message_type, seen)


def _has_number(message: Descriptor, seen: set[str]) -> bool:
    if message.full_name in seen or not message.full_name.startswith("camserve."):
        return False
    seen.add(message.full_name)
    return any(
        field.cpp_type in _NUMBERS or (field.message_type is not None and _has_number(field.message_type, seen))
        for field in message.fields
    )
