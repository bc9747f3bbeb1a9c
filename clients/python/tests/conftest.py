"""What the client's tests share: the running stack, and a client for every way to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from uuid import uuid4

import pytest
from tests.conftest import Stack, make_stack, stack

from camserve_client import AsyncClient

__all__ = ["make_stack", "stack"]

WAYS = ("grpc", "rest", "grpc through the edge")


def address(stack: Stack, way: str) -> str:
    """The address of a stack for one of the ways to it."""
    edge = stack.edge_url.removeprefix("http://")
    return {"grpc": f"grpc://{stack.grpc_target}", "rest": stack.edge_url, "grpc through the edge": f"grpc://{edge}"}[
        way
    ]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def tenant() -> str:
    return f"client-{uuid4()}"


@pytest.fixture
async def client(stack: Stack, way: str, tenant: str) -> AsyncIterator[AsyncClient]:
    """A client of a tenant of its own, by each of the ways."""
    async with AsyncClient(address(stack, way), token=stack.token(tenant=tenant)) as entered:
        yield entered


@pytest.fixture
def connect(stack: Stack, tenant: str) -> Callable[..., AsyncClient]:
    """Makes clients of the same tenant, to be entered."""

    def make(at: str, **options: object) -> AsyncClient:
        return AsyncClient(at, **{"token": stack.token(tenant=tenant), **options})  # type: ignore[arg-type]

    return make
