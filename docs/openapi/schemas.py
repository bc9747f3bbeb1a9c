"""Messages as JSON schemas, in the form in which the edge's transcoder reads and writes them."""

from __future__ import annotations

import re
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from buf.validate import validate_pb2
from docs.openapi.comments import comments

Node = dict[str, Any]

PACKAGE = "camserve.v1."
_INTEGERS = {FieldDescriptor.TYPE_INT32: "int32", FieldDescriptor.TYPE_INT64: "int64"}
_NUMBERS = {FieldDescriptor.TYPE_FLOAT: "float", FieldDescriptor.TYPE_DOUBLE: "double"}
_DEFAULT = re.compile(r"Default (`[^`]*`|true|false|[0-9]+(?:\.[0-9]+)?)(?=[.:,]|$)|(\S+) \(the default\)")
# The base64 of 16 bytes.
MD5 = {"pattern": "^[A-Za-z0-9+/]{21}[AQgw]==$"}
_MOST_INT64 = 2**63 - 1
_SIDE = {"type": "integer", "minimum": 1, "maximum": 4096}
# What the server checks with reasons of its own, so that no rule in the protos says it.
_CHECKED: dict[str, Node] = {
    "GradCAMOptions.resolution": {
        "oneOf": [
            {"const": "input"},
            {"type": "object", "required": ["width", "height"], "properties": {"width": _SIDE, "height": _SIDE}},
        ]
    },
    "InferBatchRequest.inputs": {"minItems": 1, "maxItems": 256},
    "CreateJobRequest.inputs": {"minItems": 1, "maxItems": 256},
    "CreateJobRequest.callback_url": {"format": "uri", "maxLength": 2048},
    "CreateWebhookRequest.url": {"format": "uri", "maxLength": 2048},
    "ImageInput.url": {"format": "uri", "maxLength": 2048},
}
_REQUIRED = {"InferRequest.image", "BatchInput.image", "InferBatchRequest.inputs", "CreateJobRequest.inputs"}


def short_name(member: Descriptor | FieldDescriptor) -> str:
    """Returns the name of a message or a field without the package."""
    return member.full_name.removeprefix(PACKAGE)


class Schemas:
    """The schemas of messages, each made when it is first referred to.

    Callers send some messages and receive others: of those they receive every member that has no presence is there.
    """

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool], Node] = {}

    def made(self) -> dict[str, Node]:
        """Returns the schemas by name; raises ValueError for a message that goes both ways."""
        names = [name for name, _ in self._made]
        if len(set(names)) < len(names):
            raise ValueError("a message is both sent and received, and would be two schemas of one name")
        return {name: self._made[name, sent] for name, sent in sorted(self._made)}

    def reference(self, message: Descriptor, *, sent: bool) -> Node:
        """Returns a reference to the schema of a message; `sent` says that callers send it."""
        name = short_name(message)
        if (name, sent) not in self._made:
            self._made[name, sent] = {}
            self._made[name, sent] |= self._message(message, sent)
        return {"$ref": f"#/components/schemas/{name}"}

    def field(self, field: FieldDescriptor, *, sent: bool) -> Node:
        """Returns the schema of a field, with its comment and what its rules say."""
        rules = field.GetOptions().Extensions[validate_pb2.field]
        comment = comments()[field.full_name]
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            values = self._single(kind.fields_by_name["value"], validate_pb2.FieldRules(), sent)
            schema: Node = {"type": "object", "additionalProperties": values}
        elif field.is_repeated:
            schema = {"type": "array", "items": self._single(field, rules.repeated.items, sent)}
            schema |= {"uniqueItems": True} if rules.repeated.unique else {}
        else:
            schema = self._single(field, rules, sent)
            default = _default(field, comment) if sent else None
            schema |= {} if default is None else {"default": default}
        schema |= _CHECKED.get(short_name(field), {}) | (MD5 if field.name == "content_md5" else {})
        return {**schema, "description": comment}

    def _message(self, message: Descriptor, sent: bool) -> Node:
        schema: Node = {
            "type": "object",
            "description": comments()[message.full_name],
            "properties": {field.name: self.field(field, sent=sent) for field in message.fields},
        }
        required = [
            field.name for field in message.fields if (_is_required(field) if sent else _is_always_there(field))
        ]
        if required:
            schema["required"] = required
        choices = [oneof for oneof in message.oneofs if not oneof.name.startswith("_")]
        if len(choices) > 1:
            raise ValueError(f"{message.full_name} has several oneofs, which one schema cannot hold apart")
        for choice in choices if sent else ():
            schema["oneOf"] = [{"required": [field.name]} for field in choice.fields]
        return schema

    def _single(self, field: FieldDescriptor, rules: validate_pb2.FieldRules, sent: bool) -> Node:
        if field.message_type is not None:
            return self._of_message(field.message_type, sent)
        if field.enum_type is not None:
            return {"type": "string", "enum": [value.name for value in field.enum_type.values if value.number]}
        if field.type == FieldDescriptor.TYPE_BOOL:
            return {"type": "boolean"}
        if field.type == FieldDescriptor.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        if field.type in _INTEGERS:
            return _integer(_INTEGERS[field.type], rules, sent)
        if field.type in _NUMBERS:
            return {"type": "number", "format": _NUMBERS[field.type], **_bounds(rules.double)}
        return {"type": "string", **_text(rules.string)}

    def _of_message(self, message: Descriptor, sent: bool) -> Node:
        known: dict[str, Node] = {
            "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
            "google.protobuf.Struct": {"type": "object"},
            "google.protobuf.Value": {},
            "google.api.HttpBody": {},
        }
        found = known.get(message.full_name)
        return self.reference(message, sent=sent) if found is None else found


