"""A method of the service: its name over gRPC and its route over REST."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

Q = TypeVar("Q", bound=Message)
A = TypeVar("A", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Q, A]):
    """Names a method both ways.

    `route` holds fields of the request in braces; the others are the body where `has_body`, else the query. `keyed`
    methods take an idempotency key, `public` ones no token.
    """

    path: str
    request: type[Q]
    response: type[A]
    verb: str
    route: str
    has_body: bool
    keyed: bool
    public: bool

    @property
    def repeatable(self) -> bool:
        """Is true when sending it twice does what sending it once does, without a key."""
        return self.verb in ("GET", "HEAD", "OPTIONS", "DELETE")
