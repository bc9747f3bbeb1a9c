"""The policy of every method, read from the protos."""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor

from camserve.options.v1 import policy_pb2
from camserve_server.base.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may call a method; under which operation its idempotency keys are remembered, if it takes any.

    `costs` says that a running call is one of its tenant's concurrent ones, `costs_images` that it has images besides.
    `http_code` is the REST status of success where it is not 200.
    """

    public: bool
    scopes: frozenset[str]
    operation: str = ""
    refuses_key: bool = False
    costs: bool = False
    costs_images: bool = False
    http_code: int | None = None


class PolicyError(OperatorError):
    """A method lacks a policy, or has one that contradicts itself."""


def policy_of(method: MethodDescriptor) -> Policy:
    """Returns the method's policy; raises PolicyError when it has none or one that contradicts itself."""
    options = method.GetOptions()
    if not options.HasExtension(policy_pb2.policy):
        raise PolicyError(f"{method.full_name} has no policy")
    declared = options.Extensions[policy_pb2.policy]
    if declared.public + declared.any_scope + bool(declared.scopes) != 1:
        raise PolicyError(f"{method.full_name} must be either public or scoped")
    keys = declared.idempotency
    if declared.HasField("idempotency") and bool(keys.operation) == keys.refused:
        raise PolicyError(f"{method.full_name} must either name an operation for its keys or refuse them")
    if declared.HasField("idempotency") and declared.public and not method.client_streaming:
        raise PolicyError(f"{method.full_name} is public: there is no tenant whose keys these could be")
    costs = declared.HasField("cost")
    if costs and declared.public:
        raise PolicyError(f"{method.full_name} is public: there is no tenant that it could cost something")
    usual = declared.success[0] if declared.success else 200
    return Policy(
        declared.public,
        frozenset(declared.scopes),
        keys.operation,
        keys.refused,
        costs,
        declared.cost.images,
        None if usual == 200 else usual,
    )
