"""A running caller: it makes calls and uploads as its standard input says, and answers each line with a line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.clients.languages import CLIENTS, Language
from benchmarks.service import Service

RAW = "raw"
CLIENT = "client"
_ENDED_WITHIN_S = 10.0


class CallerError(Exception):
    """A caller ended early; the message is the end of what it said."""


class Caller:
    """One process with the client of a language, which keeps its connections from one line to the next."""

    def __init__(self, language: Language, service: Service, picture: Path, folder: Path) -> None:
        """Starts it; what it says beside its answers goes to a file in `folder`."""
        self.language = language
        self._said = folder / f"{language.name}.log"
        environment = {
            **os.environ,
            "CAM_ADDRESS": service.grpc_target,
            "CAM_TOKEN": service.token,
            "CAM_PICTURE": str(picture),
        }
        with self._said.open("wb") as said:
            self._process = subprocess.Popen(
                language.command,
                cwd=CLIENTS / language.folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        self.pid = self._process.pid

    def call(self, way: str, count: int) -> None:
        """Classifies the picture `count` times, 32 at once, by raw stubs or by the client; raises CallerError."""
        self._answer(f"{way} {count}")

    def upload(self, path: Path) -> str:
        """Stores a file by the client and returns its storage id; raises CallerError."""
        return self._answer(f"upload {path}")

    def _answer(self, line: str) -> str:
        if not self._process.stdin or not self._process.stdout:
            raise CallerError("no pipe leads to the caller")
        try:
            print(line, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline().strip()
        except BrokenPipeError:
            answer = ""
        if not answer:
            said = self._said.read_text(errors="replace")[-3000:]
            raise CallerError(f"{self.language.name} ended over `{line}`: {said}")
        return answer

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it by the end of its input."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        try:
            self._process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
