"""Describes what callers need of the protos, for the clients that generate their stubs from it.

Left out is what only servers read: administration, validation rules, policies and routes. So a stub needs no package
but protobuf's, and the descriptions keep their comments, which become the documentation of the generated code.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2

from generate import PROTOS, compile_protos, search_path

DESCRIBED = PROTOS.parent / "clients" / "camserve.binpb"
# What the conformance kit makes its messages from; nobody reads comments there.
CONTRACT = PROTOS.parent / "conformance" / "src" / "camserve_conformance" / "contract.binpb"
# Administration is not for callers, as its listener is internal; the playground's files are for browsers.
_LEFT_OUT = ("admin.proto", "playground.proto")
_OURS = "camserve/v1/"
# Read out of errors, so no file of ours imports them.
_BESIDE = ["google/rpc/error_details.proto", "google/rpc/status.proto"]
_KEPT = (_OURS, "google/protobuf/", "google/api/httpbody.proto", "google/rpc/")
_JAVA_PACKAGE = "io.camserve.v1"
# Fields of FileDescriptorProto, as the paths of comments begin.
_DEPENDENCY = descriptor_pb2.FileDescriptorProto.DEPENDENCY_FIELD_NUMBER


def generate(out: Path, *, comments: bool = True) -> None:
    """Writes a FileDescriptorSet to `out`; raises SystemExit when protoc refuses."""
    protos = [path for path in sorted((PROTOS / _OURS).glob("*.proto")) if path.name not in _LEFT_OUT]
    with tempfile.TemporaryDirectory() as folder:
        described = Path(folder) / "described.binpb"
        wanted = ["--include_imports", "--include_source_info", f"--descriptor_set_out={described}"]
        compile_protos([*search_path(), *wanted, *map(str, protos), *_BESIDE])
        files = descriptor_pb2.FileDescriptorSet.FromString(described.read_bytes())
    reached = descriptor_pb2.FileDescriptorSet(file=_stripped(files))
    if not comments:
        for file in reached.file:
            file.ClearField("source_code_info")
    # One order of the fields, so that the same protos make the same bytes.
    out.write_bytes(reached.SerializeToString(deterministic=True))


def _stripped(files: descriptor_pb2.FileDescriptorSet) -> Iterator[descriptor_pb2.FileDescriptorProto]:
    for file in files.file:
        # Only rules and routes are written with it.
        if not file.name.startswith(_KEPT) or file.name == "google/protobuf/descriptor.proto":
            continue
        if file.name.startswith(_OURS):
            file.dependency[:] = [name for name in file.dependency if name.startswith(_KEPT)]
            file.options.java_multiple_files = True
            file.options.java_package = _JAVA_PACKAGE
            for service in file.service:
                for method in service.method:
                    method.ClearField("options")
            for message in file.message_type:
                _strip(message)
        commented = [one for one in file.source_code_info.location if _is_comment(one)]
        del file.source_code_info.location[:]
        file.source_code_info.location.extend(commented)
        yield file


def _strip(message: descriptor_pb2.DescriptorProto) -> None:
    for field in message.field:
        field.ClearField("options")
    for oneof in message.oneof_decl:
        oneof.ClearField("options")
    for nested in message.nested_type:
        _strip(nested)


def _is_comment(location: descriptor_pb2.SourceCodeInfo.Location) -> bool:
    return location.HasField("leading_comments") and location.path[:1] != [_DEPENDENCY]


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else DESCRIBED, comments="--no-comments" not in sys.argv)
