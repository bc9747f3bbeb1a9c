"""Messages between the pool and its workers: one JSON line each, and descriptors beside it."""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

MAX_MESSAGE_BYTES: Final = 1 << 16
# Stands where an answer has the code of an error: the request wants this picture later.
DEFERRED: Final = "deferred"
_MAX_DESCRIPTORS: Final = 4
_FLAGS: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


class ChannelError(Exception):
    """The other side broke the protocol."""


class Channel:
    """One end of a stream socket pair; whether calls block is the socket's own setting."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._data = b""
        self._fds: list[int] = []

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message and copies of descriptors; raises ChannelError when it does not fit at once."""
        data = json.dumps(message).encode() + b"\n"
        if len(data) > MAX_MESSAGE_BYTES or socket.send_fds(self.sock, [data], list(fds)) != len(data):
            raise ChannelError("message too long")

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """Read once; return a message with the descriptors that are now the caller's, or None if it is not complete.

        Raises EOFError when the other side is gone, ChannelError when it talks nonsense, and what `recvmsg` raises.
        """
        size = array.array("i").itemsize * _MAX_DESCRIPTORS
        data, ancillary, flags, _ = self.sock.recvmsg(MAX_MESSAGE_BYTES, socket.CMSG_SPACE(size), _FLAGS)
        for level, kind, body in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received = array.array("i")
                received.frombytes(body[: len(body) - len(body) % received.itemsize])
                self._fds.extend(received)
        if not data:
            raise EOFError
        self._data += data
        if flags & socket.MSG_CTRUNC or len(self._data) > MAX_MESSAGE_BYTES or len(self._fds) > _MAX_DESCRIPTORS:
            raise ChannelError("too much")
        line, end, rest = self._data.partition(b"\n")
        if not end:
            return None
        if rest:
            raise ChannelError("more than one message")
        self._data, fds = b"", self._fds
        self._fds = []
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            close_all(fds)
            raise ChannelError("not a message")
        return message, fds

    def close(self) -> None:
        """Close the socket and any descriptor of an unfinished message."""
        close_all(self._fds)
        self._fds = []
        self.sock.close()


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for fd in fds:
        os.close(fd)
