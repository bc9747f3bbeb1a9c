"""Generates gen/python from the protos: messages, stubs and type hints. Then what the clients are made from."""

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
    compile_protos(
        [
            *search_path(),
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out=quiet:{out}",
            f"--mypy_grpc_out=quiet:{out}",
            *(str(path) for folder in OURS for path in sorted((PROTOS / folder).glob("*.proto"))),
        ]
    )
    for stub in out.rglob("*_pb2_grpc.py*"):
        if "Stub" not in stub.read_text():  # a file without a service gets an empty stub
            stub.unlink()


def search_path() -> list[str]:
    """Returns the arguments that say where protos lie."""
    include = resources.files("grpc_tools") / "_proto"
    return [f"-I{folder}" for folder in (PROTOS / "third_party", PROTOS, include)]


def compile_protos(arguments: list[str]) -> None:
    """Runs protoc; raises SystemExit when it refuses."""
    tools = Path(sys.executable).parent
    plugins = [f"--plugin=protoc-gen-{name}={tools / f'protoc-gen-{name}'}" for name in ("mypy", "mypy_grpc")]
    if status := protoc.main(["protoc", *plugins, *arguments]):
        raise SystemExit(status)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        generate(Path(sys.argv[1]))
    else:
        generate(PROTOS.parent / "gen" / "python")
        # Read only now: they need what has just been generated.
        import generate_client
        import generate_stubs

        generate_client.generate(PROTOS.parent / "clients" / "python" / "src" / generate_client.PACKAGE)
        generate_stubs.generate(generate_stubs.DESCRIBED)
        generate_stubs.generate(generate_stubs.CONTRACT, comments=False)
