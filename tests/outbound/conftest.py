"""Places that would be called."""

from __future__ import annotations

import asyncio

import pytest


@pytest.fixture
def opened(monkeypatch):
    """Counts the sockets that are connected, and lets none of them connect."""
    places = []

    async def connect(loop, sock, place):
        places.append(place)
        raise OSError("no network here")

    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", connect)
    return places
