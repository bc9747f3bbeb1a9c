"""What tenants may do, over REST and native gRPC, on one replica and on two."""

from __future__ import annotations

import base64
import datetime
import os
import re
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import grpc
import httpx
import psutil
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.conftest import free_ports, start_replica
from tests.images import encoded, star_png

from camserve.v1 import limits_pb2, limits_pb2_grpc, models_pb2, models_pb2_grpc

pytestmark = pytest.mark.timeout(120)
IN_FORCE_WITHIN_S = 2.0


class Tenant:
    """One tenant of a stack, on REST and on the gRPC port."""

    def __init__(self, stack, name):
        self.stack, self.name = stack, name
        self.headers = stack.headers(tenant=name)
        self.rest = httpx.Client(base_url=stack.edge_url, headers=self.headers, timeout=30)
        self.metadata = (("authorization", self.headers["Authorization"]),)

    def limit(self, *options):
        """Sets limits and returns once they are in force, however the server cached what was before."""
        done = self.stack.camserve("tenants", "set", self.name, *options)
        assert done.returncode == 0, done.stderr
        time.sleep(IN_FORCE_WITHIN_S)
        return done.stdout

    def limits(self):
        answer = self.rest.get("/v1/limits")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def infer(self, data=None, **headers):
        image = {"bytes": base64.b64encode(star_png() if data is None else data).decode()}
        return self.rest.post("/v1/infer", json={"model": "shapes", "image": image}, headers=headers)

    def list_models(self, target=None):
        """Lists the models over gRPC and returns the call."""
        with grpc.insecure_channel(target or self.stack.grpc_target) as channel:
            _, call = models_pb2_grpc.ModelServiceStub(channel).ListModels.with_call(
                models_pb2.ListModelsRequest(), metadata=self.metadata, timeout=20
            )
        return call


@pytest.fixture
def tenant(stack, request):
    name = request.node.name[:90].replace("[", ".").replace("]", "")
    tenant = Tenant(stack, name)
    yield tenant
    tenant.rest.close()
    stack.camserve("tenants", "reset", name)


def code(answer):
    return answer.json()["error"]["code"]


def test_limits_are_told_as_the_contract_says(tenant):
    limits = tenant.limits()
    assert set(limits) == {
        *("tenant", "requests_per_second", "images_per_day", "concurrency", "max_image_bytes", "max_json_bytes"),
        *("max_batch_size", "max_side_px", "max_pixels", "max_cam_side_px", "sync_timeout_s", "retention_hours"),
    }
    assert limits["tenant"] == tenant.name
    assert set(limits["requests_per_second"]) == {"limit", "burst", "remaining"}
    assert set(limits["concurrency"]) == {"limit", "in_use"}
    assert set(limits["retention_hours"]) == {"default", "max"}
    assert limits["images_per_day"]["used"] == 0
    resets_at = datetime.datetime.fromisoformat(limits["images_per_day"]["resets_at"])
    assert (resets_at.hour, resets_at.minute, resets_at.second) == (0, 0, 0)
    assert datetime.timedelta(0) < resets_at - datetime.datetime.now(datetime.UTC) <= datetime.timedelta(days=1)
    assert (limits["max_image_bytes"], limits["max_batch_size"]) == ("100000000", 256)


def test_any_valid_token_may_ask_for_its_limits(stack):
    headers = stack.headers(tenant="scopeless", scopes=())
    assert httpx.get(f"{stack.edge_url}/v1/limits", headers=headers).json()["tenant"] == "scopeless"
    assert httpx.get(f"{stack.edge_url}/v1/limits").status_code == 401


