"""Every method with a token of every scope, over REST and gRPC: it asks for the scopes of its policy and no others."""

from __future__ import annotations

import grpc
import httpx
import pytest
from tests.calls import BINDINGS, METHODS, name, native, rest

from camserve_server.core.tokens import SCOPES
from camserve_server.rpc.policy import policy_of

SCOPE_SETS = [(), *((scope,) for scope in (*SCOPES, "admin", "nothing"))]
TENANT = "scopes"
IDS = {
    "job_id": "job_" + "0" * 22,
    "storage_id": "img_" + "0" * 22,
    "object_id": "obj_" + "0" * 22,
    "webhook_id": "wh_" + "0" * 22,
    "event_id": "evt_" + "0" * 22,
    "model": "none",
    "file": "main.js",
}


def test_every_scope_of_a_policy_is_one_that_tokens_get():
    asked = {scope for method in METHODS.values() for scope in policy_of(method).scopes}
    assert asked == set(SCOPES)


@pytest.mark.parametrize("method", METHODS.values(), ids=lambda method: method.full_name)
async def test_over_grpc_a_method_asks_for_its_scopes_and_no_others(stack, method):
    policy = policy_of(method)
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        for scopes in SCOPE_SETS:
            answer = await native(channel, method, stack.token(tenant=TENANT, scopes=scopes))
            refused = answer.status is grpc.StatusCode.PERMISSION_DENIED and answer.code == "auth.scope_insufficient"
            assert refused == bool(policy.scopes - set(scopes)), (scopes, answer)
            if refused:
                assert answer.error["details"] == {"required": " ".join(sorted(policy.scopes))}
            assert answer.code not in ("auth.missing_token", "auth.invalid_token", "internal"), answer


@pytest.mark.parametrize(
    ("method", "binding"),
    BINDINGS,
    ids=[f"{binding.verb} {binding.template}-{each.name}" for each, binding in BINDINGS],
)
def test_over_rest_a_method_asks_for_its_scopes_and_no_others(stack, method, binding):
    policy = policy_of(METHODS[name(method)])
    with httpx.Client(base_url=stack.edge_url, timeout=30) as api:
        for scopes in SCOPE_SETS:
            api.headers["authorization"] = f"Bearer {stack.token(tenant=TENANT, scopes=scopes)}"
            answer = rest(api, method, binding, IDS)
            challenge = dict(answer.headers).get("www-authenticate", "")
            refused = answer.status == 401 and 'error="insufficient_scope"' in challenge
            assert refused == bool(policy.scopes - set(scopes)), (scopes, answer)
            if refused and binding.verb != "HEAD":
                assert answer.code == "auth.scope_insufficient"
            assert answer.code not in ("auth.missing_token", "auth.invalid_token", "internal", "route.not_found"), (
                answer
            )


def test_every_method_is_reached_over_rest():
    assert {name(method) for method, _ in BINDINGS} == set(METHODS)
