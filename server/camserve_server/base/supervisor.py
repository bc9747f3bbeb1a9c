"""What systemd is told of a service of `Type=notify`."""

from __future__ import annotations

import contextlib
import socket

from camserve_server.base.config import supervisor_socket


def tell_supervisor(state: str) -> None:
    """Says `READY=1` or `STOPPING=1` where somebody wants to know; a supervisor that does not listen is no fault."""
    address = supervisor_socket()
    if not address:
        return
    # One that begins with @ is in Linux's abstract namespace.
    path = f"\0{address[1:]}" if address.startswith("@") else address
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.sendto(state.encode(), path)
