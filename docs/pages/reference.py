"""The pages of the services: every rpc, message, field and value, with what the protos and the catalogue say of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, MethodDescriptor

from camserve.options.v1 import policy_pb2
from camserve_server.base.errors import CATALOGUE
from docs.openapi.comments import comments, first_sentence
from docs.openapi.failures import reasons
from docs.openapi.methods import Described, described
from docs.openapi.schemas import Schemas
from docs.pages import contract
from docs.pages.errors import section
from docs.pages.text import cell, codes, prose, row, rules

INDEX_HEAD = """\
# Services

What the protos and the catalogue of errors say, written by `make docs`. Every service is in the package `camserve.v1`.

In JSON, members have the names of the fields; int64 is a string in answers, bytes are base64, times are RFC 3339, and
enums are their names: [the REST API](../rest.md).
"""
_SCALARS = {
    FieldDescriptor.TYPE_BOOL: "bool",
    FieldDescriptor.TYPE_BYTES: "bytes",
    FieldDescriptor.TYPE_DOUBLE: "double",
    FieldDescriptor.TYPE_FLOAT: "float",
    FieldDescriptor.TYPE_INT32: "int32",
    FieldDescriptor.TYPE_INT64: "int64",
    FieldDescriptor.TYPE_STRING: "string",
}


def page(name: str) -> str:
    """Returns a page; raises ValueError where two of its headings would have the same anchor."""
    text = "".join(_lines(name))
    headings = [contract.anchor(line.lstrip("# ")) for line in text.splitlines() if line.startswith("#")]
    if twice := {heading for heading in headings if headings.count(heading) > 1}:
        raise ValueError(f"{name}: {', '.join(sorted(twice))} would be anchors of two headings")
    return text


def index() -> str:
    """Returns the page that lists every rpc."""
    parts = [INDEX_HEAD]
    for name in contract.FILES:
        service = contract.service(name)
        parts.append(f"\n## {service.name}\n\n{prose(first_sentence(comments()[service.full_name]))}.\n\n")
        parts.append("| rpc | REST | what it does |\n|---|---|---|\n")
        for method in service.methods:
            link = f"[`{method.name}`]({name}.md#{contract.anchor(method.name)})"
            routes = "<br>".join(f"`{verb} {template}`" for verb, template in _routes(method))
            parts.append(row(link, routes, cell(first_sentence(comments()[method.full_name]))))
    return "".join(parts)


def _lines(name: str) -> Iterator[str]:
    service = contract.service(name)
    yield f"# {service.name}\n\n{prose(comments()[service.full_name])}\n"
    for method in service.methods:
        yield from _method(method, name)
    yield "\n## Messages\n"
    for kind in contract.messages(name):
        yield f"\n### {contract.short(kind)}\n\n{prose(comments()[kind.full_name])}\n"
        yield from _enum(kind) if isinstance(kind, EnumDescriptor) else _message(kind, name)


def _method(method: MethodDescriptor, page: str) -> Iterator[str]:
    policy = method.GetOptions().Extensions[policy_pb2.policy]
    yield f"\n## {method.name}\n\n{prose(comments()[method.full_name])}\n\n| | |\n|---|---|\n"
    asked, answered = _type_of(method.input_type, page), _type_of(method.output_type, page)
    asked = f"stream of {asked}" if method.client_streaming else asked
    answered = f"stream of {answered}" if method.server_streaming else answered
    yield row("gRPC", f"`{contract.PACKAGE}.{method.containing_service.name}/{method.name}`: {asked} → {answered}")
    yield row("REST", "<br>".join(f"`{verb} {template}`" for verb, template in _routes(method)) or "none")
    rest = _rest(method)
    if rest and any(binding.has_body for binding in rest.method.bindings):
        yield row("body", codes(rest.method.consumes))
    if rest:
        yield row("success", codes(map(str, rest.success)))
    yield row("scopes", _scopes(policy))
    yield row("idempotency key", _key(policy))
    yield row("cost", _cost(policy))
    yield from _errors(rest) if rest else ()


def _errors(rest: Described) -> Iterator[str]:
    every = {reason for binding in rest.method.bindings for reason in reasons(rest, binding)}
    ordered = sorted((reason for reason in CATALOGUE if reason in every), key=section)
    for (status, kind), group in groupby(ordered, key=section):
        yield row(f"[{status}](../errors.md#{status}-{kind})", codes(reason.value for reason in group))


def _scopes(policy: policy_pb2.Policy) -> str:
    if policy.public:
        return "none: public"
    return codes(policy.scopes) or "any valid token"


def _key(policy: policy_pb2.Policy) -> str:
    if policy.idempotency.refused:
        return "refused"
    operation = policy.idempotency.operation
    return f"remembered under `{operation}`" if operation else "no effect"


def _cost(policy: policy_pb2.Policy) -> str:
    if not policy.HasField("cost"):
        return "one request" if not policy.public else "nothing"
    return "one request, one concurrent call" + (", its images" if policy.cost.images else "")


def _routes(method: MethodDescriptor) -> list[tuple[str, str]]:
    rest = _rest(method)
    return [(binding.verb, binding.template) for binding in rest.method.bindings] if rest else []


def _rest(method: MethodDescriptor) -> Described | None:
    return next((each for each in described() if each.descriptor.full_name == method.full_name), None)


def _message(message: Descriptor, page: str) -> Iterator[str]:
    if not message.fields:
        yield "\nIt has no fields.\n"
        return
    for choice in message.oneofs:
        if not choice.name.startswith("_"):
            yield f"\n{codes(field.name for field in choice.fields)}: {prose(comments()[choice.full_name])}\n"
    schemas = Schemas()
    sent = message.full_name in contract.sent()
    schemas.reference(message, sent=sent)
    schema = schemas.made()[contract.short(message)]
    yield "\n| field | type | allowed | what it is |\n|---|---|---|---|\n"
    for field in message.fields:
        required = sent and field.name in schema.get("required", ())
        allowed = rules(schema["properties"][field.name], required=required) if field.enum_type is None else ""
        yield row(f"`{field.name}`", _type(field, page), allowed, cell(comments()[field.full_name]))


def _type(field: FieldDescriptor, page: str) -> str:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return f"map of string to {_type(kind.fields_by_name['value'], page)}"
    if field.is_repeated:
        return f"list of {_single(field, page)}"
    optional = field.has_presence and field.containing_oneof is not None
    return f"optional {_single(field, page)}" if optional else _single(field, page)


def _single(field: FieldDescriptor, page: str) -> str:
    if field.message_type is not None:
        return _type_of(field.message_type, page)
    return contract.link(field.enum_type, page) if field.enum_type is not None else _SCALARS[field.type]


def _type_of(message: Descriptor, page: str) -> str:
    if message.full_name.startswith(f"{contract.PACKAGE}."):
        return contract.link(message, page)
    return f"`{message.full_name}`"


def _enum(kind: EnumDescriptor) -> Iterator[str]:
    yield "\n| value | number | what it says |\n|---|---|---|\n"
    for value in kind.values:
        yield row(f"`{value.name}`", str(value.number), cell(comments()[f"{kind.full_name}.{value.name}"]))
