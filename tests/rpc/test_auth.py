from __future__ import annotations

import base64

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2 as grpc_health_pb2
from grpc_health.v1 import health_pb2_grpc as grpc_health_pb2_grpc

from camserve.v1 import auth_pb2, auth_pb2_grpc, health_pb2, health_pb2_grpc
from camserve_server.rpc.policy import policy_of
from camserve_server.rpc.server import services

GUARDED = [
    (service.full_name, method)
    for service in services().values()
    for method in service.methods
    if not policy_of(method).public
]


async def call(channel, service, method, token):
    metadata = (("authorization", f"Bearer {token}"),) if token else ()
    path = f"/{service}/{method.name}"
    shape = {
        (False, False): channel.unary_unary,
        (True, False): channel.stream_unary,
        (False, True): channel.unary_stream,
    }[method.client_streaming, method.server_streaming]
    made = shape(path)(iter([b""]) if method.client_streaming else b"", metadata=metadata)
    answer = made.read() if method.server_streaming else made
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await answer
    return caught.value


@pytest.mark.parametrize(("service", "method"), GUARDED, ids=lambda value: getattr(value, "name", value))
async def test_every_guarded_rpc_asks_for_a_token_and_its_scope(stack, refusal, service, method):
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        seen = refusal(await call(channel, service, method, None))
        assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "auth.missing_token")
        if not policy_of(method).scopes:
            return  # any valid token may
        seen = refusal(await call(channel, service, method, stack.token(scopes=("nothing",))))
        assert (seen.code, seen.reason) == (grpc.StatusCode.PERMISSION_DENIED, "auth.scope_insufficient")
        assert seen.error.status == 401


async def test_health_and_keys_are_public(stack):
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        health = await health_pb2_grpc.HealthServiceStub(channel).GetHealth(health_pb2.GetHealthRequest())
        keys = await auth_pb2_grpc.AuthServiceStub(channel).GetJwks(auth_pb2.GetJwksRequest())
    # `broken` is a model that cannot load.
    assert health.status == health_pb2.GetHealthResponse.degraded
    assert {part.name for part in health.components} == {"engine", "imaging", "store", "objects"}
    assert keys.keys[0].alg == "ES256"


async def test_client_credentials_become_a_token_that_works(stack, client, refusal):
    made = dict(line.split("=", 1) for line in stack.camserve("client", "create", "--tenant", "acme").stdout.split())
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)
        issued = await stub.IssueToken(auth_pb2.IssueTokenRequest(grant_type="client_credentials", **made))
        assert (issued.token_type, issued.expires_in) == ("Bearer", 3600)
        basic = base64.b64encode(f"{made['client_id']}:{made['client_secret']}".encode()).decode()
        issued = await stub.IssueToken(
            auth_pb2.IssueTokenRequest(grant_type="client_credentials", scope="inference.read"),
            metadata=(("authorization", f"Basic {basic}"),),
        )
        assert issued.scope == "inference.read"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.IssueToken(
                auth_pb2.IssueTokenRequest(grant_type="client_credentials", **(made | {"client_secret": "wrong"}))
            )
        seen = refusal(caught.value)
        assert (seen.code, seen.reason) == (grpc.StatusCode.UNAUTHENTICATED, "auth.invalid_token")
        assert stack.camserve("client", "revoke", made["client_id"], "--tenant", "acme").returncode == 0
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.IssueToken(auth_pb2.IssueTokenRequest(grant_type="client_credentials", **made))


async def test_every_service_tells_its_health(stack):
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        stub = grpc_health_pb2_grpc.HealthStub(channel)
        listed = await stub.List(grpc_health_pb2.HealthListRequest())
        one = await stub.Check(grpc_health_pb2.HealthCheckRequest(service="camserve.v1.JobService"))
    assert {"", "camserve.v1.InferenceService", "camserve.v1.JobService"} <= set(listed.statuses)
    assert {status.status for status in listed.statuses.values()} == {grpc_health_pb2.HealthCheckResponse.SERVING}
    assert one.status == grpc_health_pb2.HealthCheckResponse.SERVING


async def test_a_rotated_secret_and_the_one_before_it_work_until_the_overlap_ends(stack):
    made = dict(line.split("=", 1) for line in stack.camserve("client", "create", "--tenant", "acme").stdout.split())
    arguments = ("client", "rotate", made["client_id"], "--tenant")
    rotated = stack.camserve(*arguments, "acme").stdout.strip().removeprefix("client_secret=")
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        stub = auth_pb2_grpc.AuthServiceStub(channel)

        async def works(secret):
            request = auth_pb2.IssueTokenRequest(grant_type="client_credentials", **made | {"client_secret": secret})
            return await stub.IssueToken(request).code() is grpc.StatusCode.OK

        assert await works(rotated)
        assert await works(made["client_secret"])
        last = stack.camserve(*arguments, "acme", "--overlap", "0").stdout.strip().removeprefix("client_secret=")
        assert [await works(secret) for secret in (last, rotated, made["client_secret"])] == [True, False, False]
    for wrong in (("other",), ("acme", "--overlap", "soon")):
        refused = stack.camserve(*arguments, *wrong)
        assert (refused.returncode, refused.stdout) == (1, "")


@pytest.mark.parametrize("known", [True, False])
async def test_after_many_failures_a_client_waits_over_rest_and_grpc(stack, refusal, known):
    made = {"client_id": "client_" + "7" * 22, "client_secret": "secret"}
    if known:
        lines = stack.camserve("client", "create", "--tenant", "acme").stdout.split()
        made = dict(line.split("=", 1) for line in lines)
    grant = {"grant_type": "client_credentials"} | made
    async with (
        httpx.AsyncClient(base_url=stack.edge_url) as api,
        grpc.aio.insecure_channel(stack.grpc_target) as channel,
    ):
        for _ in range(10):
            answer = await api.post("/oauth2/token", data=grant | {"client_secret": "wrong"})
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        answer = await api.post("/oauth2/token", data=grant)
        error = answer.json()["error"]
        assert (answer.status_code, error["type"], error["code"]) == (429, "rate_limited", "rate.exceeded")
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth_pb2_grpc.AuthServiceStub(channel).IssueToken(auth_pb2.IssueTokenRequest(**grant))
    seen = refusal(caught.value)
    assert (seen.code, seen.reason, seen.retryable) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "rate.exceeded", True)
    assert int(dict(caught.value.trailing_metadata())["retry-after"]) <= 60


async def test_an_address_of_rest_that_a_native_caller_made_up_is_no_failure_of_ours(stack, refusal):
    async with grpc.aio.insecure_channel(stack.grpc_target) as channel:
        issue = auth_pb2_grpc.AuthServiceStub(channel).IssueToken
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await issue(auth_pb2.IssueTokenRequest(), metadata=(("x-envoy-original-path", "http://["),))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
