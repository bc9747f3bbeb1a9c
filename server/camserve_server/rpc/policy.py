"""The policy of every method, read from the protos."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor

from camserve.options.v1 import policy_pb2
from camserve_server.base.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call a method."""

    public: bool
    scopes: frozenset[str]


class PolicyError(OperatorError):
    """A method lacks a policy, or has one that contradicts itself."""


def policy_of(method: MethodDescriptor) -> Policy:
    """Returns the method's policy; raises PolicyError when it has none or is neither public nor scoped."""
    options = method.GetOptions()
    if not options.HasExtension(policy_pb2.policy):
        raise PolicyError(f"{method.full_name} has no policy")
    declared = options.Extensions[policy_pb2.policy]
    if declared.public == bool(declared.scopes):
        raise PolicyError(f"{method.full_name} must be either public or scoped")
    return Policy(declared.public, frozenset(declared.scopes))
