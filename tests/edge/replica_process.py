"""A replica in a process of its own, to be killed: `python -m tests.edge.replica_process READ_S`.

It prints its port. Reads take so long and are answered; a POST kills it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import Message
from tests.edge.replica import Call, Replica

from camserve.v1 import health_pb2

POST = "/camserve.v1.AuthService/IssueToken"


@contextmanager
def replica_process(read_s: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Runs one; gives its process and its port."""
    command = [sys.executable, "-m", "tests.edge.replica_process", str(read_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, int(process.stdout.readline())
        finally:
            process.kill()


def _answer(call: Call) -> Iterator[Message]:
    if call.path == POST:
        os._exit(1)
    threading.Event().wait(float(sys.argv[1]))
    yield health_pb2.GetHealthResponse()


if __name__ == "__main__":
    replica = Replica()
    replica.answer = _answer
    print(replica.port, flush=True)  # noqa: T201
    threading.Event().wait()
