"""What the client needs of gRPC and of REST: two implementations, and nothing above them knows which."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol

from camserve_client.method import A, Method, Q

# Three heartbeats of a stream.
IDLE_S = 45.0


@dataclass(frozen=True, slots=True)
class Sending:
    """How one attempt is sent: lower-case headers (over gRPC metadata), and the seconds it may take."""

    headers: dict[str, str] = field(default_factory=dict)
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer(Generic[A]):
    """A message that came, and its headers by their lower-case names."""

    message: A
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes that a call streams: `chunks` come to exactly `size_bytes`, and are of `media_type`."""

    chunks: AsyncIterator[bytes]
    size_bytes: int
    media_type: str


async def watched(chunks: AsyncIterator[bytes], failures: list[Exception]) -> AsyncIterator[bytes]:
    """Yields the chunks, and notes why they end early: libraries end the call then, and say no more than that."""
    try:
        async for chunk in chunks:
            yield chunk
    except Exception as failure:
        failures.append(failure)
        raise


class Transport(Protocol):
    """Makes single attempts; every failure is a CamserveError.

    `inline_bytes` is the largest image that is better off within a message than as a stream.
    """

    inline_bytes: int

    async def unary(self, method: Method[Q, A], request: Q, sending: Sending) -> Answer[A]:
        """Sends a message and returns the one that answers."""

    async def upload(self, method: Method[Q, A], request: Q, piece: Piece, sending: Sending) -> Answer[A]:
        """Streams bytes, with the options of `request`, and returns the message that answers."""

    def stream(self, method: Method[Q, A], request: Q, sending: Sending) -> AsyncGenerator[A]:
        """Sends a message and yields those that answer.

        One that says nothing for IDLE_S is a broken connection.
        """

    async def close(self) -> None:
        """Ends every connection."""
