"""Tokens: given, made at every call, fetched with client credentials."""

from __future__ import annotations

import asyncio
import random

import pytest
from clients.python.tests.clock import FakeClock
from clients.python.tests.conftest import address
from clients.python.tests.pictures import STAR, noise

from camserve_client import AsyncClient, Backoff, CamserveError, ClientCredentials
from camserve_client.auth import FetchedTokens
from camserve_client.calls import Calls
from camserve_client.gen import limits_pb2, methods
from camserve_client.grpc_transport import GrpcTransport
from camserve_client.retry import Retries

SCOPE = "inference.write inference.read"


@pytest.fixture
def credentials(stack, tenant):
    printed = stack.camserve("client", "create", "--tenant", tenant, "--scope", SCOPE).stdout
    told = dict(line.split("=", 1) for line in printed.splitlines())
    return ClientCredentials(told["client_id"], told["client_secret"])


async def test_credentials_are_enough(stack, way, credentials, tenant):
    async with AsyncClient(address(stack, way), credentials=credentials) as client:
        assert (await client.infer(STAR, model="shapes")).top.id == "star"
        assert (await client.limits()).tenant == tenant


async def test_wrong_credentials_are_told(stack, way, credentials):
    wrong = ClientCredentials(credentials.client_id, "secret_of_somebody_else")
    async with AsyncClient(address(stack, way), credentials=wrong) as client:
        with pytest.raises(CamserveError) as refused:
            await client.models()
    assert (refused.value.code, refused.value.status) == ("auth.invalid_token", 401)
    assert "invalid_client" in refused.value.message


async def test_scopes_can_be_fewer(stack, way, credentials):
    fewer = ClientCredentials(credentials.client_id, credentials.client_secret, ("inference.read",))
    async with AsyncClient(address(stack, way), credentials=fewer) as client:
        assert await client.models()
        with pytest.raises(CamserveError) as refused:
            await client.infer(STAR, model="shapes")
    assert (refused.value.code, refused.value.status) == ("auth.scope_insufficient", 401)


async def test_a_function_gives_the_token_of_each_call(stack, way, tenant):
    given = []

    def at_once():
        given.append(stack.token(tenant=tenant))
        return given[-1]

    async def later():
        return at_once()

    for source in (at_once, later):
        async with AsyncClient(address(stack, way), token=source) as client:
            await client.models()
            await client.limits()
    assert len(given) == 4


class Counting:
    """A transport that counts the tokens it fetches, and refuses calls with those it is told to."""

    def __init__(self, transport):
        self._transport = transport
        self.inline_bytes = transport.inline_bytes
        self.fetched = []
        self.refused = set()

    async def unary(self, method, request, sending):
        if method is not methods.ISSUE_TOKEN:
            self._check(sending)
            return await self._transport.unary(method, request, sending)
        answer = await self._transport.unary(method, request, sending)
        self.fetched.append(answer.message.access_token)
        return answer

    async def stream(self, method, request, sending):
        self._check(sending)
        async for message in self._transport.stream(method, request, sending):
            yield message

    def _check(self, sending):
        if sending.headers["authorization"].removeprefix("Bearer ") in self.refused:
            raise CamserveError("auth.token_expired", "", status=401)


@pytest.fixture
async def fetching(stack, credentials):
    """Tokens over the real service, by a clock that the test sets."""
    transport = GrpcTransport(stack.grpc_target, tls=False)
    counting, clock = Counting(transport), FakeClock()
    retries = Retries(Backoff(), clock, random.Random(1))
    tokens = FetchedTokens(counting, credentials, retries)
    yield counting, clock, tokens, Calls(counting, tokens, retries, 60)
    await transport.close()


async def test_one_fetch_serves_all_calls_that_wait(fetching):
    counting, _, tokens, _ = fetching
    assert len(set(await asyncio.gather(*(tokens.token(10) for _ in range(20))))) == 1
    assert len(counting.fetched) == 1


async def test_a_token_is_renewed_before_it_ends(fetching):
    counting, clock, tokens, _ = fetching
    first = await tokens.token(10)
    clock.time += 3200
    assert await tokens.token(10) == first
    clock.time += 100
    assert await tokens.token(10) != first
    assert len(counting.fetched) == 2


async def test_a_token_that_is_refused_is_replaced_once(fetching):
    counting, _, tokens, calls = fetching
    counting.refused.add(await tokens.token(10))
    answer = await calls.unary(methods.GET_LIMITS, limits_pb2.GetLimitsRequest())
    assert answer.message.tenant
    assert len(counting.fetched) == 2
    counting.refused.add(counting.fetched[-1])
    request = methods.INFER_BATCH.request(model="shapes")
    request.inputs.add(id="a").image.bytes = STAR.read_bytes()
    events = [event async for event in calls.stream(methods.INFER_BATCH, request)]
    assert events[0].item.id == "a"
    assert len(counting.fetched) == 3


async def test_a_token_that_is_always_refused_is_told(fetching):
    counting, _, _, calls = fetching
    counting.refused = Everything()
    with pytest.raises(CamserveError) as refused:
        await calls.unary(methods.GET_LIMITS, limits_pb2.GetLimitsRequest())
    assert refused.value.code == "auth.token_expired"
    assert len(counting.fetched) == 2


class Everything:
    """Has whatever is asked for."""

    def __contains__(self, _):
        return True


async def test_a_refusal_reaches_a_caller_who_is_still_sending(stack, way):
    async with AsyncClient(address(stack, way), token="a.b.c") as client:
        for _ in range(10):
            with pytest.raises(CamserveError) as refused:
                await client.infer(noise(1200), model="shapes")
            assert (refused.value.code, refused.value.status) == ("auth.invalid_token", 401)


def test_no_secret_is_in_what_is_printed():
    assert "hidden" not in repr(ClientCredentials("me", "hidden"))


async def test_a_function_that_takes_too_long_is_not_waited_for(stack, way):
    async def slow():
        await asyncio.sleep(3600)

    async with AsyncClient(address(stack, way), token=slow, timeout_s=0.2) as client:
        with pytest.raises(CamserveError) as late:
            await client.limits()
    assert late.value.code == "timeout.exceeded"