def _is_required(field: FieldDescriptor) -> bool:
    if short_name(field) in _REQUIRED:
        return True
    rules = field.GetOptions().Extensions[validate_pb2.field]
    if field.has_presence or field.is_repeated:
        return False
    choices = getattr(rules.string, "in")
    return rules.string.min_len > 0 or bool(choices and "" not in choices) or rules.int64.gte > 0


def _is_always_there(field: FieldDescriptor) -> bool:
    """The transcoder prints what has no presence always, defaults included."""
    return not field.has_presence


def _integer(form: str, rules: validate_pb2.FieldRules, sent: bool) -> Node:
    if form == "int32":
        return {"type": "integer", "format": form, **_bounds(rules.int32)}
    if not sent:
        return {"type": "string", "pattern": "^-?[0-9]+$"}
    # Beyond 2^53 a number of JSON is not exact, so that proto3 JSON reads texts too, and writes nothing else.
    return {"type": ["integer", "string"], "pattern": "^[0-9]{1,19}$", "maximum": _MOST_INT64, **_bounds(rules.int64)}


def _bounds(rules: validate_pb2.Int32Rules | validate_pb2.Int64Rules | validate_pb2.DoubleRules) -> Node:
    names = {"gte": "minimum", "gt": "exclusiveMinimum", "lte": "maximum", "lt": "exclusiveMaximum"}
    return {names[rule.name]: value for rule, value in rules.ListFields()}


def _text(rules: validate_pb2.StringRules) -> Node:
    schema: Node = {}
    for rule, value in rules.ListFields():
        if rule.name == "in":
            # Empty is how protobuf says that a text is not there.
            schema["enum"] = [each for each in value if each]
        else:
            schema[{"min_len": "minLength", "max_len": "maxLength", "pattern": "pattern"}[rule.name]] = value
    return schema


def _default(field: FieldDescriptor, comment: str) -> Any:
    """Returns the default that a comment tells, None where it tells none."""
    told = _DEFAULT.search(comment)
    if told is None:
        return None
    text = (told[1] or told[2]).strip("`").strip('"')
    if field.type == FieldDescriptor.TYPE_BOOL:
        return text == "true"
    if field.type in _INTEGERS:
        return int(text)
    return float(text) if field.type in _NUMBERS else text
