"""Asks the running server's AdminService, on its internal listener."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any, TypeVar

import grpc
from google.rpc import status_pb2

from camserve.v1 import admin_pb2_grpc, errors_pb2
from camserve_server.base.config import Settings
from camserve_server.cli.service import channel_to
from camserve_server.cli.tokens import issuer

A = TypeVar("A")


def ask(settings: Settings, call: Callable[..., A]) -> A:
    """Returns what `call(stub, options)` does, `options` being arguments of each rpc.

    Raises ValueError with what the server says when it refuses, and when none answers.
    """
    token = issuer(settings).issue(tenant="operator", subject=_user(), scopes=("admin",), ttl_s=60)
    target = settings.internal_target
    with channel_to(target, settings.grpc_roots if settings.internal_tls else None) as channel:
        try:
            options = {"metadata": (("authorization", f"Bearer {token}"),), "timeout": 10}
            return call(admin_pb2_grpc.AdminServiceStub(channel), options)
        except grpc.RpcError as error:
            # Only a server says under which id; without one it was never asked.
            answered = "request-id" in str(error.trailing_metadata())
            if error.code() is grpc.StatusCode.UNAVAILABLE and not answered:
                raise ValueError(f"no server answers at {target}: start `camserve up` first") from None
            raise ValueError(f"{error.details()}{_details(error)}") from None


def _user() -> str:
    """Names who runs the command, for whoever reads later what was changed."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # in a container with a number for a user
        return "camserve"


def _details(error: Any) -> str:
    """Returns the facts of an error, in brackets."""
    trailers = dict(error.trailing_metadata() or ())
    described = errors_pb2.ErrorObject()
    for detail in status_pb2.Status.FromString(trailers.get("grpc-status-details-bin", b"")).details:
        detail.Unpack(described)
    facts = [f"{name} {_plain(value)}" for name, value in sorted(described.details.items())]
    return f" ({', '.join(facts)})" if facts else ""


def _plain(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value
