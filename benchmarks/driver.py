"""Child processes of the benchmark that take one JSON line and answer with one."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

from benchmarks.processes import descendants

_ENDED_WITHIN_S = 30.0


class DriverError(Exception):
    """A child ended instead of answering; its log says why."""


class Driver:
    """A module of this package that runs as a process of its own and obeys line by line."""

    def __init__(self, module: str, log_dir: Path, environment: Mapping[str, str] | None = None) -> None:
        self._module = module
        self._log = log_dir / f"{module}.log"
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def pids(self) -> list[int]:
        """Returns the process and its descendants."""
        return descendants(self._process.pid)

    def hello(self) -> Any:
        """Waits until the child is ready and returns what it says about itself; to be called first, once."""
        return self._answer()

    def ask(self, **order: Any) -> Any:
        """Sends an order and returns the answer; raises DriverError when none comes."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self._fail()
        return self._answer()

    def close(self) -> None:
        """Lets the child end, which it does at the end of its input."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_ENDED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._fail()
        return json.loads(line)

    def _fail(self) -> NoReturn:
        status = self._process.wait(_ENDED_WITHIN_S)
        last = self._log.read_text(errors="replace").strip().splitlines()[-5:]
        raise DriverError(f"benchmarks.{self._module} ended with status {status}: " + "\n".join(last))


def obey(serve: Callable[[dict[str, Any]], Any], hello: Any = None) -> None:
    """Says `hello`, then answers every line of standard input with what `serve` returns; the child's side."""
    _say(hello)
    for line in sys.stdin:
        _say(serve(json.loads(line)))


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
