"""What the protos say in comments."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

_PROTOS = Path(__file__).parents[2] / "protos"
# Numbers of the fields of FileDescriptorProto and what it holds, of which the paths of source locations are made.
_FILE = {4: "message_type", 5: "enum_type", 6: "service"}
_WITHIN = {
    "message_type": {2: "field", 3: "nested_type", 4: "enum_type", 8: "oneof_decl"},
    "nested_type": {2: "field", 3: "nested_type", 4: "enum_type", 8: "oneof_decl"},
    "enum_type": {2: "value"},
    "service": {2: "method"},
}


@cache
def comments() -> dict[str, str]:
    """Returns the comment of everything that has one by its full name: paragraphs apart by empty lines.

    Values of enums are named within their enum. Raises SystemExit when protoc refuses the files.
    """
    found = {}
    for file in _files():
        for location in file.source_code_info.location:
            name = _name(file, location.path)
            if name and location.leading_comments:
                found[f"{file.package}.{name}"] = _paragraphs(location.leading_comments)
    return found


def first_sentence(comment: str) -> str:
    """Returns what a comment begins with, without its full stop."""
    return comment.split("\n")[0].split(". ")[0].removesuffix(".")


def _files() -> Iterator[descriptor_pb2.FileDescriptorProto]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "described.binpb"
        status = protoc.main(
            [
                "protoc",
                f"-I{_PROTOS / 'third_party'}",
                f"-I{_PROTOS}",
                f"-I{resources.files('grpc_tools') / '_proto'}",
                "--include_source_info",
                f"--descriptor_set_out={out}",
                *(str(path) for path in sorted((_PROTOS / "camserve" / "v1").glob("*.proto"))),
            ]
        )
        if status:
            raise SystemExit(status)
        yield from descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file


def _name(file: descriptor_pb2.FileDescriptorProto, path: Sequence[int]) -> str | None:
    """Returns the name of what a path of numbers leads to, None for what has no name."""
    node: Any = file
    members, names = _FILE, []
    for number, index in zip(path[::2], path[1::2], strict=False):
        member = members.get(number)
        if member is None:
            return None
        node = getattr(node, member)[index]
        names.append(node.name)
        members = _WITHIN.get(member, {})
    return ".".join(names) if len(path) % 2 == 0 else None


def _paragraphs(comment: str) -> str:
    paragraphs = comment.strip().split("\n\n") if "\n\n" in comment else comment.strip().split("\n \n")
    return "\n\n".join(" ".join(line.strip() for line in paragraph.splitlines()) for paragraph in paragraphs)
