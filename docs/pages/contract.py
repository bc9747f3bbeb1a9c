"""Which services and messages a page of the reference has, and how pages refer to each other."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor, MethodDescriptor, ServiceDescriptor

PACKAGE = "camserve.v1"
# Every proto file by the page that has what is in it; the first one's service is the page's own.
FILES = {
    "inference": ("inference", "errors"),
    "jobs": ("jobs",),
    "uploads": ("uploads",),
    "objects": ("objects",),
    "models": ("models",),
    "webhooks": ("webhooks",),
    "limits": ("limits",),
    "auth": ("auth",),
    "health": ("health",),
    "reference": ("reference",),
    "playground": ("playground",),
    "admin": ("admin", "model_routes", "model_watch"),
}
# Has a page of its own, with more than the protos say.
CATALOGUE = f"{PACKAGE}.ErrorObject.Reason"


def files(page: str) -> list[FileDescriptor]:
    """Returns the proto files of a page."""
    return [import_module(f"{PACKAGE}.{name}_pb2").DESCRIPTOR for name in FILES[page]]


def service(page: str) -> ServiceDescriptor:
    """Returns the one service of a page; raises ValueError where there are more."""
    (found,) = [service for file in files(page) for service in file.services_by_name.values()]
    return found


def messages(page: str) -> Iterator[Descriptor | EnumDescriptor]:
    """Yields the messages and enums of a page in the order of the files, what is nested after what it is nested in."""
    for file in files(page):
        for message in file.message_types_by_name.values():
            yield from _with_nested(message)
        yield from file.enum_types_by_name.values()


def link(kind: Descriptor | EnumDescriptor, page: str) -> str:
    """Returns a link from a page to where a message or an enum is described."""
    name = short(kind)
    if kind.full_name == CATALOGUE:
        return f"[`{name}`](../errors.md)"
    home = _pages()[kind.file.name]
    return f"[`{name}`]({'' if home == page else f'{home}.md'}#{anchor(name)})"


def short(kind: Descriptor | EnumDescriptor) -> str:
    """Returns the name of a message or an enum without the package."""
    return str(kind.full_name).removeprefix(f"{PACKAGE}.")


def anchor(heading: str) -> str:
    """Returns the anchor that a heading of a single name has on a code host and on the site."""
    return heading.lower().replace(".", "")


@cache
def sent() -> frozenset[str]:
    """Returns the full names of the messages that callers send."""
    found: set[str] = set()

    def add(message: Descriptor) -> None:
        if message.full_name not in found:
            found.add(message.full_name)
            for field in message.fields:
                if field.message_type is not None:
                    add(field.message_type)

    for method in _methods():
        add(method.input_type)
    return frozenset(found)


def _methods() -> Iterator[MethodDescriptor]:
    for page in FILES:
        yield from service(page).methods


def _with_nested(message: Descriptor) -> Iterator[Descriptor | EnumDescriptor]:
    if message.GetOptions().map_entry:
        return
    yield message
    yield from (kind for kind in message.enum_types if kind.full_name != CATALOGUE)
    for nested in message.nested_types:
        yield from _with_nested(nested)


@cache
def _pages() -> dict[str, str]:
    """Returns the page of every proto file."""
    return {file.name: page for page in FILES for file in files(page)}
