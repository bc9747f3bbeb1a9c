"""Generates gen/python from the protos: messages, stubs and type hints."""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

PROTOS = Path(__file__).parent
OURS = ["camserve/options/v1", "camserve/v1", "third_party/buf/validate", "third_party/envoy_ratelimit"]


def generate(out: Path) -> None:
    """Writes the generated tree to `out`, replacing what is there; raises SystemExit when protoc refuses."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    third_party = PROTOS / "third_party"
    files = [str(path) for folder in OURS for path in sorted((PROTOS / folder).glob("*.proto"))]
    tools = Path(sys.executable).parent
    include = resources.files("grpc_tools") / "_proto"
    status = protoc.main(
        [
            "protoc",
            f"-I{third_party}",
            f"-I{PROTOS}",
            f"-I{include}",
            *(f"--plugin=protoc-gen-{name}={tools / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *files,
        ]
    )
    if status:
        raise SystemExit(status)
    for stub in out.rglob("*_pb2_grpc.py*"):
        if "Stub" not in stub.read_text():  # a file without a service gets an empty stub
            stub.unlink()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent / "gen" / "python")
