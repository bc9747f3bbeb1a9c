"""Headers that grpc-core parses itself must not reach it from strangers."""

from __future__ import annotations

import socket

import grpc
import httpx
import pytest

from camserve.v1 import models_pb2, models_pb2_grpc


@pytest.mark.parametrize(
    "header",
    [
        ("grpc-timeout", "x"),
        ("grpc-timeout", ""),
        ("grpc-encoding", "zzz"),
        ("grpc-encoding", "gzip"),
        ("grpc-status", "x"),
        ("grpc-retry-pushback-ms", "x"),
        ("grpc-internal-encoding-request", "x"),
        ("grpc-tags-bin", "!!!"),
        ("grpc-trace-bin", "!!!"),
        ("endpoint-load-metrics-bin", "!!!"),
        ("x-foo-bin", "!!!"),
        ("user-agent", b"\xff\xfe"),
    ],
)
def test_headers_of_the_protocol_have_no_effect_over_rest(stack, header):
    answer = httpx.get(f"{stack.edge_url}/v1/health", headers=[header])
    assert answer.status_code == 200


def test_names_of_headers_that_grpc_does_not_know_have_no_effect_over_rest(stack):
    unknown = {f"x-{character}": "x" for character in "!#$%&'*+.^`|~"}
    answer = httpx.get(f"{stack.edge_url}/v1/health", headers=unknown)
    assert answer.status_code == 200


async def test_a_malformed_timeout_spoils_no_other_callers_call(stack):
    async with httpx.AsyncClient(base_url=stack.edge_url, headers={"grpc-timeout": "x"}) as stranger:
        for _ in range(10):
            assert (await stranger.get("/v1/health")).status_code == 200
    target = stack.edge_url.removeprefix("http://")
    metadata = (("authorization", f"Bearer {stack.token()}"),)
    for _ in range(20):
        async with grpc.aio.insecure_channel(target) as channel:
            stub = models_pb2_grpc.ModelServiceStub(channel)
            model = await stub.GetModel(models_pb2.GetModelRequest(model="shapes"), metadata=metadata, timeout=20)
            assert model.model == "shapes"


async def test_native_callers_keep_deadlines(stack):
    target = stack.edge_url.removeprefix("http://")
    async with grpc.aio.insecure_channel(target) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        metadata = (("authorization", f"Bearer {stack.token()}"),)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata, timeout=0.0001)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        listed = await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata, timeout=20)
        assert listed.models


async def test_native_callers_that_pack_their_messages_are_told_not_to(stack):
    target = stack.edge_url.removeprefix("http://")
    async with grpc.aio.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        stub = models_pb2_grpc.ModelServiceStub(channel)
        metadata = (("authorization", f"Bearer {stack.token()}"),)
        with pytest.raises(grpc.aio.AioRpcError, match="Compression algorithm 'gzip' is disabled") as caught:
            await stub.ListModels(models_pb2.ListModelsRequest(), metadata=metadata, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_transfer_coding_that_is_not_known_is_the_callers_fault(stack):
    host, port = stack.edge_url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"POST /v1/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 400")
    assert '"param.invalid"' in answer
