"""Dotted form fields such as `classify.top_k=3`, as a message."""

from __future__ import annotations

import re
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from camserve.v1 import inference_pb2
from camserve_server.base.errors import ApiError, Reason

_VALUE = "google.protobuf.Value"
# As the transcoder reads them in a query.
_SWITCHES = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
# Narrower than what int() and float() take, such as `1_0` and the digits of other scripts.
# A request has some dozen; each takes 7 µs to read.
_MOST_VALUES = 500
_MOST_VALUE_CHARS = 256
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")


def request_from_fields(fields: dict[str, str]) -> inference_pb2.InferRequest:
    """Returns the request that dotted names and their texts spell; raises ApiError(PARAM_INVALID) for others."""
    tree: dict[str, Any] = {}
    for name, text in fields.items():
        _place(tree, name, name.split("."), text, inference_pb2.InferRequest.DESCRIPTOR)
    return _request(tree, Reason.PARAM_INVALID)


def request_from_json(text: str | bytes) -> inference_pb2.InferRequest:
    """Returns the request that a JSON object spells; raises ApiError(JSON_MALFORMED) when it does not."""
    data = text.encode() if isinstance(text, str) else text
    if sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ApiError(Reason.PARAM_OUT_OF_RANGE, field="request", maximum_fields=_MOST_VALUES)
    try:
        tree = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise ApiError(Reason.JSON_MALFORMED) from None
    if not isinstance(tree, dict):
        raise ApiError(Reason.JSON_MALFORMED)
    if "image" in tree:
        raise ApiError(Reason.IMAGE_SOURCE_REQUIRED, "The upload is the image: leave `image` out of the request.")
    return _request(tree, Reason.JSON_MALFORMED)


def _request(tree: dict[str, Any], refusal: Reason) -> inference_pb2.InferRequest:
    request = inference_pb2.InferRequest()
    try:
        json_format.ParseDict(tree, request, ignore_unknown_fields=True, max_recursion_depth=32)
    except json_format.ParseError:
        raise ApiError(refusal) from None
    return request


def _place(tree: dict[str, Any], name: str, path: list[str], text: str, message: Descriptor) -> None:
    field = message.fields_by_name.get(path[0])
    if field is None or field.name == "image":
        raise ApiError(Reason.PARAM_INVALID, "A form field has a name that is none of the request's.")
    if field.message_type is None:
        if len(path) > 1:
            raise ApiError(Reason.PARAM_INVALID, "A form field goes deeper than the request.")
        tree[field.name] = _scalar(field, name, text)
    elif field.message_type.full_name == _VALUE:
        _place_value(tree, path, text)
    elif len(path) == 1:
        raise ApiError(Reason.PARAM_INVALID, "A form field names a group: name its members.", field=name)
    else:
        _place(tree.setdefault(field.name, {}), name, path[1:], text, field.message_type)


def _place_value(tree: dict[str, Any], path: list[str], text: str) -> None:
    """Reads `resolution=input`, `resolution={"width": 64, "height": 64}` and `resolution.width=64`."""
    if len(text) > _MOST_VALUE_CHARS:
        raise ApiError(Reason.PARAM_INVALID, field=path[0])
    try:
        value: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = text
    if len(path) == 1:
        tree[path[0]] = value
        return
    members = tree.setdefault(path[0], {})
    if len(path) > 2 or not isinstance(members, dict):
        raise ApiError(Reason.PARAM_INVALID, field=path[0])
    members[path[1]] = value


def _scalar(field: FieldDescriptor, name: str, text: str) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        if text not in _SWITCHES:
            raise ApiError(Reason.PARAM_INVALID, "A switch is `true` or `false`.", field=name)
        return _SWITCHES[text]
    if field.cpp_type != FieldDescriptor.CPPTYPE_STRING and not _NUMBER.fullmatch(text):
        raise ApiError(Reason.PARAM_INVALID, "A number has another form.", field=name)
    return text
