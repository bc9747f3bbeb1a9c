"""Parts of a stream that are not given to protobuf, which must say the same of them."""

from __future__ import annotations

import pytest
from google.api import httpbody_pb2
from google.protobuf.message import DecodeError, Message
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


@pytest.mark.parametrize("outer", range(3, 11))
@pytest.mark.parametrize("inner", range(3, 11))
def test_lengths_of_more_bytes_than_they_need_mean_what_protobuf_reads(outer: int, inner: int) -> None:
    data = b"\x12" + padded(len(LONG), inner) + LONG
    data = b"\x7a" + padded(len(data), outer) + data
    part = body_part(data, uploads_pb2.UploadImageRequest.DESCRIPTOR)
    if max(outer, inner) > 5:
        assert part is None
        with pytest.raises(DecodeError):
            uploads_pb2.UploadImageRequest.FromString(data)
    else:
        assert part is not None
        assert part.body.data == uploads_pb2.UploadImageRequest.FromString(data).body.data == LONG


def padded(length: int, n_bytes: int) -> bytes:
    """Returns a number as a varint of so many bytes."""
    return bytes(length >> 7 * place & 0x7F | 0x80 * (place < n_bytes - 1) for place in range(n_bytes))


@given(st.integers(0, 12), st.binary(max_size=4), st.integers(0, 4), st.binary(max_size=4))
def test_protobuf_reads_the_same(at: int, written: bytes, cut: int, appended: bytes) -> None:
    whole = uploads_pb2.UploadImageRequest(body=body()).SerializeToString()
    data = whole[:at] + written + whole[at + cut :] + appended
    part = body_part(data, uploads_pb2.UploadImageRequest.DESCRIPTOR)
    if part is not None:
        assert uploads_pb2.UploadImageRequest.FromString(data) == uploads_pb2.UploadImageRequest(
            body=body(bytes(part.body.data))
        )
