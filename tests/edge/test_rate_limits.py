"""The edge asks the rate limiter, and does what it says."""

from __future__ import annotations

import grpc
import pytest

from camserve.v1 import models_pb2, models_pb2_grpc
from camserve_server.base.errors import Reason
from envoy_ratelimit import rls_pb2 as pb

OK, OVER_LIMIT = pb.RateLimitResponse.OK, pb.RateLimitResponse.OVER_LIMIT


def values(**headers):
    return [pb.HeaderValue(key=key.replace("_", "-"), value=value) for key, value in headers.items()]


@pytest.fixture
def asked(edge):
    """What the limiter was told of each request."""
    seen = []

    def limit(facts):
        seen.append(facts)
        return pb.RateLimitResponse(overall_code=OK)

    edge.replica.limit = limit
    return seen


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("GET", "/v1/models", 200),
        ("GET", "/v1/nothing", 404),
        ("DELETE", "/v1/models", 405),
        ("POST", "/v1/infer", 415),
        ("GET", "/v1/models?nonsense=1", 400),
    ],
)
def test_every_request_of_a_tenant_counts_once(caller, asked, verb, path, status):
    answer = caller.request(verb, path)
    assert answer.status_code == status
    assert asked == [{"tenant": "acme", "request_id": answer.headers["request-id"]}]


def test_strangers_and_public_routes_are_not_asked_about(stranger, asked):
    assert stranger.get("/v1/models").status_code == 401
    assert stranger.get("/.well-known/jwks.json").status_code == 200
    assert asked == []


def test_a_request_over_the_limit_is_refused_in_our_words(caller, edge):
    edge.replica.limit = lambda _: pb.RateLimitResponse(
        overall_code=OVER_LIMIT,
        response_headers_to_add=values(retry_after="7", x_ratelimit_limit="5", x_ratelimit_remaining="0"),
    )
    answer = caller.get("/v1/models")
    assert answer.status_code == 429
    assert (answer.json()["error"]["code"], answer.json()["error"]["type"]) == ("rate.exceeded", "rate_limited")
    assert answer.json()["error"]["request_id"] == answer.headers["request-id"]
    assert (answer.headers["retry-after"], answer.headers["x-ratelimit-limit"]) == ("7", "5")
    assert not edge.replica.received


def test_a_native_call_over_the_limit_is_resource_exhausted(edge):
    edge.replica.limit = lambda _: pb.RateLimitResponse(
        overall_code=OVER_LIMIT, response_headers_to_add=values(retry_after="7")
    )
    with grpc.insecure_channel(f"127.0.0.1:{edge.port}") as channel, pytest.raises(grpc.RpcError) as refusal:
        models_pb2_grpc.ModelServiceStub(channel).ListModels(
            models_pb2.ListModelsRequest(), metadata=(("authorization", f"Bearer {edge.token()}"),), timeout=10
        )
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = dict(refusal.value.trailing_metadata()) | dict(refusal.value.initial_metadata())
    assert told["retry-after"] == "7"


def test_the_limiters_note_reaches_the_replica_and_a_callers_own_does_not(caller, edge):
    caller.get("/v1/models", headers={"x-camserve-counted": "forged"})
    edge.replica.limit = lambda _: pb.RateLimitResponse(
        overall_code=OK, request_headers_to_add=values(x_camserve_counted="note")
    )
    caller.get("/v1/models", headers={"x-camserve-counted": "forged"})
    without, with_note = edge.replica.received
    assert "x-camserve-counted" not in without.metadata
    assert with_note.metadata["x-camserve-counted"] == "note"


@pytest.mark.parametrize("late", [False, True])
def test_the_rate_is_told_with_answers_and_with_errors_of_replicas(caller, edge, late):
    edge.replica.limit = lambda _: pb.RateLimitResponse(
        overall_code=OK, response_headers_to_add=values(x_ratelimit_remaining="3")
    )
    assert caller.get("/v1/models").headers["x-ratelimit-remaining"] == "3"

    def fail(call):
        call.fail(Reason.MODEL_NOT_FOUND, late=late)
        yield

    edge.replica.answer = fail
    answer = caller.get("/v1/models")
    assert (answer.status_code, answer.headers["x-ratelimit-remaining"]) == (404, "3")


def test_without_a_limiter_requests_pass(caller, edge):
    def broken(_):
        raise RuntimeError("the limiter fails")

    edge.replica.limit = broken
    assert caller.get("/v1/models").status_code == 200


def test_the_limiter_is_told_which_requests_wait_for_the_answer_to_one_image(caller, edge, asked):
    edge.replica.answer = lambda _: iter(())
    caller.post("/v1/infer", json={})
    caller.post("/v1/infer", content=b"x", headers={"content-type": "image/png"})
    caller.post("/v1/jobs", json={})
    caller.post("/v1/infer:batch", json={})
    caller.post("/v1/infer", json={}, headers={"prefer": "respond-async", "x-camserve-kind": "one_image"})
    assert [facts.get("kind") for facts in asked] == ["one_image", "one_image", None, None, None]


def test_a_tenant_for_which_there_is_no_room_is_answered_without_asking_for_a_while(edge):
    asked = []

    def limit(facts):
        asked.append(facts)
        headers = values(x_camserve_shed="60000", retry_after="1", x_ratelimit_remaining="7")
        shed = facts.get("kind") and facts["tenant"] == "crowd"
        return pb.RateLimitResponse(overall_code=OVER_LIMIT if shed else OK, response_headers_to_add=headers)

    edge.replica.limit = limit

    def infer(tenant, **headers):
        with edge.client(headers={"authorization": f"Bearer {edge.token(tenant=tenant)}"}) as client:
            return client.post("/v1/infer", json={}, headers=headers)

    answers = [infer("crowd") for _ in range(5)]
    assert len(asked) == 1
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"service.overloaded"}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert {answer.headers["x-ratelimit-remaining"] for answer in answers} == {"7"}
    assert len({answer.headers["request-id"] for answer in answers}) == 5
    # Others are asked about, and so is what the tenant wants otherwise.
    assert infer("other").status_code == 200
    assert infer("crowd", prefer="respond-async").status_code == 200
    with edge.client(headers={"authorization": f"Bearer {edge.token(tenant='crowd')}"}) as client:
        assert client.get("/v1/models").status_code == 200
    assert len(asked) == 4


def test_a_replica_without_room_for_a_tenant_is_left_alone_for_a_while_too(edge):
    def full(call):
        call.fail(Reason.SERVICE_OVERLOADED, x_camserve_shed="60000", x_ratelimit_remaining="7")
        yield

    edge.replica.answer = full
    with edge.client(headers={"authorization": f"Bearer {edge.token(tenant='rush')}"}) as client:
        answers = [client.post("/v1/infer", json={}) for _ in range(3)]
    assert len(edge.replica.received) == 1
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["error"]["code"] for answer in answers} == {"service.overloaded"}
    assert {answer.headers["retry-after"] for answer in answers} == {"1"}
    assert {answer.headers["x-ratelimit-remaining"] for answer in answers} == {"7"}
    assert not any("x-camserve-shed" in answer.headers for answer in answers)


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
def test_a_refusal_for_want_of_room_is_worded_as_one(caller, edge, content_type):
    edge.replica.limit = lambda _: pb.RateLimitResponse(
        overall_code=OVER_LIMIT, response_headers_to_add=values(x_camserve_shed="0", retry_after="1")
    )
    answer = caller.post("/v1/infer", content=b"{}", headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "service.overloaded")
    assert answer.headers["retry-after"] == "1"
    assert "x-camserve-shed" not in answer.headers
    assert not edge.replica.received