@pytest.mark.parametrize("native", [False, True], ids=["rest", "direct"])
def test_a_tenant_that_sends_too_many_requests_is_told_when_to_come_again(tenant, native):
    tenant.limit("--rps", "1", "--burst", "3")
    if not native:
        answers = [tenant.rest.get("/v1/models") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        assert [answer.headers["x-ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]
        assert {answer.headers["x-ratelimit-limit"] for answer in answers} == {"3"}
        assert all(1 <= int(answer.headers["x-ratelimit-reset"]) <= 3 for answer in answers)
        assert (code(answers[3]), answers[3].headers["retry-after"]) == ("rate.exceeded", "1")
        return
    calls = [tenant.list_models() for _ in range(3)]
    assert [dict(call.initial_metadata())["x-ratelimit-remaining"] for call in calls] == ["2", "1", "0"]
    with pytest.raises(grpc.RpcError) as refusal:
        tenant.list_models()
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert dict(refusal.value.trailing_metadata())["retry-after"] == "1"
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in rpc_status.from_call(refusal.value).details)
    assert retry.retry_delay.seconds == 1


def test_one_request_counts_once_on_every_way_in(tenant):
    tenant.limit("--rps", "1", "--burst", "1000")
    edge = tenant.stack.edge_url.removeprefix("http://")
    ways = [
        lambda: tenant.rest.get("/v1/models").headers["x-ratelimit-remaining"],
        lambda: dict(tenant.list_models(edge).initial_metadata())["x-ratelimit-remaining"],
        lambda: dict(tenant.list_models().initial_metadata())["x-ratelimit-remaining"],
        lambda: tenant.infer().headers["x-ratelimit-remaining"],
        lambda: tenant.rest.get("/v1/nothing").headers["x-ratelimit-remaining"],
        lambda: tenant.infer(b"no image").headers["x-ratelimit-remaining"],
    ]
    started = time.monotonic()
    left = [int(way()) for way in ways for _ in range(5)]
    gained = int(time.monotonic() - started) + 1
    assert 970 <= left[-1] <= 970 + gained
    assert tenant.limits()["requests_per_second"]["remaining"] in range(969, 969 + gained + 2)


def test_a_request_id_of_a_callers_own_does_not_make_its_call_free(tenant):
    tenant.limit("--rps", "1", "--burst", "2")
    own = (("x-request-id", "00000000-0000-0000-0000-000000000000"), ("x-camserve-counted", "AQ"))
    with grpc.insecure_channel(tenant.stack.grpc_target) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        for _ in range(2):
            stub.ListModels(models_pb2.ListModelsRequest(), metadata=(*tenant.metadata, *own), timeout=20)
        with pytest.raises(grpc.RpcError) as refusal:
            stub.ListModels(models_pb2.ListModelsRequest(), metadata=(*tenant.metadata, *own), timeout=20)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_images_of_a_day_are_charged_where_they_are_answered_and_nowhere_else(tenant):
    tenant.limit("--images-per-day", "7")
    assert tenant.infer().status_code == 200
    assert tenant.infer(b"no image").status_code == 400
    assert tenant.infer(encoded(40, 30, "PNG")[:200]).status_code == 422
    for _ in range(2):
        assert tenant.infer(**{"Idempotency-Key": "one"}).status_code == 200
    upload = tenant.rest.post("/v1/infer?model=shapes", content=star_png(), headers={"content-type": "image/png"})
    assert upload.status_code == 200
    assert tenant.limits()["images_per_day"]["used"] == 3
    entry = {"image": {"bytes": base64.b64encode(star_png()).decode()}}
    batch = {"model": "shapes", "inputs": [{"id": str(at), **entry} for at in range(5)]}
    for path in ("/v1/jobs", "/v1/infer:batch"):
        refused = tenant.rest.post(path, json=batch)
        assert (refused.status_code, code(refused)) == (429, "quota.exceeded")
        seconds = int(refused.headers["retry-after"])
        midnight = datetime.datetime.fromisoformat(tenant.limits()["images_per_day"]["resets_at"])
        assert abs((midnight - datetime.datetime.now(datetime.UTC)).total_seconds() - seconds) < 30
    # What would be refused tomorrow too is not put off.
    tenant.limit("--max-batch", "4")
    for path in ("/v1/jobs", "/v1/infer:batch"):
        refused = tenant.rest.post(path, json=batch)
        assert (refused.status_code, code(refused)) == (413, "batch.too_large")
    batch["inputs"].pop()
    assert tenant.rest.post("/v1/jobs", json=batch).status_code == 202
    assert tenant.limits()["images_per_day"]["used"] == 7
    assert (tenant.infer().status_code, code(tenant.infer())) == (429, "quota.exceeded")
    # What was answered once may be read again.
    assert tenant.infer(**{"Idempotency-Key": "one"}).headers["idempotency-replayed"] == "true"


def test_calls_beyond_the_concurrency_are_refused_and_leave_room_when_they_end(tenant):
    tenant.limit("--concurrency", "2")

    def unfinished():
        yield star_png()[:100]
        while not enough:
            time.sleep(0.02)
            yield b""
        yield star_png()[100:]

    enough = []
    headers = {"content-type": "image/png", "content-length": str(len(star_png()))}
    with ThreadPoolExecutor(2) as pool:
        uploads = [
            pool.submit(
                httpx.post,
                f"{tenant.stack.edge_url}/v1/uploads",
                content=unfinished(),
                timeout=60,
                headers=tenant.headers | headers,
            )
            for _ in range(2)
        ]
        try:
            deadline = time.monotonic() + 30
            while tenant.limits()["concurrency"]["in_use"] < 2:
                assert time.monotonic() < deadline
            refused = tenant.infer()
            assert (refused.status_code, code(refused), refused.headers["retry-after"]) == (
                429,
                "concurrency.exceeded",
                "1",
            )
            assert tenant.rest.get("/v1/models").status_code == 200
        finally:
            enough.append(True)
        assert [upload.result().status_code for upload in uploads] == [201, 201]
    assert tenant.limits()["concurrency"]["in_use"] == 0
    assert tenant.infer().status_code == 200


def test_a_tenants_own_sizes_hold(tenant):
    tenant.limit("--max-batch", "2", "--max-image-bytes", "100000")
    entry = {"image": {"bytes": base64.b64encode(b"x").decode()}}
    batch = {"model": "shapes", "inputs": [{"id": str(at), **entry} for at in range(3)]}
    for path in ("/v1/jobs", "/v1/infer:batch"):
        refused = tenant.rest.post(path, json=batch)
        assert (refused.status_code, code(refused)) == (413, "batch.too_large")
        assert refused.json()["error"]["details"] == {"limit": 2, "actual": 3}
    large = encoded(200, 200, "BMP")
    refusals = [
        tenant.infer(large),
        tenant.rest.post("/v1/infer?model=shapes", content=large, headers={"content-type": "image/bmp"}),
        tenant.rest.post("/v1/uploads", content=large, headers={"content-type": "image/bmp"}),
        tenant.rest.post("/v1/uploads:presign", json={"media_type": "image/bmp", "size_bytes": str(len(large))}),
    ]
    for refused in refusals:
        assert (refused.status_code, code(refused)) == (413, "upload.too_large")
        assert refused.json()["error"]["details"]["limit_mb"] == 0.1
    assert tenant.infer().status_code == 200


def test_plans_give_their_limits_to_their_tenants(tenant):
    run = tenant.stack.camserve
    assert run("plans", "set", "tiny", "--images-per-day", "1").returncode == 0
    assert "images-per-day 1" in run("plans", "list").stdout
    assert "plan tiny" in tenant.limit("--plan", "tiny")
    assert tenant.limits()["images_per_day"]["limit"] == 1
    assert tenant.name in run("tenants", "list").stdout
    assert "concurrency 9*" in tenant.limit("--concurrency", "9")
    refused = run("tenants", "set", tenant.name, "--plan", "none")
    assert (refused.returncode, "There is no such plan." in refused.stderr) == (1, True)
    assert run("plans", "delete", "tiny").returncode == 0
    assert run("tenants", "reset", tenant.name).returncode == 0
    assert "*" not in run("tenants", "show", tenant.name).stdout


def test_administration_needs_its_scope_and_the_internal_listener(tenant):
    from camserve.v1 import admin_pb2, admin_pb2_grpc

    def ask(target, scopes):
        metadata = (("authorization", f"Bearer {tenant.stack.token(scopes=scopes)}"),)
        with grpc.insecure_channel(target) as channel, pytest.raises(grpc.RpcError) as refusal:
            admin_pb2_grpc.AdminServiceStub(channel).ListTenants(
                admin_pb2.ListTenantsRequest(), metadata=metadata, timeout=20
            )
        return refusal.value.code()

    assert ask(tenant.stack.internal_target, ("jobs.read",)) is grpc.StatusCode.PERMISSION_DENIED
    assert ask(tenant.stack.grpc_target, ("admin",)) is grpc.StatusCode.UNIMPLEMENTED
    assert ask(tenant.stack.edge_url.removeprefix("http://"), ("admin",)) is grpc.StatusCode.UNIMPLEMENTED


def unchecked(metrics_urls):
    """Returns how often the store did not tell a replica in time how a tenant stands."""
    texts = [httpx.get(url).text for url in metrics_urls]
    return sum(
        float(value) for text in texts for value in re.findall(r"^camserve_limits_unchecked_total (\S+)$", text, re.M)
    )


def test_two_replicas_count_together(make_stack):
    stack = make_stack()
    [metrics_port] = free_ports(1)
    other, ready = start_replica(stack, metrics_port=metrics_port)
    try:
        tenant = Tenant(stack, "both")
        deadline = time.monotonic() + 60
        while not ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        target = f"127.0.0.1:{ready.stem.removeprefix('replica-')}"
        metrics_urls = [*stack.metrics_urls, f"http://127.0.0.1:{metrics_port}/metrics"]
        with grpc.insecure_channel(target) as channel, grpc.insecure_channel(stack.grpc_target) as first:
            stubs = [limits_pb2_grpc.LimitServiceStub(each) for each in (channel, first)]

            def limit(stub):
                answer = stub.GetLimits(limits_pb2.GetLimitsRequest(), metadata=tenant.metadata, timeout=20)
                return answer.requests_per_second.limit

            assert [limit(stub) for stub in stubs] == [5000, 5000]
            tenant.limit("--rps", "20", "--burst", "10")
            assert [limit(stub) for stub in stubs] == [20, 20]
            # Longer than a replica counts by itself because of an answer that was late before.
            time.sleep(1.2)
            unasked = unchecked(metrics_urls)
            passed, overflow = 0, 0.0
            started = asked = time.monotonic()
            while time.monotonic() - started < 10:
                for stub in stubs:
                    # What comes while the bucket is full is lost, as when the machine stands still for half a second.
                    overflow += max(0.0, 20 * (time.monotonic() - asked) - 10)
                    asked = time.monotonic()
                    with suppress(grpc.RpcError):
                        limit(stub)
                        passed += 1
            seconds = time.monotonic() - started
            unasked = unchecked(metrics_urls) - unasked
        # A replica that the store does not answer for half a second counts by itself for the next second.
        assert -2 - overflow <= passed - (10 + 20 * seconds) <= 2 + unasked * (10 + 20 * 1.5)
        tenant.rest.close()
    finally:
        other.send_signal(signal.SIGTERM)
        other.wait(30)


def test_with_the_store_paused_calls_are_answered_and_each_replica_counts(make_stack):
    stack = make_stack(replica_count=1)
    tenant = Tenant(stack, "alone")
    tenant.limit("--rps", "2", "--burst", "6")
    assert tenant.infer().status_code == 200
    valkey = next(
        each for each in psutil.Process(stack.process.pid).children(recursive=True) if "valkey" in each.name()
    )
    os.kill(valkey.pid, signal.SIGSTOP)
    try:
        statuses = [tenant.infer().status_code for _ in range(12)]
        told = stack.camserve("tenants", "set", "alone", "--rps", "3").stderr
        assert "state store" in told
    finally:
        os.kill(valkey.pid, signal.SIGCONT)
    assert statuses[0] == 200
    assert 429 in statuses
    assert set(statuses) == {200, 429}
    deadline = time.monotonic() + 20
    while tenant.rest.get("/v1/limits").status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    tenant.rest.close()


def test_images_may_be_larger_than_a_message_can_be(make_stack):
    running = make_stack(
        max_image_bytes=5_000_000_000, upload_memory_mb=5000, max_json_bytes=2**31 - 1, torch_threads=1
    )
    tenant = Tenant(running, "large")
    assert tenant.limits()["max_image_bytes"] == "5000000000"
    assert tenant.infer().json()["classes"][0]["id"] == "star"
    begun = {"upload-length": "5000000000", "tus-resumable": "1.0.0"}
    assert tenant.rest.post("/v1/uploads:resumable", headers=begun).status_code == 201
    declared = {"media_type": "image/tiff", "size_bytes": "5000000001"}
    assert code(tenant.rest.post("/v1/uploads:presign", json=declared)) == "upload.too_large"
    tenant.rest.close()
