"""Parts of a stream that are not given to protobuf, which must say the same of them."""

from __future__ import annotations

import pytest
from google.api import httpbody_pb2
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from camserve.v1 import inference_pb2, jobs_pb2, uploads_pb2
from camserve_server.rpc.body_part import body_part

LONG = bytes(range(256)) * 300
STREAMED = [uploads_pb2.UploadImageRequest, uploads_pb2.AppendUploadRequest, inference_pb2.InferUploadRequest]


def body(data: bytes = LONG, **fields: str) -> httpbody_pb2.HttpBody:
    return httpbody_pb2.HttpBody(data=data, **fields)


@pytest.mark.parametrize("kind", STREAMED)
def test_a_long_part_is_seen_where_it_came(kind: type[Message]) -> None:
    part = body_part(kind(body=body()).SerializeToString(), kind.DESCRIPTOR)
    assert part is not None
    assert part.body.data == LONG


@pytest.mark.parametrize(
    "message",
    [
        uploads_pb2.UploadImageRequest(body=body(content_type="image/png")),
        uploads_pb2.UploadImageRequest(size_bytes=1, body=body()),
        uploads_pb2.UploadImageRequest(content_md5="x" * len(LONG)),
        uploads_pb2.UploadImageRequest(body=body(b"short")),
        uploads_pb2.UploadImageRequest(body=body(b"", content_type="x" * len(LONG))),
        uploads_pb2.UploadImageRequest(),
        jobs_pb2.CreateJobRequest(model="x" * len(LONG)),
    ],
)
def test_anything_else_is_left_to_protobuf(message: Message) -> None:
    assert body_part(message.SerializeToString(), message.DESCRIPTOR) is None


@given(st.integers(0, 12), st.binary(max_size=4), st.integers(0, 4), st.binary(max_size=4))
def test_protobuf_reads_the_same(at: int, written: bytes, cut: int, appended: bytes) -> None:
    whole = uploads_pb2.UploadImageRequest(body=body()).SerializeToString()
    data = whole[:at] + written + whole[at + cut :] + appended
    part = body_part(data, uploads_pb2.UploadImageRequest.DESCRIPTOR)
    if part is not None:
        assert uploads_pb2.UploadImageRequest.FromString(data) == uploads_pb2.UploadImageRequest(
            body=body(bytes(part.body.data))
        )
