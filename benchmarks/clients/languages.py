"""The callers: a program in the language of each client, how it is built and how it is started."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).parents[2]
CLIENTS = _ROOT / "clients"
_JAVA = CLIENTS / "java"
_JAVA_CLASSES = f"{_JAVA}/example/target/classes:{_JAVA}/example/target/lib/*"
_JAVA_MAIN = "io.camserve.example.Caller"
_NPM_INSTALL = ("npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent")
_MAVEN = ("mvn", "--batch-mode", "--no-transfer-progress", "--quiet", "-DskipTests", "package")


class BuildError(Exception):
    """A caller could not be built; the message is the end of what the build said."""


@dataclass(frozen=True, slots=True)
class Language:
    """A client's language: the tools it needs, how its caller is built in the client's folder, and its command.

    `calls` says whether the caller classifies pictures as well, `held` whether its memory has a target.
    """

    name: str
    folder: str
    tools: tuple[str, ...]
    builds: tuple[tuple[str, ...], ...]
    command: tuple[str, ...]
    calls: bool = False
    held: bool = True

    def missing(self) -> list[str]:
        """Returns the tools that are not on the path."""
        return [tool for tool in self.tools if not shutil.which(tool)]

    def build(self) -> None:
        """Builds the caller in folders that git ignores; raises BuildError."""
        for command in self.builds:
            done = subprocess.run(command, cwd=CLIENTS / self.folder, capture_output=True, text=True, check=False)
            if done.returncode:
                raise BuildError(f"{' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")


def languages(folder: Path) -> list[Language]:
    """Returns every client's language; `folder` receives what is built nowhere else."""
    go = str(folder / "go-caller")
    return [
        Language("Python", "python", (), (), (sys.executable, "benchmarks/caller.py"), calls=True),
        Language("Go", "go", ("go",), (("go", "build", "-o", go, "./internal/caller"),), (go,), calls=True),
        Language(
            "TypeScript (Node)",
            "typescript",
            ("npm", "npx", "node"),
            (_NPM_INSTALL, ("npx", "tsc", "--project", "tsconfig.test.json")),
            ("node", "build/test/caller.js"),
            calls=True,
        ),
        # As shipped the virtual machine lets garbage grow up to a quarter of the machine's memory, which tells nothing
        # of what the client needs.
        Language(
            "Java",
            "java",
            ("java", "mvn"),
            (_MAVEN,),
            ("java", "-cp", _JAVA_CLASSES, _JAVA_MAIN),
            calls=True,
            held=False,
        ),
        Language(
            "Java, -Xmx40m",
            "java",
            ("java", "mvn"),
            (_MAVEN,),
            ("java", "-Xmx40m", "-XX:MaxDirectMemorySize=24m", "-cp", _JAVA_CLASSES, _JAVA_MAIN),
        ),
        Language(
            "Rust",
            "rust",
            ("cargo",),
            (("cargo", "build", "--quiet", "--release", "--example", "caller"),),
            ("target/release/examples/caller",),
        ),
        Language(
            "C++",
            "cpp",
            ("cmake", "c++", "pkg-config", "protoc", "grpc_cpp_plugin"),
            (("cmake", "-S", ".", "-B", "build"), ("cmake", "--build", "build", "--target", "caller")),
            ("build/caller",),
        ),
    ]
